/** A node on the canvas: its part, ports, adapters, cost and state. */
import { Handle, type Node, type NodeProps, Position } from "@xyflow/react";
import { memo, type ReactNode } from "react";
import { isLeaf, namesIn, parseBlocks, stackOf, type Tree } from "./compose";
import { adaptersOn, type Graph, isRaw, learning, type Raw, trainedNames, typeOf } from "./document";
import { findings, problemsOf } from "./findings";
import { bytes, count, operations, shapeText, share } from "./format";
import { Icon } from "./Icon";
import type { Costs } from "./messages";
import { colourOf, lookOf } from "./kinds";
import { shortName } from "./parts";
import { feederOf, givesOf, growthRefusal, infoOf, type Known, portsOf, refusal } from "./rules";
import { store, useStore } from "./store";

export type PartNodeType = Node<Record<string, never>, "part">;

export function PortMark({ kind, open = false }: { kind: string | undefined; open?: boolean }): ReactNode {
  const look = lookOf(kind);
  const style = open ? { fill: "var(--paper)", stroke: colourOf(kind), strokeWidth: 2 } : { fill: colourOf(kind) };
  return (
    <svg className="mark" viewBox="0 0 16 16" width="14" height="14" aria-hidden="true">
      <path d={look.path} style={style} />
    </svg>
  );
}

/** Why the wire in the hand cannot end here; null when it can, undefined when there is no such wire. */
function whyNot(known: Known, node: string, port: string | null, side: "in" | "out"): string | null | undefined {
  const { connecting } = store.get();
  if (!connecting || (connecting.node === node && connecting.port === port)) return undefined;
  if (connecting.port === null) {
    if (side === "out") return "a wire ends at an input";
    if (port === GROW) return growthRefusal(known, connecting.node, node);
    return refusal(known, { source: connecting.node, ...endOf(node, port) });
  }
  if (side === "in") return "a wire starts at an output";
  return refusal(known, { source: node, ...endOf(connecting.node, connecting.port) });
}

/** A handle's name for the port of an adapter, which sits on its host's node. */
export function adapterHandle(adapter: string, port: string): string {
  return `@${adapter}.${port}`;
}

/** What a handle on a node stands for: a port of the node, or one of an adapter on it. */
export function endOf(node: string, handle: string | null | undefined): { target: string; port: string } {
  if (!handle?.startsWith("@")) return { target: node, port: handle ?? "in" };
  const [target = "", port = "in"] = handle.slice(1).split(".");
  return { target, port };
}

/** The handle of a port that is written into the template when a wire ends there. */
export const GROW = "+";

interface InPortProps {
  node: string;
  port: string;
  kinds: string[];
  /** The React Flow node, where the port belongs to an adapter on it. */
  on?: string;
}

function InPort({ node, port, kinds, on }: InPortProps): ReactNode {
  const handle = on === undefined ? port : adapterHandle(node, port);
  const why = useStore((state) => (state.connecting ? whyNot(store.known, on ?? node, handle, "in") : undefined));
  const fed = useStore(() => feederOf(store.known, node, port) !== null);
  const problem = useStore((state) => findings(state.check).byPort.get(`${node}.${port}`)?.message);
  const optional = useStore((state) => state.check?.nodes[node]?.optional.includes(port) ?? false);
  const state = why === undefined ? "" : why === null ? " fits" : " dim";
  const label = `input ${port} of ${node}, takes ${kinds.join(" or ")}${problem ? `; ${problem}` : ""}`;
  return (
    <div className={`port in${state}${problem ? " wrong" : ""}`} title={why || problem || kinds.join(" or ")}>
      <Handle type="target" position={Position.Left} id={handle} role="button" tabIndex={-1} aria-label={label}>
        <PortMark kind={kinds[0]} open={!fed} />
      </Handle>
      <span className="port-name">{port === "in" ? kinds[0] : port}</span>
      {!fed && optional && <span className="port-note">data</span>}
    </div>
  );
}

function GrowPort({ node }: { node: string }): ReactNode {
  const why = useStore((state) => (state.connecting ? whyNot(store.known, node, GROW, "in") : undefined));
  const state = why === undefined ? "" : why === null ? " fits" : " dim";
  return (
    <div className={`port in grow${state}`} title={why || "a wire that ends here becomes a new slot of the prompt"}>
      <Handle type="target" position={Position.Left} id={GROW} role="button" tabIndex={-1} aria-label={`new slot of ${node}`}>
        <svg className="mark" viewBox="0 0 16 16" width="14" height="14" aria-hidden="true">
          <path d="M8 3v10M3 8h10" />
        </svg>
      </Handle>
      <span className="port-name">new slot</span>
    </div>
  );
}

