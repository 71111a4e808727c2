/** The form of what is selected, made from the part's schema. A value is taken on Enter or when the field is left. */
import { type ReactNode, useEffect, useState } from "react";
import { adaptersOn, edgeText, isRaw, type Json, parseEdge, type Raw, trainedNames, typeOf, wiresOf } from "./document";
import { Composition } from "./Composition";
import { Field } from "./Field";
import { problemsOf } from "./findings";
import { count, shapeText } from "./format";
import { connect, grow, mend, middleOf, removeSelected, rename, renameGroup, setKey } from "./gestures";
import { Icon } from "./Icon";
import type { PartInfo } from "./messages";
import { PortMark } from "./PartNode";
import { PromptEditor } from "./PromptEditor";
import { givesOf, growthRefusal, infoOf, portsOf, refusal } from "./rules";
import { SitesPicker } from "./SitesPicker";
import { store, useStore } from "./store";

export function Inspector(): ReactNode {
  const selection = useStore((state) => state.selection);
  const node = selection.nodes.at(-1);
  if (selection.adapter !== null) return <PartForm key={selection.adapter} section="adapters" id={selection.adapter} />;
  if (selection.group !== null) return <GroupForm key={selection.group} name={selection.group} />;
  if (selection.nodes.length > 1) return <Several nodes={selection.nodes} />;
  if (node !== undefined) return <PartForm key={node} section="nodes" id={node} />;
  if (selection.edges.length > 0) return <WireForm edge={selection.edges.at(-1)!} />;
  return <Outline />;
}

interface PartFormProps {
  section: "nodes" | "adapters";
  id: string;
}

function PartForm({ section, id }: PartFormProps): ReactNode {
  const raw = useStore((state) => state.history.doc.graph[section][id]);
  const info = useStore((state) => state.catalogue.parts[typeOf(raw)]);
  const problems = useStore((state) => problemsOf(state.check, id));
  if (raw === undefined) return null;
  if (!isRaw(raw) || !info) return <Placeholder section={section} id={id} raw={raw} />;
  return (
    <form className="form" onSubmit={(event) => event.preventDefault()}>
      <NameField id={id} />
      <About info={info} />
      {problems.map((problem, index) => (
        <p key={index} className="problem">
          {problem.message}
          {problem.fix && (
            <button type="button" className="mend" onClick={() => mend(problem)}>
              <Icon name="mend" size={12} /> {problem.fix.title}
            </button>
          )}
        </p>
      ))}
      <Knobs section={section} id={id} raw={raw} info={info} />
      <Unknown section={section} id={id} raw={raw} info={info} />
      {section === "nodes" && <Wires node={id} />}
      {section === "nodes" && <Adapters host={id} />}
      {section === "nodes" && <Composition host={id} />}
      <Actions section={section} id={id} />
    </form>
  );
}

function NameField({ id, onName = rename }: { id: string; onName?: (id: string, to: string) => void }): ReactNode {
  const [name, setName] = useState(id);
  return (
    <label className="field name">
      <span>name</span>
      <input
        value={name}
        onChange={(event) => setName(event.target.value)}
        onBlur={() => onName(id, name)}
        onKeyDown={(event) => event.key === "Enter" && event.currentTarget.blur()}
      />
    </label>
  );
}

function About({ info }: { info: PartInfo }): ReactNode {
  return (
    <details className="about">
      <summary>
        <code>{info.type}</code> {info.summary}
      </summary>
      <p>{info.doc}</p>
      {info.papers.map((paper) => (
        <a key={paper} href={`https://arxiv.org/abs/${paper}`} target="_blank" rel="noreferrer">
          arXiv {paper}
        </a>
      ))}
    </details>
  );
}

function Knobs({ section, id, raw, info }: PartFormProps & { raw: Raw; info: PartInfo }): ReactNode {
  const fields = info.fields.filter((field) => field.key !== "host");
  return (
    <>
      {fields.map((field) => {
        const set = (value: Json | undefined): void => setKey(section, id, field.key, value);
        if (field.key === info.grows) return <PromptEditor key={field.key} node={id} field={field} value={raw[field.key]} onChange={set} />;
        if (field.key === "sites" && section === "adapters") {
          return <SitesPicker key={field.key} host={String(raw.host ?? "")} field={field} value={raw[field.key]} onChange={set} />;
        }
        return <Field key={field.key} id={`${id}-${field.key}`} field={field} value={raw[field.key]} onChange={set} />;
      })}
      {section === "adapters" && <HostField id={id} host={String(raw.host ?? "")} />}
    </>
  );
}

