/** A node on the canvas: its part, ports, adapters, cost and state. */
import { Handle, type Node, type NodeProps, Position } from "@xyflow/react";
import { memo, type ReactNode } from "react";
import { adaptersOn, isRaw, trainedNames, typeOf } from "./document";
import { findings, problemsOf } from "./findings";
import { count, shapeText } from "./format";
import { Icon } from "./Icon";
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
    return refusal(known, { source: connecting.node, target: node, port: port ?? "" });
  }
  if (side === "in") return "a wire starts at an output";
  return refusal(known, { source: node, target: connecting.node, port: connecting.port });
}

/** The handle of a port that is written into the template when a wire ends there. */
export const GROW = "+";

function InPort({ node, port, kinds }: { node: string; port: string; kinds: string[] }): ReactNode {
  const why = useStore((state) => (state.connecting ? whyNot(store.known, node, port, "in") : undefined));
  const fed = useStore(() => feederOf(store.known, node, port) !== null);
  const problem = useStore((state) => findings(state.check).byPort.get(`${node}.${port}`)?.message);
  const optional = useStore((state) => state.check?.nodes[node]?.optional.includes(port) ?? false);
  const state = why === undefined ? "" : why === null ? " fits" : " dim";
  const label = `input ${port} of ${node}, takes ${kinds.join(" or ")}${problem ? `; ${problem}` : ""}`;
  return (
    <div className={`port in${state}${problem ? " wrong" : ""}`} title={why || problem || kinds.join(" or ")}>
      <Handle type="target" position={Position.Left} id={port} role="button" tabIndex={-1} aria-label={label}>
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
    return found?.kind ? shapeText(found.shape) : "";
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

function Chips({ node }: { node: string }): ReactNode {
  const names = useStore((state) => adaptersOn(state.history.doc.graph, node).join(" "));
  const chosen = useStore((state) => state.selection.adapter);
  if (names === "") return null;
  return (
    <div className="chips">
      {names.split(" ").map((name) => (
        <Chip key={name} name={name} chosen={chosen === name} />
      ))}
    </div>
  );
}

function Chip({ name, chosen }: { name: string; chosen: boolean }): ReactNode {
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

function Foot({ node }: { node: string }): ReactNode {
  const cost = useStore((state) => state.feed?.costs?.nodes[node]);
  const frozen = useStore((state) => {
    const raw = state.history.doc.graph.nodes[node];
    return isRaw(raw) && raw.freeze === true;
  });
  const trained = useStore((state) => trainedNames(state.history.doc.graph).has(node));
  const state = frozen ? "frozen" : trained ? "trained" : null;
  if (!state && !cost?.parameters) return null;
  return (
    <footer className="foot">
      {state && (
        <span className={`state ${state}`}>
          <Icon name={state} size={12} /> {state}
        </span>
      )}
      {cost !== undefined && cost.parameters > 0 && (
        <span className="cost" title={`${cost.parameters.toLocaleString("en")} parameters, ${cost.trainable.toLocaleString("en")} trained`}>
          {count(cost.parameters)}
        </span>
      )}
    </footer>
  );
}

export const PartNode = memo(function PartNode({ id, selected }: NodeProps<PartNodeType>): ReactNode {
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
});
