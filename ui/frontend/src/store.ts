/** The editor's state. The browser owns the document; Python answers with what it found. */
import { useSyncExternalStore } from "react";
import type { Action } from "./actions";
import { type Doc, hostOf, type Point } from "./document";
import { type Label, LABELS } from "./format";
import { begin, commit, type History, redo, undo } from "./history";
import type { Answer, Catalogue, Check, Feed, Received, Request, Sent } from "./messages";
import type { Known } from "./rules";

export interface Menu {
  screen: Point;
  flow: Point;
  from?: string;
  to?: { node: string; port: string };
  edge?: string;
  swap?: string;
}

export interface Connecting {
  node: string;
  port: string | null;
}

export interface Selection {
  nodes: string[];
  edges: string[];
  adapter: string | null;
  group: string | null;
}

export interface State {
  id: string | null;
  history: History;
  rev: number;
  takenRev: number;
  version: number;
  synced: string | null;
  check: Check | null;
  catalogue: Catalogue;
  feed: Feed | null;
  place: Received["place"];
  conflict: Received["conflict"];
  requests: Request[];
  selection: Selection;
  connecting: Connecting | null;
  menu: Menu | null;
  centre: { node: string; serial: number } | null;
  /** How many documents were opened in place of the one that was there. */
  opened: number;
  said: { text: string; serial: number };
  command: string;
  compact: boolean;
  label: Label;
  dialog: "shortcuts" | "search" | "commands" | "save" | null;
  side: "inspector" | "yaml";
  positions: Record<string, Point>;
  recent: string[];
}

const NOTHING: Selection = { nodes: [], edges: [], adapter: null, group: null };
const EMPTY: Doc = {
  base: "assembler: 1\n",
  graph: { name: "model", nodes: {}, edges: [], adapters: {}, compose: {}, data: null, stages: [], layout: {}, groups: {} },
};

function fresh(): State {
  return {
    id: null,
    history: begin(EMPTY),
    rev: 0,
    takenRev: 0,
    version: 0,
    synced: null,
    check: null,
    catalogue: { parts: {}, axes: {} },
    feed: null,
    place: { path: null, writable: false, dirty: false, command: "" },
    conflict: null,
    requests: [],
    selection: NOTHING,
    connecting: null,
    menu: null,
    centre: null,
    opened: 0,
    said: { text: "", serial: 0 },
    command: "",
    compact: false,
    label: LABELS.find((label) => label === globalThis.localStorage?.getItem("assembler:label")) ?? "shape",
    dialog: null,
    side: "inspector",
    positions: {},
    recent: [],
  };
}

/** What is kept of a document while another one is open or the editor is not on the page. */
type Kept = Pick<State, "history" | "rev" | "takenRev" | "version" | "synced" | "check">;

class Store {
  private state = fresh();
  private listeners = new Set<() => void>();
  private kept = new Map<string, Kept>();
  private waiting = new Map<string, (answer: Answer) => void>();
  private serial = 0;
  private queued = false;
  send: ((message: Sent) => void) | null = null;

  readonly get = (): State => this.state;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly set = (change: Partial<State>): void => {
    this.state = { ...this.state, ...change };
    for (const listener of this.listeners) listener();
  };

  get doc(): Doc {
    return this.state.history.doc;
  }

  get known(): Known {
    return { graph: this.doc.graph, catalogue: this.state.catalogue, check: this.state.check };
  }

  /** Carry out one gesture: one entry of the history, one message. */
  readonly act = (action: Action, title: string, command = ""): boolean => {
    const history = commit(this.state.history, action, title);
    if (history === this.state.history) return false;
    this.changed(history, title, command);
    return true;
  };

  readonly undo = (): void => this.step(undo(this.state.history), "Undone");
  readonly redo = (): void => this.step(redo(this.state.history), "Done again");

  private step(history: History, title: string): void {
    if (history === this.state.history) return this.say(title === "Undone" ? "Nothing to undo" : "Nothing to redo");
    const entry = title === "Undone" ? history.future[0] : history.past.at(-1);
    this.changed(history, `${title}: ${entry?.title ?? ""}`, "");
  }

  private changed(history: History, title: string, command: string): void {
    const graph = history.doc.graph;
    const { selection } = this.state;
    const kept: Selection = {
      nodes: selection.nodes.filter((node) => node in graph.nodes),
      edges: selection.edges.filter((edge) => graph.edges.includes(edge)),
      adapter: selection.adapter !== null && selection.adapter in graph.adapters ? selection.adapter : null,
      group: selection.group !== null && selection.group in graph.groups ? selection.group : null,
    };
    const said = { text: title, serial: ++this.serial };
    const rev = this.state.rev + 1;
    this.set({ history, rev, synced: null, selection: kept, said, command: command || this.state.place.command });
    this.remember();
    this.post();
  }

  readonly say = (text: string): void => this.set({ said: { text, serial: ++this.serial } });
  readonly select = (change: Partial<Selection>): void => this.set({ selection: { ...NOTHING, ...change } });
  /** Bring a node, or the host of an adapter, into the middle, and select it. */
  readonly goTo = (name: string): void => {
    const isNode = name in this.doc.graph.nodes;
    const node = hostOf(this.doc.graph, name);
    const selection = isNode ? { ...NOTHING, nodes: [name] } : { ...NOTHING, adapter: name };
    this.set({ centre: { node, serial: ++this.serial }, selection });
  };

  /** Ask Python for something; the request goes with every message until it is answered. */
  readonly request = (name: Request["name"], more: Partial<Request>, then: (answer: Answer) => void): void => {
    const id = `${tab()}.${Date.now().toString(36)}.${++this.serial}`;
    this.waiting.set(id, then);
    this.set({ requests: [...this.state.requests, { id, name, ...more }] });
    this.post();
  };

