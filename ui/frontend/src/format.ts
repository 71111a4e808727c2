/** Numbers and shapes as people read them. */
import type { Dim } from "./messages";

const SYMBOLS: Record<string, string> = { batch: "B" };

/** `[B, 16, 576]`; a ragged value has at most so many items, written `≤16`. */
export function shapeText({ shape, ragged }: { shape: Dim[]; ragged: boolean }): string {
  const words = shape.map((dim) => (dim === null ? "?" : (SYMBOLS[dim] ?? String(dim))));
  if (ragged && words.length > 1) words[1] = `≤${words[1]}`;
  return `[${words.join(", ")}]`;
}

/** What a wire's label says of the value on it. */
export const LABELS = ["shape", "dtype", "bytes", "none"] as const;
export type Label = (typeof LABELS)[number];

const SIZES: Record<string, number> = { fp32: 4, bf16: 2 };

/** The shape, the shape with its number format, or the bytes of one sample of the batch. */
export function wireText(carried: { kind: string | null; shape: Dim[]; ragged: boolean; dtype: string | null }, label: Label): string {
  if (carried.kind === null || label === "none") return "";
  const shape = shapeText(carried);
  if (label === "shape" || carried.dtype === null) return shape;
  if (label === "dtype") return `${shape} ${carried.dtype}`;
  const dims = carried.shape.slice(1);
  if (!dims.every((dim): dim is number => typeof dim === "number")) return shape;
  const size = dims.reduce((product, dim) => product * dim, SIZES[carried.dtype] ?? 4);
  return `${carried.ragged ? "≤" : ""}${bytes(size)}`;
}

export function count(value: number): string {
  for (const [unit, name] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]] as const) {
    if (value >= unit) return `${Number((value / unit).toPrecision(3))} ${name}`;
  }
  return String(value);
}

export function operations(value: number): string {
  for (const [unit, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"]] as const) {
    if (value >= unit) return `${(value / unit).toPrecision(3)} ${name}FLOP`;
  }
  return `${value} FLOP`;
}

/** A share as `0.34 %`; `100 %` only for all, `0 %` only for nothing. */
export function share(part: number, whole: number): string {
  if (whole === 0 || part === 0) return "0 %";
  if (part === whole) return "100 %";
  const percent = (100 * part) / whole;
  return `${percent < 10 ? percent.toPrecision(2) : Math.min(99, Math.round(percent))} %`;
}

export function bytes(value: number): string {
  for (const [unit, name] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]] as const) {
    if (value >= unit) return `${(value / unit).toPrecision(3)} ${name}`;
  }
  return `${value} B`;
}
