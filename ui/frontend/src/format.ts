/** Numbers and shapes as people read them. */
import type { Dim } from "./messages";

const SYMBOLS: Record<string, string> = { batch: "B" };

export function shapeText(shape: Dim[]): string {
  return `[${shape.map((dim) => (dim === null ? "?" : (SYMBOLS[dim] ?? String(dim)))).join(", ")}]`;
}

export function count(value: number): string {
  for (const [unit, name] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]] as const) {
    if (value >= unit) return `${(value / unit).toPrecision(3).replace(/\.?0+$/, "")} ${name}`;
  }
  return String(value);
}

export function bytes(value: number): string {
  for (const [unit, name] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]] as const) {
    if (value >= unit) return `${(value / unit).toPrecision(3)} ${name}`;
  }
  return `${value} B`;
}
