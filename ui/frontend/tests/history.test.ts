/** Any gestures, then as many undos, give the first document; as many redos the last. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { type Action, reduce } from "../src/actions";
import { fragmentOf, fragmentText, readFragment, renamedFor } from "../src/clipboard";
import type { Doc, Json, Raw } from "../src/document";
import { begin, commit, type History, redo, undo } from "../src/history";

const FIRST: Doc = {
  base: "assembler: 1\n",
  graph: {
    name: "m",
    nodes: { photo: { type: "input.image" }, eyes: { type: "encoder.timm", model: "x" }, talk: { type: "backbone.causal_lm" } },
    edges: ["photo -> eyes", "eyes -> talk.photo", "not an edge"],
    adapters: { tune: { type: "adapter.lora", host: "talk" }, more: { type: "adapter.lora", host: "talk" } },
    compose: { talk: "parallel(tune, more)" },
    data: { type: "dataset.digits", columns: { photo: "image" } },
    stages: [{ name: "one", train: ["eyes", "tune"] }, { name: "two", train: ["tune"] }],
    layout: { photo: [0, 0], eyes: [300, 0] },
    groups: { g: { nodes: ["photo", "eyes"], note: "sight" } },
  },
};

const name = fc.constantFrom("photo", "eyes", "talk", "tune", "bridge", "other", "g");
const edge = fc.constantFrom("photo -> eyes", "eyes -> talk.photo", "bridge -> talk", "eyes -> bridge", "not an edge");
const value = fc.constantFrom<Json>(null, 1, "text", true, ["a"], { a: 1 });
const raw = fc.constantFrom<Raw>({ type: "projector.mlp" }, { type: "projector.linear", width: 3 });
const point = fc.tuple(fc.integer({ min: -500, max: 500 }), fc.float({ min: -500, max: 500, noNaN: true }));
const layout = fc.dictionary(name, point, { maxKeys: 3 });

const action: fc.Arbitrary<Action> = fc.oneof(
  fc.record({ do: fc.constant("add" as const), id: name, raw, layout, edges: fc.array(edge, { maxLength: 2 }) }),
  fc.record({ do: fc.constant("attach" as const), id: name, raw, runs: fc.boolean() }),
  fc.record({ do: fc.constant("compose" as const), host: name, text: fc.option(fc.constantFrom("stack(tune)", "nonsense(", "tune"), { nil: undefined }) }),
  fc.record({ do: fc.constant("move" as const), layout }),
  fc.record({ do: fc.constant("remove" as const), names: fc.array(name, { maxLength: 3 }), edges: fc.array(edge, { maxLength: 2 }) }),
  fc.record({ do: fc.constant("connect" as const), edge }),
  fc.record({ do: fc.constant("set" as const), section: fc.constantFrom("nodes" as const, "adapters" as const), id: name, key: name, value: fc.option(value, { nil: undefined }) }),
  fc.record({ do: fc.constant("rename" as const), id: name, to: name }),
  fc.record({ do: fc.constant("swap" as const), id: name, raw }),
  fc.record({ do: fc.constant("insert" as const), edge, id: name, raw, port: fc.constant("in"), layout }),
  fc.record({ do: fc.constant("group" as const), id: name, nodes: fc.array(name, { maxLength: 3 }), note: fc.string() }),
  fc.record({ do: fc.constant("ungroup" as const), id: name }),
  fc.record({ do: fc.constant("rename-group" as const), id: name, to: name }),
  fc.record({ do: fc.constant("section" as const, ), key: fc.constant("name" as const), value: fc.string() }),
  fc.record({ do: fc.constant("replace" as const), doc: fc.constant(FIRST) }),
  fc.constant<Action>({ do: "fix", operations: [{ op: "set", path: ["nodes", "eyes", "model"], value: "y" }, { op: "rewire", edge: "photo -> eyes", edges: ["photo -> a", "a -> eyes"] }] }),
);

test("undo takes back everything, redo brings it again", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 25 }), (actions) => {
      const start = begin(FIRST);
      const before = JSON.stringify(FIRST);
      const end = actions.reduce<History>((history, item) => commit(history, item, item.do), start);
      let back = end;
      for (let i = 0; i < end.past.length; i += 1) back = undo(back);
      expect(JSON.stringify(back.doc)).toBe(before);
      expect(back.past).toHaveLength(0);
      let forward = back;
      for (let i = 0; i < end.past.length; i += 1) forward = redo(forward);
      expect(forward.doc).toBe(end.doc);
    }),
    { numRuns: 400 },
  );
});

test("a gesture that changes nothing is no entry", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 10 }), (actions) => {
      let history = begin(FIRST);
      for (const item of actions) {
        const next = commit(history, item, item.do);
        expect(next.past.length - history.past.length).toBe(JSON.stringify(next.doc) === JSON.stringify(history.doc) ? 0 : 1);
        history = next;
      }
    }),
    { numRuns: 200 },
  );
});

test("what is removed leaves nothing that speaks of it", () => {
  const { graph } = reduce(FIRST, { do: "remove", names: ["talk"], edges: [] });
  expect(graph.edges).toEqual(["photo -> eyes", "not an edge"]);
  expect(graph.adapters).toEqual({});
  expect(graph.compose).toEqual({});
  expect(graph.stages).toEqual([{ name: "one", train: ["eyes"] }]);
});

test("a composition follows its adapters and its host", () => {
  const renamed = reduce(reduce(FIRST, { do: "rename", id: "more", to: "extra" }), { do: "rename", id: "talk", to: "lm" });
  expect(renamed.graph.compose).toEqual({ lm: "parallel(tune, extra)" });
  expect(reduce(FIRST, { do: "remove", names: ["more"], edges: [] }).graph.compose).toEqual({ talk: "tune" });
  const raw = { type: "adapter.lora", host: "talk" };
  const more = reduce(FIRST, { do: "attach", id: "third", raw, runs: true });
  expect(more.graph.compose).toEqual({ talk: "stack(parallel(tune, more), third)" });
  expect(reduce(FIRST, { do: "attach", id: "mix", raw, runs: false }).graph.compose).toEqual(FIRST.graph.compose);
});

test("a renamed node is renamed everywhere and keeps its data column", () => {
  const { graph } = reduce(FIRST, { do: "rename", id: "photo", to: "picture" });
  expect(Object.keys(graph.nodes)).toEqual(["picture", "eyes", "talk"]);
  expect(graph.edges[0]).toBe("picture -> eyes");
  expect(graph.data).toEqual({ type: "dataset.digits", columns: { picture: "image" } });
  expect(graph.groups.g!.nodes).toEqual(["picture", "eyes"]);
});

test("a swapped part keeps its wires, and undo its old self", () => {
  const history = commit(begin(FIRST), { do: "swap", id: "eyes", raw: { type: "encoder.other" } }, "swap");
  expect(history.doc.graph.edges).toEqual(FIRST.graph.edges);
  expect(undo(history).doc).toBe(FIRST);
});

test("copied nodes are YAML, and pasted under free names with their inner wires", () => {
  const text = fragmentText(fragmentOf(FIRST.graph, ["photo", "eyes"], { photo: [0, 0], eyes: [300, 0] }));
  expect(text).toContain("nodes:\n  photo:\n    type: input.image");
  const pasted = renamedFor(FIRST.graph, readFragment(text)!);
  expect(Object.keys(pasted.nodes)).toEqual(["photo2", "eyes2"]);
  expect(pasted.edges).toEqual(["photo2 -> eyes2"]);
  expect(pasted.layout).toEqual({ photo2: [48, 48], eyes2: [348, 48] });
});

test("what is no fragment is not pasted", () => {
  for (const text of ["hello", "[1, 2]", "a: &x 1\nb: *x\nnodes: {}", "nodes: 3", "{"]) expect(readFragment(text)).toBeNull();
});
