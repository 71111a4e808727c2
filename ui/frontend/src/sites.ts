/** Site patterns as `assembler.anatomy` reads them; `tests/vectors.json` holds both to it. */

const MOST = 1000;

/** The patterns without braces and ranges that a pattern stands for; null when it is malformed. */
export function expanded(pattern: string): string[] | null {
  const braces = /\{([^{}]*)\}/.exec(pattern);
  if (braces) {
    const before = pattern.slice(0, braces.index);
    const after = pattern.slice(braces.index + braces[0].length);
    const all = braces[1]!.split(",").map((word) => expanded(before + word.trim() + after));
    return all.includes(null) ? null : (all as string[][]).flat().slice(0, MOST);
  }
  if (pattern === "" || /[{}, ]/.test(pattern)) return null;
  const range = /\[(\d+)-(\d+)\]/.exec(pattern);
  if (!range) return /[[\]]/.test(pattern) ? null : [pattern];
  const [first, last] = [Number(range[1]), Number(range[2])];
  if (first > last || last - first >= MOST) return null;
  const found: string[] = [];
  for (let i = first; i <= last; i += 1) {
    const inner = expanded(pattern.slice(0, range.index) + String(i) + pattern.slice(range.index + range[0].length));
    if (inner === null) return null;
    found.push(...inner);
  }
  return found;
}

export interface Match {
  sites: string[];
  missing: string[];
}

/** The sites of a host that a pattern names, and the alternatives that name none; null when it is malformed. */
export function match(pattern: string, sites: string[]): Match | null {
  const plain = expanded(pattern);
  if (plain === null) return null;
  const found = new Set<string>();
  const missing: string[] = [];
  for (const one of plain) {
    const shape = new RegExp(`^${one.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/\\\*/g, "\\d+")}$`);
    const named = sites.filter((site) => shape.test(site));
    if (named.length === 0) missing.push(one);
    for (const site of named) found.add(site);
  }
  return { sites: [...found], missing };
}

/** The rows of an anatomy: every site with its index as `*`, and how many there are. */
export function rows(sites: string[]): [string, number][] {
  const counts = new Map<string, number>();
  for (const site of sites) {
    const row = site.replace(/(^|\.)\d+(?=\.|$)/g, "$1*");
    counts.set(row, (counts.get(row) ?? 0) + 1);
  }
  return [...counts];
}
