/** The editor: palette, canvas, side pane, problems, and the keys. */
import { ReactFlowProvider, useReactFlow } from "@xyflow/react";
import { type ReactNode, useEffect, useRef } from "react";
import { Canvas } from "./Canvas";
import { copySelected, duplicateSelected, pasteText } from "./clipboard";
import { Dialogs } from "./Dialogs";
import { groupSelected, removeSelected, tidyUp } from "./gestures";
import { Inspector } from "./Inspector";
import { Palette } from "./Palette";
import { Problems } from "./Problems";
import { QuickAdd } from "./QuickAdd";
import { store, useStore } from "./store";
import { nextLabel, save, TopBar } from "./TopBar";
import { YamlPane } from "./YamlPane";

export function App(): ReactNode {
  return (
    <ReactFlowProvider>
      <Editor />
    </ReactFlowProvider>
  );
}

/** A control that takes bare keys for itself. */
function isField(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && /^(input|textarea|select)$/i.test(target.tagName);
}

/** A field of text, with an undo and a clipboard of its own. */
function isText(target: EventTarget | null): boolean {
  if (target instanceof HTMLInputElement) return target.type !== "checkbox";
  return target instanceof HTMLTextAreaElement;
}

function Editor(): ReactNode {
  const root = useRef<HTMLDivElement>(null);
  const flow = useReactFlow();
  const side = useStore((state) => state.side);
  useEffect(() => {
    const element = root.current!;
    const keys = (event: KeyboardEvent): void => onKey(event, flow, element);
    const copy = (event: ClipboardEvent): void => {
      if (hasFocus(element)) copySelected(event);
    };
    const paste = (event: ClipboardEvent): void => {
      if (hasFocus(element)) pasteText(event.clipboardData?.getData("text/plain") ?? "");
    };
    // After a field was left the page itself has the focus: Ctrl+S and Ctrl+Z are meant for the editor then too.
    const fromPage = (event: KeyboardEvent): void => {
      if (event.target === document.body && (event.ctrlKey || event.metaKey)) onKey(event, flow, element);
    };
    element.addEventListener("keydown", keys);
    document.addEventListener("keydown", fromPage);
    document.addEventListener("copy", copy);
    document.addEventListener("paste", paste);
    return () => {
      element.removeEventListener("keydown", keys);
      document.removeEventListener("keydown", fromPage);
      document.removeEventListener("copy", copy);
      document.removeEventListener("paste", paste);
    };
  }, [flow]);
  return (
    <div className="editor" ref={root} tabIndex={-1} {...useCounters()}>
      <TopBar />
      <Palette />
      <main className="stage" aria-label="Canvas">
        <Canvas />
        <QuickAdd />
        <Said />
      </main>
      <aside className="side" aria-label="Side pane">
        <div className="tabs" role="tablist" aria-label="Side pane">
          {(["inspector", "yaml"] as const).map((name) => (
            <button
              key={name}
              type="button"
              role="tab"
              id={`tab-${name}`}
              aria-controls={`pane-${name}`}
              aria-selected={side === name}
              tabIndex={side === name ? 0 : -1}
              onClick={() => store.set({ side: name })}
              onKeyDown={(event) => {
                if (!/^Arrow(Left|Right)$/.test(event.key)) return;
                const other = name === "yaml" ? "inspector" : "yaml";
                store.set({ side: other });
                (event.currentTarget.parentElement?.querySelector(`#tab-${other}`) as HTMLElement | null)?.focus();
              }}
            >
              {name === "yaml" ? "YAML" : "Inspector"}
            </button>
          ))}
        </div>
        <div className="pane" role="tabpanel" id={`pane-${side}`} aria-labelledby={`tab-${side}`} key={side}>
          {side === "yaml" ? <YamlPane /> : <Inspector />}
        </div>
      </aside>
      <Problems />
      <Dialogs />
    </div>
  );
}

/** Whether the keyboard is in the editor and not in a text field. */
function hasFocus(element: HTMLElement): boolean {
  const focus = (element.getRootNode() as ShadowRoot | Document).activeElement;
  return focus !== null && element.contains(focus) && !isText(focus);
}

/** What the tests wait for instead of sleeping. */
function useCounters(): Record<string, string | number> {
  const state = useStore((all) => all);
  const { graph } = state.history.doc;
  return {
    "data-nodes": Object.keys(graph.nodes).length,
    "data-edges": graph.edges.length,
    "data-rev": state.rev,
    "data-checked": state.check === null ? -1 : state.check.rev,
    "data-problems": state.check?.problems.length ?? -1,
    "data-past": state.history.past.length,
    "data-parts": Object.keys(state.catalogue.parts).length,
    "data-requests": state.requests.length,
    "data-doc": state.id ?? "",
  };
}

