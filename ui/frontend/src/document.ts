/** The document: the graph of a spec as plain data, beside the YAML text it was opened from. */

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type Raw = { [key: string]: Json };
export type Point = [number, number];

export interface Group {
  nodes: string[];
  note?: string;
}

export interface Graph {
  name: string;
  nodes: Record<string, Json>;
  edges: string[];
  adapters: Record<string, Json>;
  compose: Record<string, string>;
  data: Json;
  stages: Json[];
  layout: Record<string, Point>;
  groups: Record<string, Group>;
}

export interface Doc {
  base: string;
  graph: Graph;
}

export interface Wire {
  source: string;
  target: string;
  port: string;
}

const EDGE = /^\s*([A-Za-z_][\w-]*)\s*->\s*([A-Za-z_][\w-]*)(?:\.([A-Za-z_][\w-]*))?\s*$/;

/** `a -> b` or `a -> b.port`; null when it is neither. */
export function parseEdge(text: string): Wire | null {
  const found = EDGE.exec(text);
  return found ? { source: found[1]!, target: found[2]!, port: found[3] ?? "in" } : null;
}

export function edgeText(wire: Wire): string {
  return `${wire.source} -> ${wire.target}${wire.port === "in" ? "" : `.${wire.port}`}`;
}

const parsed = new WeakMap<string[], Wire[]>();

export function wiresOf(graph: Graph): Wire[] {
  const before = parsed.get(graph.edges);
  if (before) return before;
  const found = graph.edges.map(parseEdge).filter((wire): wire is Wire => wire !== null);
  parsed.set(graph.edges, found);
  return found;
}

export function isRaw(value: Json | undefined): value is Raw {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function typeOf(raw: Json | undefined): string {
  return isRaw(raw) && typeof raw.type === "string" ? raw.type : "";
}

/** The adapters whose host is `node`, in the order of the spec. */
export function adaptersOn(graph: Graph, node: string): string[] {
  return Object.keys(graph.adapters).filter((name) => {
    const raw = graph.adapters[name];
    return isRaw(raw) && raw.host === node;
  });
}

/** The node that a wire goes into: for one that ends at an adapter, its host. */
export function hostOf(graph: Graph, target: string): string {
  const raw = graph.adapters[target];
  return isRaw(raw) && typeof raw.host === "string" && !(target in graph.nodes) ? raw.host : target;
}

/** The nodes and adapters that some stage trains. */
export function trainedNames(graph: Graph): Set<string> {
  const names = graph.stages.flatMap((stage) => (isRaw(stage) && Array.isArray(stage.train) ? stage.train : []));
  return new Set(names.filter((name): name is string => typeof name === "string"));
}

/** What learns of a node in the stages, its adapters with it; null where that is not said, or there is nothing to. */
export function learning(graph: Graph, node: string): string | null {
  const raw = graph.nodes[node];
  if (typeOf(raw).startsWith("input.")) return null;
  const names = trainedNames(graph);
  const own = names.has(node) && !(isRaw(raw) && raw.freeze === true);
  const adapters = adaptersOn(graph, node).filter((name) => names.has(name));
  if (adapters.length > 0) {
    const word = adapters.every((name) => typeOf(graph.adapters[name]).includes("lora")) ? "LoRA" : "adapters";
    return own ? `${word} + trained` : word;
  }
  if (own) return "trained";
  return (isRaw(raw) && raw.freeze === true) || names.size > 0 ? "frozen" : null;
}

/** `stem`, or `stem2`, `stem3`… where that name is taken by a node or an adapter. */
export function freshName(graph: Graph, stem: string, alsoTaken: Iterable<string> = []): string {
  const taken = new Set([...Object.keys(graph.nodes), ...Object.keys(graph.adapters), ...alsoTaken]);
  const base = stem.replace(/\W/g, "_").replace(/^(\d)/, "_$1") || "node";
  let name = base;
  for (let number = 2; taken.has(name); number += 1) name = `${base}${number}`;
  return name;
}

export function equal(a: Json | undefined, b: Json | undefined): boolean {
  if (a === b) return true;
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((item, i) => equal(item, b[i]));
  if (isRaw(a) && isRaw(b)) {
    const [left, right] = [Object.keys(a), Object.keys(b)];
    return left.length === right.length && left.every((key, i) => key === right[i] && equal(a[key], b[key]));
  }
  return false;
}
