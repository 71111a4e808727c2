/** Undo and redo: one entry a gesture. Selection and zoom are never entries. */
import { type Action, reduce } from "./actions";
import type { Doc } from "./document";

export interface History {
  past: Entry[];
  doc: Doc;
  future: Entry[];
}

export interface Entry {
  doc: Doc;
  title: string;
}

const MOST = 1000;

export function begin(doc: Doc): History {
  return { past: [], doc, future: [] };
}

/** The history after a gesture; the very same when it changed nothing. */
export function commit(history: History, action: Action, title: string): History {
  const doc = reduce(history.doc, action);
  if (doc === history.doc) return history;
  return { past: [...history.past, { doc: history.doc, title }].slice(-MOST), doc, future: [] };
}

export function undo(history: History): History {
  const last = history.past.at(-1);
  if (!last) return history;
  const future = [{ doc: history.doc, title: last.title }, ...history.future];
  return { past: history.past.slice(0, -1), doc: last.doc, future };
}

export function redo(history: History): History {
  const [first, ...future] = history.future;
  if (!first) return history;
  return { past: [...history.past, { doc: history.doc, title: first.title }], doc: first.doc, future };
}
