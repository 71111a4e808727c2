/** Tidy layout: left to right, in layers. */
import dagre from "@dagrejs/dagre";
import { adaptersOn, type Graph, hostOf, type Point, wiresOf } from "./document";

export const NODE_WIDTH = 208;
const LAYER_GAP = 166;
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

/** Positions for some nodes (all by default), rounded to whole pixels. */
export function tidy(graph: Graph, portsOf: Ports, only?: Set<string>): Record<string, Point> {
  const names = inOrder(graph, Object.keys(graph.nodes).filter((node) => !only || only.has(node)), portsOf);
  const plan = new dagre.graphlib.Graph();
  plan.setGraph({ rankdir: "LR", ranksep: LAYER_GAP, nodesep: ROW_GAP });
  plan.setDefaultEdgeLabel(() => ({}));
  for (const node of names) plan.setNode(node, { width: NODE_WIDTH, height: nodeHeight(graph, node, portsOf(node).length) });
  for (const { source, target } of wiresOf(graph)) {
    const node = hostOf(graph, target);
    if (names.includes(source) && names.includes(node)) plan.setEdge(source, node);
  }
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
