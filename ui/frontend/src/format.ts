/** Numbers and shapes as people read them. */
import type { Dim } from "./messages";

const SYMBOLS: Record<string, string> = { batch: "B" };

/** `[B, 16, 576]`; a ragged value has at most so many items, written `≤16`. */
export function shapeText({ shape, ragged }: { shape: Dim[]; ragged: boolean }): string {
  const words = shape.map((dim) => (dim === null ? "?" : (SYMBOLS[dim] ?? String(dim))));
  if (ragged && words.length > 1) words[1] = `≤${words[1]}`;
  return `[${words.join(", ")}]`;
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
