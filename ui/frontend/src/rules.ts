/** Which wire may be drawn. Python's check says the same with more words; `tests/vectors.json` holds both to it. */
import { type Graph, hostOf, isRaw, type Raw, typeOf, type Wire, wiresOf } from "./document";
import type { Catalogue, Check, PartInfo } from "./messages";

export interface Known {
  graph: Graph;
  catalogue: Catalogue;
  check: Check | null;
}

/** The part of a node or an adapter. */
export function infoOf(known: Known, name: string): PartInfo | undefined {
  return known.catalogue.parts[typeOf(known.graph.nodes[name] ?? known.graph.adapters[name])];
}

const SLOT = /\{\{|\}\}|\{([A-Za-z_]\w*)\}/g;

/** The names in braces in a template, without `{answer}`. */
export function slotsOf(template: string): string[] {
  const names = [...template.matchAll(SLOT)].flatMap((found) => (found[1] ? [found[1]] : []));
  return [...new Set(names)].filter((name) => name !== "answer");
}

/** Input ports of a node and the kinds each takes. A part with a template has a port for each of its slots. */
export function portsOf(known: Known, node: string): Record<string, string[]> {
  const info = infoOf(known, node);
  if (info?.grows) {
    const kinds = slotKinds(info);
    return Object.fromEntries(slotsOf(templateOf(known, node, info)).map((slot) => [slot, kinds]));
  }
  return known.check?.nodes[node]?.ports ?? info?.ports ?? {};
}

export function templateOf(known: Known, node: string, info: PartInfo): string {
  const raw = known.graph.nodes[node];
  const own = isRaw(raw) && info.grows ? raw[info.grows] : undefined;
  const default_ = info.fields.find((field) => field.key === info.grows)?.default;
  return String(own ?? default_ ?? "");
}

export function slotKinds(info: PartInfo): string[] {
  return [...new Set(Object.values(info.ports).flat())];
}

/** The template with a slot more, as Python's `port_fix` writes it. */
export function grown(template: string, slot: string): string {
  return `{${slot}} ${template}`;
}

/** The kinds of value a node can put out: the one it does where that is known. */
export function givesOf(known: Known, node: string): string[] {
  const kind = known.check?.nodes[node]?.kind;
  return kind ? [kind] : (infoOf(known, node)?.gives ?? []);
}

export function feederOf(known: Known, node: string, port: string): string | null {
  return wiresOf(known.graph).find((wire) => wire.target === node && wire.port === port)?.source ?? null;
}

/** Why a wire cannot be drawn, in a sentence; null when it can. */
export function refusal(known: Known, wire: Wire): string | null {
  const { source, target, port } = wire;
  const node = hostOf(known.graph, target);
  if (source === node) return `${source} cannot feed itself`;
  const accepted = portsOf(known, target)[port];
  if (!accepted) return `${target} has no input ${port}`;
  const feeder = feederOf(known, target, port);
  if (feeder === source) return `${source} feeds it already`;
  if (feeder) return `already fed by ${feeder}; remove that wire first`;
  if (reaches(known.graph, node, source)) return `${node} leads back to ${source}: a circle`;
  return mismatch(known, source, accepted);
}

function mismatch(known: Known, source: string, accepted: string[]): string | null {
  const given = givesOf(known, source);
  if (infoOf(known, source) && given.length === 0) return `${source} puts nothing out`;
  if (given.length === 0 || given.some((kind) => accepted.includes(kind))) return null;
  return `${source} gives ${given.join(" or ")}; this takes ${accepted.join(" or ")}`;
}

/** Why a new port for `source` cannot be written into the template of `target`; null when it can. */
export function growthRefusal(known: Known, source: string, target: string): string | null {
  const info = infoOf(known, target);
  if (!info?.grows) return `${target} has no free input`;
  if (source === target) return `${source} cannot feed itself`;
  if (reaches(known.graph, target, source)) return `${target} leads back to ${source}: a circle`;
  return mismatch(known, source, slotKinds(info));
}

/** Whether wires lead from one node to another. */
export function reaches(graph: Graph, from: string, to: string): boolean {
  const wires = wiresOf(graph);
  const seen = new Set([from]);
  const queue = [from];
  for (let node = queue.pop(); node !== undefined; node = queue.pop()) {
    if (node === to) return true;
    for (const wire of wires) {
      const next = hostOf(graph, wire.target);
      if (wire.source === node && !seen.has(next)) {
        seen.add(next);
        queue.push(next);
      }
    }
  }
  return false;
}

/** The first free port of `target` that a wire from `source` may take. */
export function freePort(known: Known, source: string, target: string): string | null {
  const ports = Object.keys(portsOf(known, target));
  return ports.find((port) => refusal(known, { source, target, port }) === null) ?? null;
}

/** A name for the slot that `source` fills, free in the template. */
export function slotFor(known: Known, source: string, target: string): string {
  const taken = portsOf(known, target);
  let name = source.replace(/\W/g, "_");
  for (let number = 2; name in taken || name === "answer"; number += 1) name = `${source.replace(/\W/g, "_")}${number}`;
  return name;
}

/** Parts that a wire out of `source` fits into, and the port it goes to. */
export function fitsAfter(known: Known, source: string): Map<string, string> {
  const given = givesOf(known, source);
  const found = new Map<string, string>();
  for (const info of Object.values(known.catalogue.parts)) {
    if (info.role !== "node") continue;
    const port = Object.keys(info.ports).find((name) => info.ports[name]!.some((kind) => given.includes(kind)));
    if (port !== undefined) found.set(info.type, port);
  }
  return found;
}

/** Parts whose output fits a port. */
export function fitsBefore(known: Known, target: string, port: string): Set<string> {
  const accepted = portsOf(known, target)[port] ?? [];
  const parts = Object.values(known.catalogue.parts);
  const fits = parts.filter((info) => info.role === "node" && info.gives.some((kind) => accepted.includes(kind)));
  return new Set(fits.map((info) => info.type));
}

/** Keys of `raw` that a part of another type has too, over what it starts with. */
export function carriedOver(raw: Raw, info: PartInfo): Raw {
  const known = new Set(info.fields.map((field) => field.key));
  const specific = new Set(["weights", "sha256", "model", "layer", "config", "arch"]);
  const kept = Object.entries(raw).filter(([key]) => known.has(key) && !specific.has(key) && key !== "type");
  return { type: info.type, ...info.start, ...Object.fromEntries(kept) };
}
