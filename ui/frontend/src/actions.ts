/** Every change of a document: a pure function from a document and an action to the next document. */
import { appended, blocksText, namesIn, parseBlocks, renamedIn } from "./compose";
import { type Doc, edgeText, equal, type Graph, isRaw, type Json, parseEdge, type Point, type Raw, type Wire } from "./document";
import type { Operation } from "./messages";

export type Layout = Record<string, Point>;
export type Section = "nodes" | "adapters";

export type Action =
  | { do: "add"; id: string; raw: Raw; layout: Layout; edges?: string[]; set?: Setting[] }
  | { do: "attach"; id: string; raw: Raw; runs: boolean }
  | { do: "compose"; host: string; text: string | undefined }
  | { do: "move"; layout: Layout }
  | { do: "remove"; names: string[]; edges: string[] }
  | { do: "connect"; edge: string; set?: Setting[] }
  | { do: "set"; section: Section; id: string; key: string; value: Json | undefined }
  | { do: "rename"; id: string; to: string }
  | { do: "swap"; id: string; raw: Raw }
  | { do: "insert"; edge: string; id: string; raw: Raw; port: string; layout: Layout }
  | { do: "fix"; operations: Operation[] }
  | { do: "paste"; graph: Pick<Graph, "nodes" | "edges" | "adapters">; layout: Layout }
  | { do: "group"; id: string; nodes: string[]; note: string }
  | { do: "rename-group"; id: string; to: string }
  | { do: "ungroup"; id: string }
  | { do: "section"; key: "name" | "data" | "stages"; value: Json }
  | { do: "replace"; doc: Doc };

/** A key of a node that changes together with something else. */
export interface Setting {
  node: string;
  key: string;
  value: Json;
}

/** The next document; the very same one when the action changes nothing. */
export function reduce(doc: Doc, action: Action): Doc {
  if (action.do === "replace") {
    const same = doc.base === action.doc.base && equal(asJson(doc.graph), asJson(action.doc.graph));
    return same ? doc : action.doc;
  }
  const graph = next(doc.graph, action);
  return graph === doc.graph || equal(asJson(graph), asJson(doc.graph)) ? doc : { ...doc, graph };
}

function asJson(graph: Graph): Json {
  return graph as unknown as Json;
}

function next(graph: Graph, action: Exclude<Action, { do: "replace" }>): Graph {
  switch (action.do) {
    case "add": {
      if (action.id in graph.nodes || action.id in graph.adapters) return graph;
      const nodes = { ...graph.nodes, [action.id]: action.raw };
      const edges = [...graph.edges, ...(action.edges ?? []).filter((edge) => !graph.edges.includes(edge))];
      return withSettings({ ...graph, nodes, edges, layout: rounded(action.layout) }, action.set);
    }
    case "attach":
      if (action.id in graph.adapters || action.id in graph.nodes) return graph;
      return attached(graph, action);
    case "compose": {
      const rest = omit(graph.compose, new Set([action.host]));
      if (action.text === undefined) return { ...graph, compose: rest };
      return { ...graph, compose: { ...graph.compose, [action.host]: action.text } };
    }
    case "move":
      return { ...graph, layout: { ...graph.layout, ...rounded(action.layout) } };
    case "remove":
      return without(graph, new Set(action.names), new Set(action.edges));
    case "connect":
      if (graph.edges.includes(action.edge)) return graph;
      return withSettings({ ...graph, edges: [...graph.edges, action.edge] }, action.set);
    case "set":
      return withKey(graph, action.section, action.id, action.key, action.value);
    case "rename":
      return renamed(graph, action.id, action.to);
    case "swap":
      if (!(action.id in graph.nodes)) return graph;
      return { ...graph, nodes: { ...graph.nodes, [action.id]: action.raw } };
    case "insert":
      return inserted(graph, action);
    case "fix":
      return fixed(graph, action.operations);
    case "paste":
      return {
        ...graph,
        nodes: { ...graph.nodes, ...action.graph.nodes },
        adapters: { ...graph.adapters, ...action.graph.adapters },
        edges: [...graph.edges, ...action.graph.edges],
        layout: { ...graph.layout, ...rounded(action.layout) },
      };
    case "group":
      return { ...graph, groups: { ...graph.groups, [action.id]: { nodes: action.nodes, note: action.note } } };
    case "rename-group": {
      if (!(action.id in graph.groups) || action.to in graph.groups || action.to === "") return graph;
      return { ...graph, groups: renamedKeys(graph.groups, action.id, action.to) };
    }
    case "ungroup":
      return { ...graph, groups: omit(graph.groups, new Set([action.id])) };
    case "section":
      return { ...graph, [action.key]: action.value };
  }
}