function HostField({ id, host }: { id: string; host: string }): ReactNode {
  const nodes = useStore((state) => state.history.doc.graph.nodes);
  const hosts = Object.keys(nodes).filter((node) => !typeOf(nodes[node]).startsWith("input."));
  return (
    <label className="field">
      <span>host</span>
      <select value={host} onChange={(event) => setKey("adapters", id, "host", event.target.value)}>
        {!hosts.includes(host) && <option>{host}</option>}
        {hosts.map((node) => (
          <option key={node}>{node}</option>
        ))}
      </select>
    </label>
  );
}

/** Keys that the part does not know: shown, and taken out only when asked. */
function Unknown({ section, id, raw, info }: PartFormProps & { raw: Raw; info: PartInfo }): ReactNode {
  const known = new Set(["type", "host", ...info.fields.map((field) => field.key)]);
  const keys = Object.keys(raw).filter((key) => !known.has(key));
  return keys.map((key) => (
    <p key={key} className="problem">
      <code>{key}</code> is no key of {info.type}
      <button type="button" className="mend" onClick={() => setKey(section, id, key, undefined)}>
        <Icon name="trash" size={12} /> remove
      </button>
    </p>
  ));
}

function Placeholder({ section, id, raw }: PartFormProps & { raw: Json }): ReactNode {
  return (
    <div className="form">
      <h3>{id}</h3>
      <p className="problem">{typeOf(raw) || "This entry"} is not a part that is installed. It is kept as it is and written back unchanged.</p>
      <pre className="raw">{JSON.stringify(raw, null, 2)}</pre>
      <Actions section={section} id={id} />
    </div>
  );
}

/** The wires of a node, and a way to draw one without a mouse. */
function Wires({ node }: { node: string }): ReactNode {
  const graph = useStore((state) => state.history.doc.graph);
  const check = useStore((state) => state.check);
  const catalogue = useStore((state) => state.catalogue);
  const known = { graph, check, catalogue };
  const mine = wiresOf(graph).filter((wire) => wire.source === node || wire.target === node);
  const targets = Object.keys(graph.nodes).flatMap((target) => {
    const ports = Object.keys(portsOf(known, target)).filter((port) => refusal(known, { source: node, target, port }) === null);
    const found = ports.map((port) => ({ label: port === "in" ? target : `${target}.${port}`, draw: () => connect({ source: node, target, port }) }));
    const grows = infoOf(known, target)?.grows && growthRefusal(known, node, target) === null;
    return grows ? [...found, { label: `${target}: a new slot`, draw: () => grow(node, target) }] : found;
  });
  const carried = check?.nodes[node];
  return (
    <fieldset>
      <legend>wires</legend>
      {carried?.kind && (
        <p className="carries">
          <PortMark kind={carried.kind} /> gives {carried.kind} <code>{shapeText(carried)}</code>
        </p>
      )}
      <ul className="wires">
        {mine.map((wire) => (
          <li key={edgeText(wire)}>
            <code>{edgeText(wire)}</code>
            <button type="button" aria-label={`Remove ${edgeText(wire)}`} onClick={() => store.act({ do: "remove", names: [], edges: [edgeText(wire)] }, `Removed ${edgeText(wire)}`)}>
              <Icon name="close" size={12} />
            </button>
          </li>
        ))}
      </ul>
      {givesOf(known, node).length > 0 && (
        <label className="field">
          <span>connect to</span>
          <select id="connect-to" value="" onChange={(event) => targets[Number(event.target.value)]?.draw()}>
            <option value="">{targets.length > 0 ? `${targets.length} inputs fit` : "no input fits"}</option>
            {targets.map((target, index) => (
              <option key={target.label} value={index}>
                {target.label}
              </option>
            ))}
          </select>
        </label>
      )}
    </fieldset>
  );
}

function Adapters({ host }: { host: string }): ReactNode {
  const graph = useStore((state) => state.history.doc.graph);
  const names = adaptersOn(graph, host);
  if (names.length === 0) return null;
  return (
    <fieldset>
      <legend>adapters</legend>
      {names.map((name) => (
        <button key={name} type="button" className="chip" onClick={() => store.select({ adapter: name })}>
          <Icon name="adapter" size={12} /> {name} <small>{typeOf(graph.adapters[name])}</small>
        </button>
      ))}
    </fieldset>
  );
}

