/** What a person does, as actions on the document with a title and the command line that does the same. */
import type { Json, Raw } from "./document";
import { adaptersOn, edgeText, equal, freshName, isRaw, parseEdge, type Point, typeOf, type Wire } from "./document";
import { NODE_WIDTH, placed, tidy } from "./layout";
import type { PartInfo, Problem } from "./messages";
import { shortName } from "./parts";
import { carriedOver, freePort, givesOf, grown, growthRefusal, infoOf, portsOf, refusal, slotFor, templateOf } from "./rules";
import { store } from "./store";

const portNames = (node: string): string[] => Object.keys(portsOf(store.known, node));

/** Where every node stands on the canvas now, so that a gesture that stores one position stores all. */
export function positions(): Record<string, Point> {
  const { graph } = store.doc;
  return { ...placed(graph, portNames), ...pick(store.get().positions, graph.nodes) };
}

function pick<T>(record: Record<string, T>, names: Record<string, unknown>): Record<string, T> {
  return Object.fromEntries(Object.entries(record).filter(([name]) => name in names));
}

function used(info: PartInfo): void {
  const recent = [info.type, ...store.get().recent.filter((type) => type !== info.type)].slice(0, 8);
  store.set({ recent });
}

function newNode(info: PartInfo): { id: string; raw: Raw } {
  return { id: freshName(store.doc.graph, info.name), raw: { type: info.type, ...info.start } };
}

export function addNode(info: PartInfo, at: Point): string {
  const { id, raw } = newNode(info);
  store.act({ do: "add", id, raw, layout: { ...positions(), [id]: at } }, `Added ${id}`);
  store.select({ nodes: [id] });
  used(info);
  return id;
}

/** A new node after `from` (its first fitting port) or before a port, connected in the same gesture. */
export function addConnected(info: PartInfo, at: Point, end: { from?: string; to?: { node: string; port: string } }): void {
  const { id, raw } = newNode(info);
  const layout = { ...positions(), [id]: at };
  if (end.to) {
    const edge = edgeText({ source: id, target: end.to.node, port: end.to.port });
    store.act({ do: "add", id, raw, layout, edges: [edge] }, `Added ${id} before ${end.to.node}`);
  } else if (end.from) {
    const given = givesOf(store.known, end.from);
    if (info.grows) {
      const slot = end.from.replace(/\W/g, "_");
      const default_ = info.fields.find((field) => field.key === info.grows)?.default;
      const withSlot: Raw = { ...raw, [info.grows]: grown(String(raw[info.grows] ?? default_ ?? ""), slot) };
      const edge = edgeText({ source: end.from, target: id, port: slot });
      store.act({ do: "add", id, raw: withSlot, layout, edges: [edge] }, `Added ${id} after ${end.from}`);
    } else {
      const port = Object.keys(info.ports).find((name) => info.ports[name]!.some((kind) => given.includes(kind)));
      const edges = port === undefined ? [] : [edgeText({ source: end.from, target: id, port })];
      store.act({ do: "add", id, raw, layout, edges }, `Added ${id} after ${end.from}`);
    }
  }
  store.select({ nodes: [id] });
  used(info);
}

export function attach(info: PartInfo, host: string): void {
  if (typeOf(store.doc.graph.nodes[host]).startsWith("input.")) {
    store.say(`${host} holds no module to adapt`);
    return;
  }
  const id = freshName(store.doc.graph, info.name);
  const runs = info.trait !== "mixer";
  store.act({ do: "attach", id, raw: { type: info.type, ...info.start, host }, runs }, `Attached ${id} to ${host}`);
  store.select({ adapter: id });
  used(info);
}

/** Draw a wire, or say why not. On a part with a template a free port may be written into it. */
export function connect(wire: Wire): boolean {
  const why = refusal(store.known, wire);
  if (why !== null) {
    store.say(`Not connected: ${why}`);
    return false;
  }
  return store.act({ do: "connect", edge: edgeText(wire) }, `Connected ${edgeText(wire)}`);
}

export function connectAnywhere(source: string, target: string): boolean {
  const port = freePort(store.known, source, target);
  if (port !== null) return connect({ source, target, port });
  return grow(source, target);
}

export function grow(source: string, target: string): boolean {
  const known = store.known;
  const info = infoOf(known, target);
  const why = growthRefusal(known, source, target);
  if (why !== null || !info?.grows) {
    store.say(`Not connected: ${why ?? "no free input"}`);
    return false;
  }
  const slot = slotFor(known, source, target);
  const value = grown(templateOf(known, target, info), slot);
  const edge = edgeText({ source, target, port: slot });
  const set = [{ node: target, key: info.grows, value }];
  return store.act({ do: "connect", edge, set }, `Connected ${edge} and added {${slot}} to the ${info.grows}`);
}

export function removeSelected(): void {
  const { nodes, edges, adapter, group } = store.get().selection;
  if (group !== null) {
    store.act({ do: "ungroup", id: group }, `Ungrouped ${group}`);
    return;
  }
  const names = [...nodes, ...(adapter === null ? [] : [adapter])];
  const what = [...names, ...edges].join(", ");
  if (names.length + edges.length > 0) store.act({ do: "remove", names, edges }, `Removed ${what}`);
}

