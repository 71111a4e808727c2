/** The editor's few icons, drawn as strokes so that they take the text's colour. */
import type { ReactNode } from "react";

const PATHS: Record<string, string> = {
  input: "M3 8h7M7 5l3 3l-3 3M13 3v10",
  encoder: "M2.5 3v10l6-2.500v-5zM8.500 8h5",
  projector: "M2.500 4.500h3l5 7h3M2.500 11.500h3l5-7h3",
  adapter: "M5.500 2.500v3M10.500 2.500v3M4 5.500h8v3a4 4 0 0 1-8 0zM8 12.500v2",
  backbone: "M8 2.500l5.500 3l-5.500 3l-5.500-3zM2.500 8.500l5.500 3l5.500-3M2.500 11.200l5.500 3l5.500-3",
  head: "M8 2.500a5.500 5.500 0 1 0 0 11a5.500 5.500 0 1 0 0-11M8 5.800a2.200 2.200 0 1 0 0 4.400a2.200 2.200 0 1 0 0-4.400",
  frozen: "M8 1.800v12.400M2.600 4.900l10.800 6.200M2.600 11.100l10.800-6.200M6.200 2.800l1.800 1.700l1.800-1.700M6.200 13.200l1.800-1.700l1.800 1.700",
  trained: "M8 1.800c.6 2.600 4 4 4 7.600a4 4 0 0 1-8 0c0-1.600.8-2.600 1.700-3.500c.2 1.200.8 1.700 1.300 1.900c-.2-2.200.2-4.200 1-6z",
  undo: "M3 6.500h6.500a3.500 3.500 0 0 1 0 7h-3M3 6.500l3-3M3 6.500l3 3",
  redo: "M13 6.500h-6.500a3.500 3.500 0 0 0 0 7h3M13 6.500l-3-3M13 6.500l-3 3",
  save: "M3 3h8l2 2v8h-10zM5.500 3v3.500h4.500v-3.500M5 13v-4h6v4",
  tidy: "M2.500 3h4v3h-4zM9.500 3h4v3h-4zM9.500 10h4v3h-4zM6.500 4.500h3M8 4.500v7h1.500",
  search: "M7 2.500a4.500 4.500 0 1 0 0 9a4.500 4.500 0 1 0 0-9M10.300 10.300l3.400 3.400",
  group: "M2.500 5v-2.500h2.500M11 2.500h2.500v2.500M13.500 11v2.500h-2.500M5 13.500h-2.500v-2.500M5.500 5.500h5v5h-5z",
  keys: "M1.800 4.500h12.400v7.500h-12.400zM4 7h.5M6.500 7h.5M9 7h.5M11.500 7h.5M5 9.700h6",
  warn: "M8 2.200l6.200 11h-12.400zM8 6.500v3.200M8 11.300v.4",
  close: "M4 4l8 8M12 4l-8 8",
  copy: "M5.500 5.500h8v8h-8zM5.500 10.500h-3v-8h8v3",
  mend: "M13.500 4.300l-2.300 2.300l-1.800-1.800l2.300-2.300a3.600 3.600 0 0 0-4.700 4.700l-4.500 4.500l1.800 1.800l4.500-4.500a3.600 3.600 0 0 0 4.700-4.700z",
  swap: "M3 5.500h9M9.500 3l2.500 2.500l-2.500 2.500M13 10.500h-9M6.500 8l-2.500 2.500l2.500 2.500",
  trash: "M3 4.500h10M6.500 4.500v-2h3v2M4.500 4.500l.6 9h5.800l.6-9",
  plus: "M8 3v10M3 8h10",
  terminal: "M2.500 3h11v10h-11zM5 6l2 2l-2 2M8.500 10.200h2.500",
  check: "M3 8.500l3.300 3.300l6.700-7.300",
};

export function Icon({ name, size = 16 }: { name: string; size?: number }): ReactNode {
  return (
    <svg className="icon" width={size} height={size} viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      <path d={PATHS[name] ?? PATHS.head} />
    </svg>
  );
}
