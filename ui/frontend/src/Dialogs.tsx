/** The shortcuts, the search in the graph, and the command lines that do the same without the page. */
import { type ReactNode, useEffect, useRef, useState } from "react";
import { edgeText, typeOf, wiresOf } from "./document";
import { shapeText } from "./format";
import { Icon } from "./Icon";
import { store, useStore } from "./store";

const SHORTCUTS: [string, string][] = [
  ["Tab, / or double-click", "search parts and add one; with a node selected, one that fits behind it"],
  ["Tab, Shift+Tab", "go from node to node; Enter selects, arrows move"],
  ["W", "draw a wire from the selected node, by list"],
  ["S", "swap the part of the selected node, keeping its wires"],
  ["Del", "remove what is selected"],
  ["Ctrl+Z, Ctrl+Y", "undo, redo"],
  ["Ctrl+C, Ctrl+V, Ctrl+D", "copy as YAML, paste, duplicate"],
  ["Ctrl+A, Shift+drag", "select all, select in a frame"],
  ["G", "group what is selected"],
  ["T", "tidy the graph, or what is selected"],
  ["F", "fit the graph into view"],
  ["L", "wires show shapes, number formats, bytes, or nothing"],
  ["Ctrl+F", "search in the graph: names, parts, values, shapes"],
  ["Ctrl+S", "save"],
  ["?", "this list"],
];

export function Dialogs(): ReactNode {
  const dialog = useStore((state) => state.dialog);
  if (dialog === "shortcuts") return <Dialog title="Shortcuts">{<Shortcuts />}</Dialog>;
  if (dialog === "search") return <Dialog title="Search in the graph">{<GraphSearch />}</Dialog>;
  if (dialog === "save") return <Dialog title="Save in the workspace">{<SaveAs />}</Dialog>;
  if (dialog === "commands") return <Dialog title="The same without the page">{<Commands />}</Dialog>;
  return null;
}

function Dialog({ title, children }: { title: string; children: ReactNode }): ReactNode {
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const element = box.current;
    element?.showModal();
    return () => element?.close();
  }, []);
  const close = (): void => store.set({ dialog: null });
  return (
    <dialog ref={box} aria-label={title} onClose={close} onClick={(event) => event.target === box.current && close()}>
      <header>
        <h2>{title}</h2>
        <button type="button" className="tool" aria-label="Close" onClick={close}>
          <Icon name="close" />
        </button>
      </header>
      {children}
    </dialog>
  );
}

function Shortcuts(): ReactNode {
  return (
    <dl className="shortcuts">
      {SHORTCUTS.map(([keys, does]) => (
        <div key={keys}>
          <dt>
            <kbd>{keys}</kbd>
          </dt>
          <dd>{does}</dd>
        </div>
      ))}
    </dl>
  );
}

/** Everything a node can be found by, as one text. */
function textOf(node: string): string {
  const { history, check } = store.get();
  const { graph } = history.doc;
  const found = check?.nodes[node];
  const wires = wiresOf(graph).filter((wire) => wire.source === node || wire.target === node);
  return [node, JSON.stringify(graph.nodes[node]), found?.kind, found ? shapeText(found) : "", ...wires.map(edgeText)].join(" ").toLowerCase();
}

function GraphSearch(): ReactNode {
  const graph = useStore((state) => state.history.doc.graph);
  const [query, setQuery] = useState("");
  const [at, setAt] = useState(0);
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const found = words.length === 0 ? [] : Object.keys(graph.nodes).filter((node) => words.every((word) => textOf(node).includes(word)));
  const go = (node: string | undefined): void => {
    if (node !== undefined) store.goTo(node);
  };
  return (
    <>
      <input
        autoFocus
        type="search"
        aria-label="Search in the graph"
        placeholder="Name, part, value or shape"
        value={query}
        onChange={(event) => {
          setQuery(event.target.value);
          setAt(0);
        }}
        onKeyDown={(event) => {
          if (event.key !== "Enter" || found.length === 0) return;
          go(found[at % found.length]);
          setAt(at + (event.shiftKey ? found.length - 1 : 1));
        }}
      />
      <p className="hint" role="status">
        {words.length > 0 && `${found.length} found; Enter goes to the next`}
      </p>
      <ul className="found">
        {found.slice(0, 50).map((node) => (
          <li key={node}>
            <button type="button" className="link" onClick={() => go(node)}>
              {node} <small>{typeOf(graph.nodes[node])}</small>
            </button>
          </li>
        ))}
      </ul>
    </>
  );
}

function SaveAs(): ReactNode {
  const [name, setName] = useState(() => store.doc.graph.name.replace(/[^\w.-]+/g, "-"));
  const [refused, setRefused] = useState("");
  const save = (): void => {
    store.request("save", { path: name }, (answer) => {
      if (answer.error) return setRefused(answer.error);
      store.set({ dialog: null });
      if (answer.doc) store.act({ do: "replace", doc: answer.doc }, "Paths follow the file to its new folder");
    });
  };
  return (
    <form
      className="save-as"
      onSubmit={(event) => {
        event.preventDefault();
        save();
      }}
    >
      <input autoFocus aria-label="Name of the file" value={name} onChange={(event) => setName(event.target.value)} />
      <button type="submit">Save</button>
      {refused && <p role="alert">{refused}</p>}
    </form>
  );
}

function Commands(): ReactNode {
  const path = useStore((state) => state.place.path) ?? "SPEC";
  const node = useStore((state) => state.selection.nodes[0]) ?? "NODE";
  const lines: [string, string][] = [
    ["check", `assembler validate ${path}`],
    ["mend what can be mended", `assembler validate ${path} --fix`],
    ["parameters, memory, FLOPs", `assembler summary ${path}`],
    ["where adapters can go", `assembler sites ${path} ${node}`],
    ["fetch the weights", `assembler fetch ${path}`],
    ["train", `assembler train ${path} --run exports/runs/NAME`],
  ];
  return (
    <ul className="commands">
      {lines.map(([does, line]) => (
        <li key={line}>
          <small>{does}</small>
          <code>{line}</code>
          <button type="button" className="tool" aria-label={`Copy ${line}`} onClick={() => void navigator.clipboard.writeText(line).then(() => store.say("Copied"))}>
            <Icon name="copy" size={14} />
          </button>
        </li>
      ))}
    </ul>
  );
}