/** The graph with an adapter more; where its host has a composition, it runs after all others. */
function attached(graph: Graph, { id, raw, runs }: Extract<Action, { do: "attach" }>): Graph {
  const adapters = { ...graph.adapters, [id]: raw };
  const host = String(raw.host);
  const tree = runs && graph.compose[host] !== undefined ? parseBlocks(graph.compose[host]) : null;
  if (tree === null) return { ...graph, adapters };
  return { ...graph, adapters, compose: { ...graph.compose, [host]: blocksText(appended(tree, id)) } };
}

/** The compositions under new names; what is gone is taken out, and a text that is no composition is left alone. */
function recomposed(compose: Record<string, string>, change: (name: string) => string | null): Record<string, string> {
  const entries = Object.entries(compose).flatMap(([host, text]): [string, string][] => {
    const name = change(host);
    if (name === null) return [];
    const tree = parseBlocks(text);
    if (tree === null || !namesIn(tree).some((item) => change(item) !== item)) return [[name, text]];
    const next = renamedIn(tree, change);
    return next === null ? [] : [[name, blocksText(next)]];
  });
  return Object.fromEntries(entries);
}

function rounded(layout: Layout): Layout {
  return Object.fromEntries(Object.entries(layout).map(([id, [x, y]]) => [id, [Math.round(x), Math.round(y)]]));
}

function omit<T>(record: Record<string, T>, names: Set<string>): Record<string, T> {
  if (!Object.keys(record).some((name) => names.has(name))) return record;
  return Object.fromEntries(Object.entries(record).filter(([name]) => !names.has(name)));
}

function withSettings(graph: Graph, settings: Setting[] = []): Graph {
  return settings.reduce((found, { node, key, value }) => withKey(found, "nodes", node, key, value), graph);
}

function withKey(graph: Graph, section: Section, id: string, key: string, value: Json | undefined): Graph {
  const raw = graph[section][id];
  if (!isRaw(raw)) return graph;
  const changed = value === undefined ? (omit(raw, new Set([key])) as Raw) : { ...raw, [key]: value };
  return { ...graph, [section]: { ...graph[section], [id]: changed } };
}

/** The graph without some nodes, adapters and wires, and without what spoke of them. */
function without(graph: Graph, names: Set<string>, edges: Set<string>): Graph {
  const gone = new Set(names);
  for (const [name, raw] of Object.entries(graph.adapters)) {
    if (isRaw(raw) && typeof raw.host === "string" && names.has(raw.host) && raw.host in graph.nodes) gone.add(name);
  }
  const kept = graph.edges.filter((text) => {
    const wire = parseEdge(text);
    return !edges.has(text) && !(wire && (gone.has(wire.source) || gone.has(wire.target)));
  });
  const groups = Object.entries(graph.groups).map(([id, group]) => {
    const nodes = group.nodes.filter((node) => !gone.has(node));
    return [id, nodes.length === group.nodes.length ? group : { ...group, nodes }] as const;
  });
  return {
    ...graph,
    nodes: omit(graph.nodes, gone),
    adapters: omit(graph.adapters, gone),
    edges: kept,
    compose: recomposed(graph.compose, (name) => (gone.has(name) ? null : name)),
    layout: omit(graph.layout, gone),
    stages: graph.stages.flatMap((stage) => left(stage, gone)),
    groups: Object.fromEntries(groups.filter(([, group]) => group.nodes.length > 0)),
  };
}

/** The stage without what is gone; a stage that is left with nothing to train goes too. */
function left(stage: Json, gone: Set<string>): Json[] {
  const found = trains(stage, (name) => (gone.has(name) ? null : name));
  const had = isRaw(stage) && Array.isArray(stage.train) && stage.train.length > 0;
  return had && isRaw(found) && Array.isArray(found.train) && found.train.length === 0 ? [] : [found];
}

