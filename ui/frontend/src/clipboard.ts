/** Copy, paste and duplicate: what is on the clipboard is a YAML fragment of a spec. */
import { parse, stringify } from "yaml";
import { edgeText, freshName, type Graph, isRaw, type Json, parseEdge, type Point } from "./document";
import { store } from "./store";
import { positions } from "./gestures";

type Fragment = Pick<Graph, "nodes" | "edges" | "adapters"> & { layout: Record<string, Point> };

/** The chosen nodes with the wires between them and their adapters. */
export function fragmentOf(graph: Graph, names: string[], where: Record<string, Point>): Fragment {
  const chosen = new Set(names);
  const inside = graph.edges.filter((text) => {
    const wire = parseEdge(text);
    return wire !== null && chosen.has(wire.source) && chosen.has(wire.target);
  });
  const adapters = Object.entries(graph.adapters).filter(([name, raw]) => {
    return chosen.has(name) || (isRaw(raw) && typeof raw.host === "string" && chosen.has(raw.host));
  });
  const nodes = Object.entries(graph.nodes).filter(([name]) => chosen.has(name));
  const layout = Object.entries(where).filter(([name]) => chosen.has(name) && name in graph.nodes);
  return {
    nodes: Object.fromEntries(nodes),
    edges: inside,
    adapters: Object.fromEntries(adapters),
    layout: Object.fromEntries(layout),
  };
}

export function fragmentText(fragment: Fragment): string {
  const sections = Object.entries(fragment).filter(([, value]) => Object.keys(value).length > 0);
  return stringify(Object.fromEntries(sections), { lineWidth: 0, defaultStringType: "PLAIN" });
}

/** The fragment in a text; null when the text is none. */
export function readFragment(text: string): Fragment | null {
  if (text.length > 1_000_000) return null;
  let tree: Json;
  try {
    tree = parse(text, { maxAliasCount: 0, schema: "core", customTags: [] }) as Json;
  } catch {
    return null;
  }
  if (!isRaw(tree)) return null;
  const [nodes, adapters, edges, layout] = [tree.nodes, tree.adapters, tree.edges, tree.layout];
  if (!isRaw(nodes) && !isRaw(adapters)) return null;
  const at = isRaw(layout) ? Object.entries(layout).filter(([, place]) => isPoint(place)) : [];
  return {
    nodes: isRaw(nodes) ? nodes : {},
    adapters: isRaw(adapters) ? adapters : {},
    edges: Array.isArray(edges) ? edges.filter((edge): edge is string => typeof edge === "string") : [],
    layout: Object.fromEntries(at) as Record<string, Point>,
  };
}

function isPoint(value: Json): boolean {
  return Array.isArray(value) && value.length === 2 && value.every((item) => typeof item === "number");
}

/** The fragment under names that are free in `graph`, a step to the right and down. */
export function renamedFor(graph: Graph, fragment: Fragment): Fragment {
  const names = new Map<string, string>();
  for (const name of [...Object.keys(fragment.nodes), ...Object.keys(fragment.adapters)]) {
    names.set(name, freshName(graph, name.replace(/\d+$/, "") || name, names.values()));
  }
  const to = (name: string): string => names.get(name) ?? name;
  const edges = fragment.edges.flatMap((text) => {
    const wire = parseEdge(text);
    return wire ? [edgeText({ ...wire, source: to(wire.source), target: to(wire.target) })] : [];
  });
  const adapters = Object.entries(fragment.adapters).map(([name, raw]) => {
    return [to(name), isRaw(raw) && typeof raw.host === "string" ? { ...raw, host: to(raw.host) } : raw] as const;
  });
  return {
    nodes: Object.fromEntries(Object.entries(fragment.nodes).map(([name, raw]) => [to(name), raw])),
    edges,
    adapters: Object.fromEntries(adapters),
    layout: Object.fromEntries(
      Object.keys(fragment.nodes).map((name, i) => {
        const [x, y] = fragment.layout[name] ?? [40 * i, 40 * i];
        return [to(name), [x + 48, y + 48] as Point];
      }),
    ),
  };
}

function selected(): Fragment | null {
  const { nodes, adapter } = store.get().selection;
  const names = adapter === null ? nodes : [...nodes, adapter];
  return names.length > 0 ? fragmentOf(store.doc.graph, names, positions()) : null;
}

export function copySelected(event?: ClipboardEvent): void {
  const fragment = selected();
  if (!fragment) return;
  const text = fragmentText(fragment);
  if (event?.clipboardData) {
    event.clipboardData.setData("text/plain", text);
    event.preventDefault();
  } else {
    void navigator.clipboard.writeText(text);
  }
  store.say(`Copied ${Object.keys({ ...fragment.nodes, ...fragment.adapters }).join(", ")} as YAML`);
}

export function pasteText(text: string, title = "Pasted"): boolean {
  const found = readFragment(text);
  if (!found) {
    store.say("The clipboard holds no nodes of a spec");
    return false;
  }
  const { layout, ...graph } = renamedFor(store.doc.graph, found);
  const names = Object.keys(graph.nodes);
  const done = store.act({ do: "paste", graph, layout: { ...positions(), ...layout } }, `${title} ${names.join(", ")}`);
  store.select({ nodes: names });
  return done;
}

export function duplicateSelected(): void {
  const fragment = selected();
  if (fragment) pasteText(fragmentText(fragment), "Duplicated");
}