function OutPort({ node }: { node: string }): ReactNode {
  const kinds = useStore(() => givesOf(store.known, node).join(" or "));
  const shape = useStore((state) => {
    const found = state.check?.nodes[node];
    return found?.kind ? shapeText(found) : "";
  });
  const why = useStore((state) => (state.connecting ? whyNot(store.known, node, null, "out") : undefined));
  const state = why === undefined ? "" : why === null ? " fits" : " dim";
  if (kinds === "") return null;
  return (
    <div className={`port out${state}`} title={why || `${kinds} ${shape}`}>
      <span className="port-name">{kinds}</span>
      <Handle type="source" position={Position.Right} id="out" role="button" tabIndex={-1} aria-label={`output of ${node}, ${kinds} ${shape}`}>
        <PortMark kind={kinds.split(" or ")[0]} />
      </Handle>
    </div>
  );
}

/** The adapters on a node as they are composed: in a row one after the other, boxed where they are combined. */
function Chips({ node }: { node: string }): ReactNode {
  const names = useStore((state) => adaptersOn(state.history.doc.graph, node).join(" "));
  const text = useStore((state) => state.history.doc.graph.compose[node]);
  const ports = useStore(() =>
    JSON.stringify(adaptersOn(store.doc.graph, node).map((name) => [name, Object.entries(portsOf(store.known, name))])),
  );
  if (names === "") return null;
  const all = names.split(" ");
  const tree = text === undefined ? stackOf(all) : parseBlocks(text);
  const placed = new Set(tree === null ? [] : namesIn(tree));
  const inputs = JSON.parse(ports) as [string, [string, string[]][]][];
  return (
    <div className="adapters">
      {inputs.flatMap(([name, taken]) => taken.map(([port, kinds]) => <InPort key={`${name}.${port}`} node={name} port={port} kinds={kinds} on={node} />))}
      {tree !== null && <BlockChips tree={tree} outer />}
      {all.some((name) => !placed.has(name)) && (
        <div className="chips idle" title="in no composition: these do not run">
          {all.filter((name) => !placed.has(name)).map((name) => <Chip key={name} name={name} />)}
        </div>
      )}
    </div>
  );
}

function BlockChips({ tree, outer = false }: { tree: Tree; outer?: boolean }): ReactNode {
  if (isLeaf(tree)) return <Chip name={tree.name} />;
  const by = tree.options.by;
  const label = tree.op + Object.entries(tree.options).map(([key, value]) => (key === "by" ? "" : ` ${value}`)).join("");
  return (
    <div className={`chips ${tree.op}${outer && tree.op === "stack" ? "" : " boxed"}`}>
      {!(outer && tree.op === "stack") && <small>{label}</small>}
      {tree.children.map((child, index) => (
        <BlockChips key={index} tree={child} />
      ))}
      {by !== undefined && <Chip name={by} />}
    </div>
  );
}

function Chip({ name }: { name: string }): ReactNode {
  const chosen = useStore((state) => state.selection.adapter === name);
  const type = useStore((state) => typeOf(state.history.doc.graph.adapters[name]));
  const trained = useStore((state) => trainedNames(state.history.doc.graph).has(name));
  const cost = useStore((state) => state.feed?.costs?.adapters[name]?.parameters);
  return (
    <button
      type="button"
      className={`chip nodrag${chosen ? " chosen" : ""}${trained ? " trained" : ""}`}
      title={`${name}: ${type}${cost === undefined ? "" : `, ${count(cost)} parameters`}`}
      onClick={(event) => {
        event.stopPropagation();
        store.select({ adapter: name });
      }}
    >
      <Icon name="adapter" size={12} />
      {name} <small>{shortName(type)}</small>
    </button>
  );
}

/** What learns in a node and what it costs; while a run trains it, how far that run is. */
function Foot({ node }: { node: string }): ReactNode {
  const state = useStore((all) => learning(all.history.doc.graph, node));
  const known = useStore((all) => JSON.stringify(costOf(all.feed?.costs ?? null, all.history.doc.graph, node)));
  const cost = JSON.parse(known) as Total | null;
  const said = useStore((all) => isRaw(all.history.doc.graph.nodes[node]) && (all.history.doc.graph.nodes[node] as Raw).freeze === true);
  if (!cost && (state === null || (state === "frozen" && !said))) return <Progress node={node} />;
  const part = cost && state && state !== "frozen" ? share(cost.trainable, cost.parameters) : "";
  return (
    <footer className="foot">
      {state && (
        <span className={`state ${state === "frozen" ? "frozen" : "trained"}`}>
          <Icon name={state === "frozen" ? "frozen" : "trained"} size={12} /> {state}
          {part && part !== "100 %" ? ` ${part}` : ""}
        </span>
      )}
      {cost && (
        <span className="cost" title={aboutCost(cost)}>
          {count(cost.parameters)}
          {cost.bytes > 0 && <i>{bytes(cost.bytes)}</i>}
        </span>
      )}
      <Progress node={node} />
    </footer>
  );
}