  /** Send the newest document soon, once for all changes of this moment. */
  private post(force = false): void {
    if (this.queued && !force) return;
    this.queued = true;
    queueMicrotask(() => {
      this.queued = false;
      const { id, rev, version, requests } = this.state;
      if (id === null || this.send === null) return;
      this.send({ tab: tab(), id, parent: version, rev, force, document: this.doc, requests });
    });
  }

  /** Another tab changed the document while this one did: this tab's stays and the other's is one undo away. */
  readonly keepMine = (): void => {
    const { conflict, history } = this.state;
    if (!conflict) return;
    const past = [...history.past, { doc: conflict.document, title: "the other tab's version" }];
    this.set({ conflict: null, version: conflict.version, rev: this.state.rev + 1, history: { ...history, past } });
    this.post(true);
  };

  readonly takeTheirs = (): void => {
    const { conflict } = this.state;
    if (!conflict) return;
    this.set({ conflict: null, version: conflict.version });
    if (!this.act({ do: "replace", doc: conflict.document }, "Took the other tab's version")) this.post(true);
  };

  readonly receive = (data: Received): void => {
    if (data.taken?.tab === tab()) this.set({ takenRev: Math.max(this.state.takenRev, data.taken.rev) });
    if (this.state.id !== data.doc.id) this.open(data);
    else if (data.doc.tab !== tab() && data.doc.version > this.state.version) this.follow(data.doc);
    else if (data.doc.tab === tab()) this.set({ version: Math.max(this.state.version, data.doc.version) });
    const { rev, synced } = this.state;
    const check = data.check;
    const mine = check !== null && check.tab === tab() && check.rev >= rev;
    const theirs = check !== null && synced === `${check.tab}:${check.rev}`;
    this.set({ place: data.place, conflict: data.conflict, ...(mine || theirs ? { check } : {}) });
    if (!this.state.command) this.set({ command: data.place.command });
    this.answer(data.answers);
  };

  private answer(answers: Answer[]): void {
    for (const answer of answers) {
      const then = this.waiting.get(answer.id);
      this.waiting.delete(answer.id);
      this.set({ requests: this.state.requests.filter((request) => request.id !== answer.id) });
      if (answer.error) this.say(answer.error);
      else if (answer.said) this.say(answer.said);
      then?.(answer);
    }
  }

  private open(data: Received): void {
    const { id, history, rev, takenRev, version, synced, check } = this.state;
    const savedAs = data.answers.some((answer) => this.waiting.has(answer.id)) && data.doc.tab === tab();
    if (id !== null && savedAs) return this.set({ id: data.doc.id, version: data.doc.version });
    if (id !== null) this.kept.set(id, { history, rev, takenRev, version, synced, check });
    const before = this.kept.get(data.doc.id);
    const { doc } = data;
    const known = `${doc.tab}:${doc.rev}`;
    const start: Kept = before ?? {
      history: begin(doc.document),
      rev: doc.tab === tab() ? doc.rev : 0,
      takenRev: doc.tab === tab() ? doc.rev : 0,
      version: doc.version,
      synced: known,
      check: null,
    };
    this.set({ ...start, id: doc.id, selection: NOTHING, positions: {}, opened: 0, menu: null, command: data.place.command });
    if (before && doc.version > before.version) this.follow(doc);
    else if (before && before.rev > doc.rev) this.post();
    else if (!before) this.recover(doc);
  }

  /** Edits that the page made and Python never took, because the page was reloaded in between. */
  private recover(doc: Received["doc"]): void {
    const text = sessionStorage.getItem(`assembler:${doc.id}`);
    if (text === null) return;
    const draft = JSON.parse(text) as { rev: number; parent: number; document: Doc };
    if (doc.tab !== tab() || draft.rev <= doc.rev) return;
    this.set({ rev: draft.rev });
    this.act({ do: "replace", doc: draft.document }, "Recovered what was not sent yet");
  }

  private remember(): void {
    const { id, rev, version } = this.state;
    if (id === null) return;
    const draft = JSON.stringify({ rev, parent: version, document: this.doc });
    if (draft.length < 2_000_000) sessionStorage.setItem(`assembler:${id}`, draft);
  }

  /** Take over what another tab did, when all of this one's own was taken by Python. */
  private follow(doc: { version: number; tab: string; rev: number; document: Doc | null }): void {
    const { rev, takenRev, conflict } = this.state;
    if (doc.document === null || conflict !== null || rev > takenRev) return;
    const history = commit(this.state.history, { do: "replace", doc: doc.document }, "Changed in another tab");
    this.set({ history, version: doc.version, synced: `${doc.tab}:${doc.rev}` });
  }

  readonly receiveCatalogue = (catalogue: Catalogue): void => this.set({ catalogue });

  readonly receiveFeed = (feed: Feed): void => {
    this.set({ feed });
    const { doc } = feed;
    if (doc.id === this.state.id && doc.tab !== tab() && doc.version > this.state.version) this.follow(doc);
  };
}

/** This tab's name; it stays over a reload, so that Python knows the tab again. */
function tab(): string {
  let name = sessionStorage.getItem("assembler:tab");
  if (name === null) {
    name = crypto.getRandomValues(new Uint32Array(2)).join("-");
    sessionStorage.setItem("assembler:tab", name);
  }
  return name;
}

export const store = new Store();

export function useStore<T>(select: (state: State) => T): T {
  return useSyncExternalStore(store.subscribe, () => select(store.get()));
}
