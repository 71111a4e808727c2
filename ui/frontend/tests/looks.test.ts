/** What is said of a graph: where things stand, what wires and nodes tell, and how parts are found. */
import { expect, test } from "vitest";
import { reduce } from "../src/actions";
import { type Graph, learning } from "../src/document";
import { count, share, wireText } from "../src/format";
import { tidy } from "../src/layout";
import type { Dim, PartInfo } from "../src/messages";
import { score } from "../src/parts";

const EMPTY: Graph = { name: "m", nodes: {}, edges: [], adapters: {}, compose: {}, data: null, stages: [], layout: {}, groups: {} };
const graphOf = (raw: object): Graph => ({ ...EMPTY, ...raw }) as Graph;
const PART: PartInfo = {
  type: "", family: "adapter", role: "adapter", name: "tune", summary: "a sum", doc: "", papers: [], modalities: [],
  trait: "delta", ports: {}, gives: [], grows: null, start: {}, fields: [],
};

test.each([2, 3, 4, 5])("of %i ports, what feeds an upper one stands above what feeds a lower one", (count) => {
  const ports = Array.from({ length: count }, (_, i) => `p${i}`);
  const nodes = Object.fromEntries([...ports.flatMap((port) => [`in_${port}`, `by_${port}`]), "talk"].map((name) => [name, { type: "x.y" }]));
  const edges = ports.flatMap((port) => [`in_${port} -> by_${port}`, `by_${port} -> talk.${port}`]);
  for (const order of [edges, [...edges].reverse()]) {
    const at = tidy(graphOf({ nodes, edges: order }), (node) => (node === "talk" ? ports : ["in"]));
    for (const column of ["in", "by"]) {
      const heights = ports.map((port) => at[`${column}_${port}`]![1]);
      expect(heights).toEqual([...heights].sort((a, b) => a - b));
    }
  }
});

test("a rename and a removal reach what a stage trains and whose losses it counts", () => {
  const stage = { name: "s", train: ["a"], objectives: ["b", "c"] };
  const doc = { base: "", graph: graphOf({ nodes: { a: {}, b: {}, c: {} }, edges: [], stages: [stage] }) };
  const renamed = reduce(doc, { do: "rename", id: "b", to: "d" });
  expect(renamed.graph.stages).toEqual([{ ...stage, objectives: ["d", "c"] }]);
  const left = reduce(renamed, { do: "remove", names: ["d", "c"], edges: [] });
  expect(left.graph.stages).toEqual([{ name: "s", train: ["a"] }]);
});

test("a part is found by a word of its docs and by its paper", () => {
  const info = { ...PART, type: "adapter.thing", doc: "Low ranks, after Somebody (arXiv 2106.09685).", papers: ["2106.09685"] };
  for (const query of ["somebody", "2106.09685", "thing", "ranks arXiv"]) expect(score(info, query)).toBeGreaterThan(0);
  expect(score(info, "elsewhere")).toBe(0);
  expect(score(info, "thing")).toBeGreaterThan(score(info, "somebody"));
});

test("labels of wires", () => {
  const image = { kind: "image", shape: ["batch", 3, 64, 64] as Dim[], ragged: false, dtype: "fp32" };
  expect(wireText(image, "shape")).toBe("[B, 3, 64, 64]");
  expect(wireText(image, "dtype")).toBe("[B, 3, 64, 64] fp32");
  expect(wireText(image, "bytes")).toBe("48.0 KiB");
  expect(wireText({ ...image, shape: ["batch", null, 64] }, "bytes")).toBe("[B, ?, 64]");
  expect(wireText({ ...image, shape: ["batch", 10, 4], ragged: true, dtype: "bf16" }, "bytes")).toBe("≤80 B");
  expect(wireText({ ...image, kind: "text", shape: ["batch"], dtype: null }, "dtype")).toBe("[B]");
  expect(wireText(image, "none")).toBe("");
});

test("counts keep their zeros", () => {
  expect([300_096, 135e6, 1_500_000, 20_000, 7].map(count)).toEqual(["300 k", "135 M", "1.5 M", "20 k", "7"]);
});

test("a share is all or nothing only when it is", () => {
  expect([share(0, 9), share(9, 9), share(1, 1000), share(999, 1000), share(1, 4)]).toEqual(["0 %", "100 %", "0.10 %", "99 %", "25 %"]);
});

test("what learns in a node is said as the table of stages says it", () => {
  const nodes = { photo: { type: "input.image" }, eyes: { type: "encoder.x" }, talk: { type: "backbone.x" } };
  const adapters = { tune: { type: "adapter.lora", host: "talk" } };
  const stages = (train: string[]): Partial<Graph> => ({ nodes, adapters, stages: [{ name: "s", train }] });
  const said = (train: string[]): (string | null)[] => Object.keys(nodes).map((node) => learning(graphOf({ edges: [], ...stages(train) }), node));
  expect(said(["tune"])).toEqual([null, "frozen", "LoRA"]);
  expect(said(["tune", "talk", "eyes"])).toEqual([null, "trained", "LoRA + trained"]);
  expect(said([])).toEqual([null, null, null]);
});
