/** Tidy layout: left to right, in layers. */
import dagre from "@dagrejs/dagre";
import { adaptersOn, type Graph, hostOf, type Point, wiresOf } from "./document";

export const NODE_WIDTH = 208;
const LAYER_GAP = 190;
const ROW_GAP = 44;

export function nodeHeight(graph: Graph, node: string, ports: number): number {
  return 110 + 24 * Math.max(ports, 1) + 30 * adaptersOn(graph, node).length;
}

/** Positions for some nodes (all by default), rounded to whole pixels. */
export function tidy(graph: Graph, portsOf: (node: string) => number, only?: Set<string>): Record<string, Point> {
  const names = Object.keys(graph.nodes).filter((node) => !only || only.has(node));
  const plan = new dagre.graphlib.Graph();
  plan.setGraph({ rankdir: "LR", ranksep: LAYER_GAP, nodesep: ROW_GAP });
  plan.setDefaultEdgeLabel(() => ({}));
  for (const node of names) plan.setNode(node, { width: NODE_WIDTH, height: nodeHeight(graph, node, portsOf(node)) });
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
export function placed(graph: Graph, portsOf: (node: string) => number): Record<string, Point> {
  const missing = Object.keys(graph.nodes).filter((node) => !graph.layout[node]);
  if (missing.length === 0) return graph.layout;
  const laid = tidy(graph, portsOf);
  if (missing.length === Object.keys(graph.nodes).length) return laid;
  const bottom = Math.max(...Object.values(graph.layout).map(([, y]) => y), 0) + 200;
  const free = tidy(graph, portsOf, new Set(missing));
  return { ...graph.layout, ...Object.fromEntries(missing.map((node) => [node, [free[node]![0], free[node]![1] + bottom] as Point])) };
}
