/** Tidy layout: left to right, in layers. */
import dagre from "@dagrejs/dagre";
import { adaptersOn, type Graph, hostOf, type Point, wiresOf } from "./document";

export const NODE_WIDTH = 208;
const LAYER_GAP = 190;
const ROW_GAP = 44;

/** The input ports of a node, from the top down. */
export type Ports = (node: string) => string[];

/** At most as high as the node can get: header, ports, adapters, the boxes they are composed in, and the foot. */
export function nodeHeight(graph: Graph, node: string, ports: number): number {
  const boxes = (graph.compose[node]?.match(/\(/g) ?? []).length;
  return 110 + 24 * Math.max(ports, 1) + 30 * adaptersOn(graph, node).length + 28 * boxes;
}

/** The nodes in the order in which they are met from the outputs back, port after port, so that wires need not cross. */
function inOrder(graph: Graph, names: string[], portsOf: Ports): string[] {
  const into = new Map<string, { source: string; at: number }[]>();
  for (const { source, target, port } of wiresOf(graph)) {
    const node = hostOf(graph, target);
    const at = portsOf(node).indexOf(port);
    into.set(node, [...(into.get(node) ?? []), { source, at: at < 0 ? Infinity : at }]);
  }
  const feeds = new Set([...into.values()].flatMap((wires) => wires.map(({ source }) => source)));
  const found = new Set<string>();
  const visiting = new Set<string>();
  const visit = (node: string): void => {
    if (visiting.has(node)) return;
    visiting.add(node);
    for (const { source } of (into.get(node) ?? []).sort((a, b) => a.at - b.at)) visit(source);
    found.add(node);
  };
  for (const node of [...names.filter((name) => !feeds.has(name)), ...names]) visit(node);
  return [...found].filter((node) => names.includes(node));
}

/** How many wires between the same two columns cross, ports of a node one above the other. */
function crossings(graph: Graph, at: Record<string, Point>, portsOf: Ports): number {
  const wires = wiresOf(graph).flatMap(({ source, target, port }) => {
    const node = hostOf(graph, target);
    const [from, to] = [at[source], at[node]];
    return from && to ? [{ columns: `${from[0]} ${to[0]}`, start: from[1], end: to[1] + portsOf(node).indexOf(port) }] : [];
  });
  let count = 0;
  for (const [i, a] of wires.entries()) {
    for (const b of wires.slice(i + 1)) if (a.columns === b.columns && (a.start - b.start) * (a.end - b.end) < 0) count += 1;
  }
  return count;
}

/** Positions for some nodes (all by default), rounded to whole pixels: of the two orders that dagre may take as equal,
 * the one in which fewer wires cross at their ports. */
export function tidy(graph: Graph, portsOf: Ports, only?: Set<string>): Record<string, Point> {
  const names = inOrder(graph, Object.keys(graph.nodes).filter((node) => !only || only.has(node)), portsOf);
  const [one, other] = [laidOut(graph, names, portsOf), laidOut(graph, [...names].reverse(), portsOf)];
  return crossings(graph, other, portsOf) < crossings(graph, one, portsOf) ? other : one;
}

function laidOut(graph: Graph, names: string[], portsOf: Ports): Record<string, Point> {
  const plan = new dagre.graphlib.Graph();
  plan.setGraph({ rankdir: "LR", ranksep: LAYER_GAP, nodesep: ROW_GAP });
  plan.setDefaultEdgeLabel(() => ({}));
  for (const node of names) plan.setNode(node, { width: NODE_WIDTH, height: nodeHeight(graph, node, portsOf(node).length) });
  const rank = new Map(names.map((name, index) => [name, index]));
  const wires = wiresOf(graph).map(({ source, target }) => [source, hostOf(graph, target)] as const);
  const inside = wires.filter(([source, node]) => rank.has(source) && rank.has(node));
  for (const [source, node] of inside.sort(([a], [b]) => rank.get(a)! - rank.get(b)!)) plan.setEdge(source, node);
  dagre.layout(plan);
  return Object.fromEntries(
    names.map((node) => {
      const at = plan.node(node) as { x: number; y: number; width: number; height: number };
      return [node, [Math.round(at.x - at.width / 2), Math.round(at.y - at.height / 2)] as Point];
    }),
  );
}

/** Where every node stands: as the spec says, and laid out where it says nothing. */
export function placed(graph: Graph, portsOf: Ports): Record<string, Point> {
  const missing = Object.keys(graph.nodes).filter((node) => !graph.layout[node]);
  if (missing.length === 0) return graph.layout;
  const laid = tidy(graph, portsOf);
  if (missing.length === Object.keys(graph.nodes).length) return laid;
  const bottom = Math.max(...Object.values(graph.layout).map(([, y]) => y), 0) + 200;
  const free = tidy(graph, portsOf, new Set(missing));
  return { ...graph.layout, ...Object.fromEntries(missing.map((node) => [node, [free[node]![0], free[node]![1] + bottom] as Point])) };
}
