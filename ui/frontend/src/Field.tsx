/** One knob of a part as a control: a box, a choice, a switch, or YAML for what has no simpler form. */
import { type ReactNode, useEffect, useState } from "react";
import { parse, stringify } from "yaml";
import type { Json } from "./document";
import type { Field as FieldInfo } from "./messages";

export interface FieldProps {
  id: string;
  field: FieldInfo;
  value: Json | undefined;
  onChange: (value: Json | undefined) => void;
}

export function Field(props: FieldProps): ReactNode {
  const { id, field, value, onChange } = props;
  const set = value !== undefined;
  return (
    <div className={`field${set ? " set" : ""}`}>
      <label htmlFor={id} title={field.about}>
        {field.key}
        {field.required && <b title="required"> *</b>}
      </label>
      <Control {...props} />
      {set && !field.required && (
        <button type="button" className="reset" title={`back to the default, ${JSON.stringify(field.default)}`} aria-label={`reset ${field.key}`} onClick={() => onChange(undefined)}>
          ↺
        </button>
      )}
      {field.about && <small id={`${id}-about`}>{field.about}</small>}
    </div>
  );
}

function Control(props: FieldProps): ReactNode {
  const { id, field, value, onChange } = props;
  const shown = value === undefined ? field.default : value;
  const described = field.about ? `${id}-about` : undefined;
  if (field.control === "boolean" && !field.nullable) {
    return <input id={id} type="checkbox" role="switch" aria-describedby={described} checked={shown === true} onChange={(event) => onChange(event.target.checked)} />;
  }
  if (field.control === "boolean" || field.control === "choice") {
    const choices = field.control === "boolean" ? [true, false] : field.choices;
    return (
      <select id={id} aria-describedby={described} value={JSON.stringify(shown)} onChange={(event) => onChange(JSON.parse(event.target.value) as Json)}>
        {field.nullable && <option value="null">default</option>}
        {choices.map((choice) => (
          <option key={String(choice)} value={JSON.stringify(choice)}>
            {choice === true ? "yes" : choice === false ? "no" : String(choice)}
          </option>
        ))}
      </select>
    );
  }
  return <TextControl {...props} shown={shown} described={described} />;
}

function textOf(value: Json | undefined, control: string): string {
  if (value === undefined || value === null) return "";
  if (control === "string") return String(value);
  if (typeof value === "object") return stringify(value, { collectionStyle: "flow", lineWidth: 0 }).trim();
  return String(value);
}

/** The value that a text stands for; undefined when it stands for none. */
export function valueOf(text: string, field: FieldInfo): Json | undefined {
  if (text.trim() === "" && field.control !== "string") return field.nullable ? null : undefined;
  if (field.control === "string") return text === "" && field.nullable ? null : text;
  try {
    return parse(text, { schema: "core", maxAliasCount: 0 }) as Json;
  } catch {
    return text;
  }
}

/** Why a value cannot stand here, from the schema's bounds alone; Python's check says the rest. */
export function complaint(value: Json | undefined, field: FieldInfo): string | null {
  if ((field.control === "integer" || field.control === "number") && value !== null && value !== undefined) {
    if (typeof value !== "number") return "a number, please";
    if (field.control === "integer" && !Number.isInteger(value)) return "a whole number, please";
    if (field.least !== null && value < field.least) return `at least ${field.least}`;
    if (field.most !== null && value > field.most) return `at most ${field.most}`;
  }
  if (typeof value === "string" && field.pattern !== null && !new RegExp(field.pattern).test(value)) return "not of the form it needs";
  return null;
}

function TextControl({ id, field, value, shown, described, onChange }: FieldProps & { shown: Json; described: string | undefined }): ReactNode {
  const current = textOf(value, field.control);
  const [text, setText] = useState(current);
  useEffect(() => setText(current), [current]);
  const wrong = text === current ? null : complaint(valueOf(text, field), field);
  const finish = (): void => {
    if (text === current) return;
    const next = text === "" && !field.required ? undefined : valueOf(text, field);
    onChange(next);
  };
  return (
    <>
      <input
        id={id}
        className={wrong ? "bad" : ""}
        aria-invalid={wrong !== null}
        aria-describedby={described}
        inputMode={field.control === "integer" ? "numeric" : field.control === "number" ? "decimal" : "text"}
        placeholder={textOf(shown, field.control)}
        value={text}
        onChange={(event) => setText(event.target.value)}
        onBlur={finish}
        onKeyDown={(event) => {
          if (event.key === "Enter") finish();
          if (event.key === "Escape") setText(current);
        }}
      />
      {wrong && <small className="complaint">{wrong}</small>}
    </>
  );
}