export function setKey(section: "nodes" | "adapters", id: string, key: string, value: Json | undefined): void {
  const raw = store.doc.graph[section][id];
  if (isRaw(raw) && equal(raw[key], value)) return;
  const setting = `${section}.${id}.${key}=${value === undefined ? "null" : JSON.stringify(value)}`;
  const path = store.get().place.path ?? "SPEC";
  store.act({ do: "set", section, id, key, value }, `Set ${id}.${key}`, `assembler summary ${path} --set '${setting}'`);
}

export function rename(id: string, to: string): void {
  const name = to.trim();
  if (name === id) return;
  const { graph } = store.doc;
  if (!/^[A-Za-z_]\w{0,63}$/.test(name)) return store.say(`${name} is no name; use letters, digits and _`);
  if (name in graph.nodes || name in graph.adapters) return store.say(`there is a ${name} already`);
  const isNode = id in graph.nodes;
  store.act({ do: "rename", id, to: name }, `Renamed ${id} to ${name}`);
  store.select(isNode ? { nodes: [name] } : { adapter: name });
}

/** Put another part in a node's place; its name, wires, adapters and the keys both know stay. */
export function swapPart(id: string, info: PartInfo): void {
  const raw = store.doc.graph.nodes[id];
  if (!isRaw(raw)) return;
  store.act({ do: "swap", id, raw: carriedOver(raw, info) }, `Swapped ${id} for ${info.type}`);
  used(info);
}

/** A new node in the middle of a wire. */
export function insertOn(edge: string, info: PartInfo, at: Point): void {
  const wire = parseEdge(edge);
  if (!wire) return;
  const given = givesOf(store.known, wire.source);
  const port = Object.keys(info.ports).find((name) => info.ports[name]!.some((kind) => given.includes(kind)));
  if (port === undefined) return store.say(`${info.type} does not take ${given.join(" or ")}`);
  const { id, raw } = newNode(info);
  const layout = { ...positions(), [id]: at };
  store.act({ do: "insert", edge, id, raw, port, layout }, `Inserted ${id} on ${edge}`);
  store.select({ nodes: [id] });
  used(info);
}

export function middleOf(edge: string): Point {
  const wire = parseEdge(edge);
  const where = positions();
  const a: Point = where[wire?.source ?? ""] ?? [0, 0];
  const b: Point = where[wire?.target ?? ""] ?? [0, 0];
  return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2 + 40];
}

export function mend(problem: Problem): void {
  if (!problem.fix) return;
  const path = store.get().place.path ?? "SPEC";
  const before = new Set(Object.keys(store.doc.graph.nodes));
  store.act({ do: "fix", operations: problem.fix.operations }, `Mended: ${problem.fix.title}`, `assembler validate ${path} --fix`);
  const added = Object.keys(store.doc.graph.nodes).filter((node) => !before.has(node));
  if (added.length > 0) place(added);
}

/** Stand new nodes between their neighbours, without an entry of their own in the history. */
function place(added: string[]): void {
  const { graph } = store.doc;
  const where = positions();
  for (const node of added) {
    const before = graph.edges.map(parseEdge).find((wire) => wire?.target === node)?.source;
    const after = graph.edges.map(parseEdge).find((wire) => wire?.source === node)?.target;
    const [a, b] = [where[before ?? ""], where[after ?? ""]];
    if (a && b) where[node] = [Math.round((a[0] + b[0]) / 2), Math.round((a[1] + b[1]) / 2 + NODE_WIDTH * 0.7)];
  }
  store.set({ positions: { ...store.get().positions, ...pick(where, Object.fromEntries(added.map((node) => [node, 1]))) } });
}

export function tidyUp(): void {
  const { nodes } = store.get().selection;
  const only = nodes.length > 1 ? new Set(nodes) : undefined;
  const laid = tidy(store.doc.graph, portNames, only);
  const where = positions();
  if (only) {
    const corner = (record: Record<string, Point>, axis: 0 | 1): number => Math.min(...[...only].map((node) => record[node]![axis]));
    const dx = corner(where, 0) - corner(laid, 0);
    const dy = corner(where, 1) - corner(laid, 1);
    for (const node of only) {
      const [x, y] = laid[node]!;
      laid[node] = [x + dx, y + dy];
    }
  }
  store.set({ positions: {} });
  store.act({ do: "move", layout: { ...where, ...laid } }, only ? "Tidied the selection" : "Tidied the graph");
}

export function groupSelected(): void {
  const { nodes } = store.get().selection;
  if (nodes.length === 0) return store.say("Select nodes first, then group them");
  const { groups } = store.doc.graph;
  let id = "group";
  for (let number = 2; id in groups; number += 1) id = `group${number}`;
  store.act({ do: "group", id, nodes, note: "" }, `Grouped ${nodes.join(", ")}`);
  store.select({ group: id });
}

export function renameGroup(id: string, to: string): void {
  const name = to.trim();
  if (name === id || name === "") return;
  if (name in store.doc.graph.groups) return store.say(`there is a group ${name} already`);
  if (store.act({ do: "rename-group", id, to: name }, `Renamed the group ${id} to ${name}`)) store.select({ group: name });
}

export function setComposition(host: string, text: string | undefined): void {
  store.act({ do: "compose", host, text }, text === undefined ? `${host}: adapters one after the other` : `${host}: ${text}`);
}

export function describe(node: string): string {
  const { graph } = store.doc;
  const adapters = adaptersOn(graph, node);
  const tail = adapters.length > 0 ? `, with ${adapters.join(", ")}` : "";
  return `${node}, ${shortName(typeOf(graph.nodes[node]))}${tail}`;
}