function Said(): ReactNode {
  const said = useStore((state) => state.said);
  return (
    <div className="said" role="status" aria-live="polite" key={said.serial}>
      {said.text}
    </div>
  );
}

type Flow = ReturnType<typeof useReactFlow>;

/** A place on the canvas that is free of other nodes and in view. */
export function viewCentre(flow: Flow, element: HTMLElement): { screen: [number, number]; flow: [number, number] } {
  const box = (element.querySelector(".stage") ?? element).getBoundingClientRect();
  const screen: [number, number] = [box.left + box.width / 2, box.top + box.height / 3];
  const at = flow.screenToFlowPosition({ x: screen[0], y: screen[1] });
  return { screen, flow: [at.x - 104, at.y] };
}

function openQuickAdd(flow: Flow, element: HTMLElement): void {
  const [node] = store.get().selection.nodes;
  const from = store.get().selection.nodes.length === 1 && node !== undefined ? { from: node } : {};
  const { screen, flow: at } = viewCentre(flow, element);
  const beside = node === undefined ? undefined : flow.getNode(node)?.position;
  store.set({ menu: { screen, flow: beside ? [beside.x + 400, beside.y] : at, ...from } });
}

function onKey(event: KeyboardEvent, flow: Flow, element: HTMLElement): void {
  const modifier = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  const bound = modifier ? withModifier(key, event.shiftKey, isText(event.target)) : undefined;
  if (bound) {
    event.preventDefault();
    bound();
    return;
  }
  if (modifier || event.altKey || isField(event.target)) return;
  const onCanvas = event.target === element || (event.target instanceof Element && event.target.closest(".canvas") !== null);
  const keys: Record<string, () => void> = {
    delete: removeSelected,
    backspace: removeSelected,
    "?": () => store.set({ dialog: "shortcuts" }),
    "/": () => openQuickAdd(flow, element),
    f: () => void flow.fitView({ padding: 0.15, maxZoom: 1.1, duration: 200 }),
    t: tidyUp,
    g: groupSelected,
    s: () => openSwap(flow, element),
    w: () => openWire(element),
    l: nextLabel,
    escape: () => store.set({ menu: null, dialog: null, selection: { nodes: [], edges: [], adapter: null, group: null } }),
  };
  const isTab = event.key === "Tab" && !event.shiftKey && onCanvas && store.get().menu === null && isPane(event.target, element);
  const action = isTab ? () => openQuickAdd(flow, element) : keys[key];
  if (!action) return;
  event.preventDefault();
  action();
  // What had the focus may be gone now; the keys are still meant for the editor.
  requestAnimationFrame(() => {
    const { dialog, menu } = store.get();
    if (!dialog && !menu && (element.getRootNode() as ShadowRoot).activeElement === null) element.focus({ preventScroll: true });
  });
}

/** `Tab` adds a part from the bare canvas; on a node it goes to the next node, as everywhere. */
function isPane(target: EventTarget | null, element: HTMLElement): boolean {
  return target === element || (target instanceof Element && target.closest(".react-flow__node, .react-flow__edge, button") === null);
}

function withModifier(key: string, shift: boolean, inText: boolean): (() => void) | undefined {
  if (key === "s") return save;
  if (inText) return undefined;
  const keys: Record<string, () => void> = {
    z: shift ? store.redo : store.undo,
    y: store.redo,
    d: duplicateSelected,
    f: () => store.set({ dialog: "search" }),
    a: () => store.select({ nodes: Object.keys(store.doc.graph.nodes) }),
  };
  return keys[key];
}

function openSwap(flow: Flow, element: HTMLElement): void {
  const [node] = store.get().selection.nodes;
  if (node === undefined) return store.say("Select a node to swap its part");
  store.set({ menu: { ...viewCentre(flow, element), swap: node } });
}

/** Wires by keyboard: the list of ports that the selected node fits. */
function openWire(element: HTMLElement): void {
  const [node] = store.get().selection.nodes;
  if (node === undefined) return store.say("Select a node to draw a wire from");
  store.set({ side: "inspector" });
  requestAnimationFrame(() => element.querySelector<HTMLSelectElement>("#connect-to")?.focus());
}