/** A stage with other names of what it trains and of whose losses count; with none of those left, all count. */
function trains(stage: Json, change: (name: string) => string | null): Json {
  if (!isRaw(stage)) return stage;
  const changed = (names: Json[]): Json[] =>
    names.map((name) => (typeof name === "string" ? change(name) : name)).filter((name) => name !== null);
  const found = Array.isArray(stage.train) ? { ...stage, train: changed(stage.train) } : stage;
  if (!Array.isArray(stage.objectives)) return found;
  const counted = changed(stage.objectives);
  return counted.length > 0 ? { ...found, objectives: counted } : (omit(found, new Set(["objectives"])) as Raw);
}

function renamedKeys<T>(record: Record<string, T>, id: string, to: string): Record<string, T> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key === id ? to : key, value]));
}

function renamed(graph: Graph, id: string, to: string): Graph {
  const known = id in graph.nodes || id in graph.adapters;
  if (!known || id === to || to === "" || to in graph.nodes || to in graph.adapters) return graph;
  const swap = (name: string): string => (name === id ? to : name);
  const edges = graph.edges.map((text) => {
    const wire = parseEdge(text);
    if (!wire || (wire.source !== id && wire.target !== id)) return text;
    return edgeText({ ...wire, source: swap(wire.source), target: swap(wire.target) });
  });
  const adapters = Object.entries(graph.adapters).map(([name, raw]) => {
    return [swap(name), isRaw(raw) && raw.host === id ? { ...raw, host: to } : raw] as const;
  });
  const groups = Object.entries(graph.groups).map(([name, group]) => {
    return [name, { ...group, nodes: group.nodes.map(swap) }] as const;
  });
  return {
    ...graph,
    nodes: renamedKeys(graph.nodes, id, to),
    adapters: Object.fromEntries(adapters),
    edges,
    compose: recomposed(graph.compose, swap),
    layout: renamedKeys(graph.layout, id, to),
    stages: graph.stages.map((stage) => trains(stage, swap)),
    groups: Object.fromEntries(groups),
    data: columnsRenamed(graph.data, id, to),
  };
}

/** An input reads the data column of its own name, so a renamed one keeps reading the old. */
function columnsRenamed(data: Json, id: string, to: string): Json {
  if (!isRaw(data) || !isRaw(data.columns) || !(id in data.columns)) return data;
  return { ...data, columns: renamedKeys(data.columns, id, to) };
}

function inserted(graph: Graph, action: Extract<Action, { do: "insert" }>): Graph {
  const wire = parseEdge(action.edge);
  if (!wire || !graph.edges.includes(action.edge) || action.id in graph.nodes) return graph;
  const before: Wire = { source: wire.source, target: action.id, port: action.port };
  const after: Wire = { ...wire, source: action.id };
  return {
    ...graph,
    nodes: { ...graph.nodes, [action.id]: action.raw },
    edges: graph.edges.flatMap((text) => (text === action.edge ? [edgeText(before), edgeText(after)] : [text])),
    layout: { ...graph.layout, ...rounded(action.layout) },
  };
}

/** What `assembler validate --fix` does with the operations of a fix. */
function fixed(graph: Graph, operations: Operation[]): Graph {
  let found = graph as unknown as Raw;
  for (const operation of operations) {
    if (operation.op === "set") {
      found = withPath(found, operation.path, operation.value) as Raw;
    } else {
      const edges = (found as unknown as Graph).edges.flatMap((text) => {
        const wire = parseEdge(text);
        return wire && edgeText(wire) === operation.edge ? operation.edges : [text];
      });
      found = { ...found, edges };
    }
  }
  return found as unknown as Graph;
}

function withPath(tree: Json, path: (string | number)[], value: Json): Json {
  const [key, ...rest] = path;
  if (key === undefined) return value;
  if (Array.isArray(tree)) return tree.map((item, i) => (i === key ? withPath(item, rest, value) : item));
  const record = isRaw(tree) ? tree : {};
  return { ...record, [key]: withPath(record[String(key)] ?? {}, rest, value) };
}
