/** Where in its host an adapter goes: a pattern, what it matches, and the host's sites to choose from. */
import { type ReactNode, useMemo } from "react";
import type { Json } from "./document";
import { Field } from "./Field";
import type { Field as FieldInfo } from "./messages";
import { match, rows } from "./sites";
import { useStore } from "./store";

const NONE: string[] = [];

interface Props {
  host: string;
  field: FieldInfo;
  value: Json | undefined;
  onChange: (value: Json | undefined) => void;
}

export function SitesPicker({ host, field, value, onChange }: Props): ReactNode {
  const sites = useStore((state) => state.feed?.costs?.sites[host]) ?? NONE;
  const pattern = String(value ?? field.default ?? "");
  const found = useMemo(() => match(pattern, sites), [pattern, sites]);
  const all = useMemo(() => rows(sites), [sites]);
  const chosen = new Set(found?.sites);
  const toggle = (row: string): void => onChange(toggled(pattern, row, all));
  return (
    <fieldset className="sites">
      <legend>sites</legend>
      <Field id={`sites-${host}`} field={field} value={value} onChange={onChange} />
      <p className={found && found.missing.length === 0 ? "matches" : "matches bad"} role="status">
        {sites.length === 0 && "The sites of this host are not known yet."}
        {sites.length > 0 && found === null && "The pattern is malformed."}
        {sites.length > 0 && found && `${found.sites.length} of ${sites.length} sites`}
        {sites.length > 0 && found && found.missing.length > 0 && `; ${host} has no ${found.missing.join(", ")}`}
      </p>
      <div className="rows">
        {all.map(([row, count]) => {
          const inside = match(row, sites)?.sites ?? [];
          const on = inside.filter((site) => chosen.has(site)).length;
          return (
            <label key={row}>
              <input type="checkbox" checked={on === inside.length && on > 0} onChange={() => toggle(row)} />
              <code>{row}</code>
              <small>{on > 0 && on < count ? `${on} of ${count}` : count}</small>
            </label>
          );
        })}
      </div>
    </fieldset>
  );
}

/** The pattern with one row of the anatomy more, or less. */
export function toggled(pattern: string, row: string, all: [string, number][]): string {
  const names = all.map(([name]) => name);
  const everything = names.map((name) => name.replace(/\*/g, "0"));
  const now = match(pattern, everything);
  const chosen = new Set(names.filter((_, index) => now?.sites.includes(everything[index]!)));
  if (chosen.has(row)) chosen.delete(row);
  else chosen.add(row);
  return shortened(names.filter((name) => chosen.has(name)));
}

/** Several sites as one pattern: `{…}` over the last word where all else is the same, over whole names otherwise. */
function shortened(names: string[]): string {
  if (names.length < 2) return names[0] ?? "";
  const heads = new Map<string, string[]>();
  for (const name of names) {
    const cut = name.lastIndexOf(".");
    const head = name.slice(0, cut + 1);
    heads.set(head, [...(heads.get(head) ?? []), name.slice(cut + 1)]);
  }
  if (heads.size === 1) {
    const [[head, words]] = [...heads] as [[string, string[]]];
    return `${head}{${words.join(",")}}`;
  }
  return `{${names.join(",")}}`;
}