interface Total {
  parameters: number;
  trainable: number;
  bytes: number;
  flops: number;
}

/** Costs of a node and of the adapters on it; null where there are none. */
function costOf(costs: Costs | null, graph: Graph, node: string): Total | null {
  const parts = [costs?.nodes[node], ...adaptersOn(graph, node).map((name) => costs?.adapters[name])].filter((cost) => cost !== undefined);
  const sum = (key: keyof Total): number => parts.reduce((total, cost) => total + (cost[key] ?? 0), 0);
  const total = { parameters: sum("parameters"), trainable: sum("trainable"), bytes: sum("bytes"), flops: sum("flops") };
  return total.parameters > 0 ? total : null;
}

function aboutCost({ parameters, trainable, bytes: size, flops }: Total): string {
  const whole = (value: number): string => value.toLocaleString("en");
  const work = flops > 0 ? `; ${operations(flops)} a step` : "";
  return `${whole(parameters)} parameters, ${whole(trainable)} trained; ${bytes(size)} for weights, gradients and moments${work}`;
}

function Progress({ node }: { node: string }): ReactNode {
  const run = useStore((state) => {
    const now = state.feed?.run;
    const names = [node, ...adaptersOn(state.history.doc.graph, node)];
    return now?.state === "running" && names.some((name) => now.learning.includes(name)) ? now : null;
  });
  if (run === null) return null;
  const about = `${run.name} trains ${node}: step ${run.step} of ${run.steps}`;
  return <progress className="run-bar" value={run.step} max={Math.max(run.steps, 1)} aria-label={about} title={about} />;
}

export const PartNode = memo(function PartNode({ id, selected, height }: NodeProps<PartNodeType>): ReactNode {
  const compact = useStore((state) => state.compact);
  return compact && height ? <Seal id={id} selected={selected} height={height} /> : <Card id={id} selected={selected} />;
});

/** A node from afar: its name in its colour, at its own size. React Flow keeps where its ports were. */
function Seal({ id, selected, height }: { id: string; selected: boolean; height: number }): ReactNode {
  const type = useStore((state) => typeOf(state.history.doc.graph.nodes[id]));
  const family = useStore((state) => state.catalogue.parts[type]?.family ?? "unknown");
  const wrong = useStore((state) => problemsOf(state.check, id).length > 0);
  return (
    <article className={`part seal ${family}${selected ? " chosen" : ""}${wrong ? " wrong" : ""}`} data-node={id} style={{ height }}>
      <header>
        <strong>{id}</strong>
      </header>
    </article>
  );
}

function Card({ id, selected }: { id: string; selected: boolean }): ReactNode {
  const type = useStore((state) => typeOf(state.history.doc.graph.nodes[id]));
  const family = useStore((state) => state.catalogue.parts[type]?.family);
  const ports = useStore(() => JSON.stringify(portsOf(store.known, id)));
  const grows = useStore(() => infoOf(store.known, id)?.grows ?? null);
  const problems = useStore((state) => problemsOf(state.check, id));
  const known = family !== undefined;
  return (
    <article className={`part ${family ?? "unknown"}${selected ? " chosen" : ""}${problems.length > 0 ? " wrong" : ""}`} data-node={id}>
      <header>
        <Icon name={family ?? "warn"} />
        <span className="title">
          <strong>{id}</strong>
          <small>{known ? shortName(type) : type || "no type"}</small>
        </span>
        {problems.length > 0 && (
          <span className="badge" title={problems.map((problem) => problem.message).join("\n")}>
            <Icon name="warn" size={12} /> {problems.length}
          </span>
        )}
      </header>
      {!known && <p className="placeholder">This part is not installed. The node is kept as it is.</p>}
      <div className="ports">
        <div>
          {Object.entries(JSON.parse(ports) as Record<string, string[]>).map(([port, kinds]) => (
            <InPort key={port} node={id} port={port} kinds={kinds} />
          ))}
          {grows && <GrowPort node={id} />}
        </div>
        <OutPort node={id} />
      </div>
      <Chips node={id} />
      <Foot node={id} />
    </article>
  );
}
