/** The editor's rules against what Python decided: vectors.json is written by tests/ui/vectors.py. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { reduce } from "../src/actions";
import { blocksText, parseBlocks } from "../src/compose";
import { type Doc, type Graph, parseEdge, wiresOf } from "../src/document";
import { NODE_WIDTH, nodeHeight, tidy } from "../src/layout";
import { KINDS } from "../src/kinds";
import type { Catalogue, Check, Operation } from "../src/messages";
import { fitsAfter, fitsBefore, grown, refusal, slotsOf } from "../src/rules";
import { expanded, match, rows } from "../src/sites";
import { toggled } from "../src/SitesPicker";
import vectors from "./vectors.json";

const EMPTY: Graph = { name: "m", nodes: {}, edges: [], adapters: {}, compose: {}, data: null, stages: [], layout: {}, groups: {} };
const graphOf = (raw: object): Graph => ({ ...EMPTY, ...raw }) as Graph;
const known = {
  graph: graphOf(vectors.wires.graph),
  check: vectors.wires.check as unknown as Check,
  catalogue: vectors.wires.catalogue as unknown as Catalogue,
};

test.each(vectors.kinds)("the kind %s has a look of its own", (kind) => {
  expect(KINDS[kind]).toBeDefined();
});

test("no two kinds share a colour or a shape", () => {
  const looks = Object.values(KINDS);
  for (const side of ["light", "dark", "path"] as const) expect(new Set(looks.map((look) => look[side])).size).toBe(looks.length);
});

test.each(vectors.edges as [string, string[] | null][])("edge %j", (text, expected) => {
  const wire = parseEdge(text);
  expect(wire && [wire.source, wire.target, wire.port]).toEqual(expected);
});

test.each(vectors.patterns as [string, string[] | null][])("site pattern %j", (pattern, expected) => {
  expect(expanded(pattern)).toEqual(expected);
});

test.each(vectors.templates as [string, string[]][])("slots of %j", (text, expected) => {
  expect(slotsOf(text)).toEqual(expected);
});

test("a new slot is written as Python's fix writes it", () => {
  const [template, slot, expected] = vectors.grown as [string, string, string];
  expect(grown(template, slot)).toBe(expected);
});

test.each(vectors.fixes)("a fix does what --fix does", ({ before, operations, after }) => {
  const doc: Doc = { base: "", graph: graphOf(before) };
  expect(reduce(doc, { do: "fix", operations: operations as Operation[] }).graph).toEqual(graphOf(after));
});

test.each(vectors.blocks as [string, string | null][])("composition %j", (text, expected) => {
  const tree = parseBlocks(text);
  expect(tree && blocksText(tree)).toBe(expected);
});

describe("wires", () => {
  test.each(vectors.wires.cases as [string, string, string, boolean][])("%s -> %s.%s", (source, target, port, refused) => {
    expect(refusal(known, { source, target, port }) !== null).toBe(refused);
  });

  test("what the menu offers can be connected", () => {
    for (const type of fitsAfter(known, "eyes").keys()) expect(known.catalogue.parts[type]!.role).toBe("node");
    expect([...fitsAfter(known, "photo").keys()]).toEqual(["encoder.timm"]);
    expect([...fitsBefore(known, "eyes", "in")]).toEqual(["input.image"]);
  });
});

test("a tidied graph has no node on another, and runs from left to right", () => {
  const dag = fc.integer({ min: 2, max: 14 }).chain((count) =>
    fc.array(fc.tuple(fc.nat(count - 1), fc.nat(count - 1)), { maxLength: 20 }).map((pairs) => {
      const nodes = Object.fromEntries(Array.from({ length: count }, (_, i) => [`n${i}`, { type: "x.y" }]));
      const edges = pairs.filter(([a, b]) => a < b).map(([a, b]) => `n${a} -> n${b}`);
      return graphOf({ nodes, edges: [...new Set(edges)] });
    }),
  );
  fc.assert(
    fc.property(dag, (graph) => {
      const where = Object.entries(tidy(graph, () => ["in", "other"]));
      const high = nodeHeight(graph, "n0", 2);
      for (const [i, [, [x, y]]] of where.entries()) {
        for (const [, [a, b]] of where.slice(i + 1)) expect(Math.abs(x - a) >= NODE_WIDTH || Math.abs(y - b) >= high).toBe(true);
      }
      const at = Object.fromEntries(where);
      for (const { source, target } of wiresOf(graph)) expect(at[source]![0]).toBeLessThan(at[target]![0]);
    }),
    { numRuns: 60 },
  );
});

describe("sites", () => {
  const sites = ["embed", ...[0, 1, 2].flatMap((i) => ["q", "k", "v"].map((name) => `layers.${i}.attn.${name}`))];

  test("a pattern counts what it matches and names what it misses", () => {
    expect(match("layers.*.attn.{q,v}", sites)!.sites).toHaveLength(6);
    expect(match("layers.[0-1].attn.{q,x}", sites)!.missing).toEqual(["layers.0.attn.x", "layers.1.attn.x"]);
  });

  test("ticking rows writes the pattern", () => {
    const all = rows(sites);
    expect(all).toEqual([["embed", 1], ["layers.*.attn.q", 3], ["layers.*.attn.k", 3], ["layers.*.attn.v", 3]]);
    expect(toggled("layers.*.attn.q", "layers.*.attn.v", all)).toBe("layers.*.attn.{q,v}");
    expect(toggled("layers.*.attn.{q,v}", "layers.*.attn.v", all)).toBe("layers.*.attn.q");
    expect(match(toggled("layers.*.attn.q", "embed", all), sites)!.sites).toHaveLength(4);
  });
});