function Actions({ section, id }: PartFormProps): ReactNode {
  const trained = useStore((state) => trainedNames(state.history.doc.graph).has(id));
  const cost = useStore((state) => state.feed?.costs?.[section][id]);
  return (
    <div className="actions">
      {cost && (
        <p>
          {count(cost.parameters)} parameters{trained ? `, ${count(cost.trainable)} trained` : ""}
        </p>
      )}
      {section === "nodes" && (
        <button
          type="button"
          onClick={(event) => {
            const box = event.currentTarget.getBoundingClientRect();
            store.set({ menu: { screen: [box.left - 340, box.top - 200], flow: [0, 0], swap: id } });
          }}
        >
          <Icon name="swap" size={14} /> Swap part
        </button>
      )}
      <button type="button" onClick={removeSelected}>
        <Icon name="trash" size={14} /> Remove
      </button>
    </div>
  );
}

function WireForm({ edge }: { edge: string }): ReactNode {
  const wire = parseEdge(edge);
  const carried = useStore((state) => state.check?.nodes[wire?.source ?? ""]);
  const axes = useStore((state) => state.catalogue.axes[carried?.kind ?? ""] ?? []);
  return (
    <div className="form">
      <h3>{edge}</h3>
      {carried?.kind && (
        <>
          <p className="carries">
            <PortMark kind={carried.kind} /> {carried.kind} <code>{shapeText(carried)}</code>
          </p>
          <table>
            <tbody>
              {axes.map((axis, index) => (
                <tr key={axis}>
                  <th scope="row">{axis}</th>
                  <td>{carried.shape[index] ?? "not known"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </>
      )}
      <div className="actions">
        <button
          type="button"
          onClick={(event) => {
            const box = event.currentTarget.getBoundingClientRect();
            store.set({ menu: { screen: [box.left - 340, box.top], flow: middleOf(edge), edge } });
          }}
        >
          <Icon name="plus" size={14} /> Insert a part
        </button>
        <button type="button" onClick={removeSelected}>
          <Icon name="trash" size={14} /> Remove
        </button>
      </div>
    </div>
  );
}

function GroupForm({ name }: { name: string }): ReactNode {
  const group = useStore((state) => state.history.doc.graph.groups[name]);
  const [note, setNote] = useState(group?.note ?? "");
  useEffect(() => setNote(group?.note ?? ""), [group?.note]);
  if (!group) return null;
  return (
    <div className="form">
      <NameField id={name} onName={renameGroup} />
      <label className="field comment">
        <span>comment</span>
        <textarea
          value={note}
          rows={4}
          onChange={(event) => setNote(event.target.value)}
          onBlur={() => store.act({ do: "group", id: name, nodes: group.nodes, note }, `Commented ${name}`)}
        />
      </label>
      <p className="hint">around {group.nodes.join(", ")}; drag it by its name to move them together</p>
      <div className="actions">
        <button type="button" onClick={() => store.select({ nodes: group.nodes })}>
          Select its nodes
        </button>
        <button type="button" onClick={removeSelected}>
          Ungroup
        </button>
      </div>
    </div>
  );
}

function Several({ nodes }: { nodes: string[] }): ReactNode {
  return (
    <div className="form">
      <h3>{nodes.length} nodes</h3>
      <p>{nodes.join(", ")}</p>
      <p className="hint">
        <kbd>G</kbd> groups them, <kbd>T</kbd> tidies them, <kbd>Ctrl</kbd>+<kbd>D</kbd> duplicates them, <kbd>Del</kbd> removes them.
      </p>
    </div>
  );
}

/** Nothing is selected: the whole graph as a list, for those who do not drag. */
function Outline(): ReactNode {
  const graph = useStore((state) => state.history.doc.graph);
  const check = useStore((state) => state.check);
  return (
    <div className="form">
      <h3>Outline</h3>
      <table className="outline">
        <thead>
          <tr>
            <th scope="col">node</th>
            <th scope="col">part</th>
            <th scope="col">gives</th>
          </tr>
        </thead>
        <tbody>
          {Object.entries(graph.nodes).map(([node, raw]) => (
            <tr key={node}>
              <td>
                <button type="button" className="link" onClick={() => store.goTo(node)}>
                  {node}
                </button>
              </td>
              <td>{typeOf(raw)}</td>
              <td>
                {check?.nodes[node]?.kind} <code>{check?.nodes[node]?.kind ? shapeText(check.nodes[node]) : ""}</code>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {Object.keys(graph.nodes).length === 0 && <p className="hint">Select something to see its settings here.</p>}
    </div>
  );
}
