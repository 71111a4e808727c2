/** The canvas: React Flow as a view of the document. Positions live here while the hand moves them. */
import {
  applyNodeChanges,
  Background,
  BackgroundVariant,
  type Connection,
  type ConnectionLineComponentProps,
  Controls,
  type EdgeChange,
  type FinalConnectionState,
  getBezierPath,
  MiniMap,
  type NodeChange,
  ReactFlow,
  useReactFlow,
  type Viewport,
  useStore as useFlowStore,
} from "@xyflow/react";
import { type DragEvent, memo, type ReactNode, useCallback, useEffect, useMemo, useRef, useState } from "react";
import { edgeText, type Graph, hostOf, type Point, wiresOf } from "./document";
import { GroupNode, type GroupNodeType } from "./GroupNode";
import { connect, connectAnywhere, grow, positions } from "./gestures";
import { colourOf } from "./kinds";
import { NODE_WIDTH, placed } from "./layout";
import { adapterHandle, endOf, GROW, PartNode, type PartNodeType } from "./PartNode";
import { givesOf, growthRefusal, portsOf, refusal } from "./rules";
import { store, useStore } from "./store";
import { WireEdge, type WireEdgeType } from "./WireEdge";

type FlowNode = PartNodeType | GroupNodeType;

const nodeTypes = { part: PartNode, frame: GroupNode };
const edgeTypes = { wire: WireEdge };
const CULL_ABOVE = 150;
const COMPACT_BELOW = 0.4;
const NO_DATA = {};
const FRAME = "group:";

/** React Flow's nodes for the document; a node that stays the same keeps its object. */
function useNodes(): [FlowNode[], (changes: NodeChange<FlowNode>[]) => void] {
  const graph = useStore((state) => state.history.doc.graph);
  const overlay = useStore((state) => state.positions);
  const catalogue = useStore((state) => state.catalogue);
  const selection = useStore((state) => state.selection);
  const [parts, setParts] = useState<PartNodeType[]>([]);
  useEffect(() => {
    const where = { ...placed(graph, (node) => Object.keys(portsOf(store.known, node))), ...overlay };
    const chosen = new Set(selection.nodes);
    setParts((before) => {
      const old = new Map(before.map((node) => [node.id, node]));
      return Object.keys(graph.nodes).map((id): PartNodeType => {
        const [x, y] = where[id] ?? [0, 0];
        const node = old.get(id);
        if (!node) return { id, type: "part", position: { x, y }, data: NO_DATA, selected: chosen.has(id) };
        const still = node.position.x === x && node.position.y === y && (node.selected ?? false) === chosen.has(id);
        return still ? node : { ...node, position: { x, y }, selected: chosen.has(id), dragging: false };
      });
    });
  }, [graph, overlay, catalogue, selection]);
  const frames = useMemo(() => framesOf(graph.groups, parts), [graph.groups, parts]);
  const nodes = useMemo(() => [...frames, ...parts], [frames, parts]);
  const change = useCallback((changes: NodeChange<FlowNode>[]) => {
    const own = changes.filter((item) => !("id" in item) || !item.id.startsWith(FRAME)) as NodeChange<PartNodeType>[];
    setParts((before) => applyNodeChanges(own, before));
  }, []);
  return [nodes, change];
}

function framesOf(groups: Record<string, { nodes: string[] }>, parts: PartNodeType[]): GroupNodeType[] {
  const where = new Map(parts.map((node) => [node.id, node]));
  return Object.entries(groups).flatMap(([name, group]) => {
    const inside = group.nodes.flatMap((id) => where.get(id) ?? []);
    if (inside.length === 0) return [];
    const left = Math.min(...inside.map((node) => node.position.x)) - 24;
    const top = Math.min(...inside.map((node) => node.position.y)) - 48;
    const right = Math.max(...inside.map((node) => node.position.x + (node.measured?.width ?? NODE_WIDTH))) + 24;
    const bottom = Math.max(...inside.map((node) => node.position.y + (node.measured?.height ?? 110))) + 24;
    const size = { width: right - left, height: bottom - top };
    // By its title a frame is dragged, and its nodes with it.
    const fixed = { dragHandle: ".frame-title", selectable: false, focusable: false, zIndex: -1 };
    return [{ id: `${FRAME}${name}`, type: "frame" as const, position: { x: left, y: top }, data: NO_DATA, ...size, ...fixed }];
  });
}

function useEdges(): WireEdgeType[] {
  const graph = useStore((state) => state.history.doc.graph);
  const selected = useStore((state) => state.selection.edges);
  const catalogue = useStore((state) => state.catalogue);
  const check = useStore((state) => state.check);
  return useMemo(() => {
    const known = { graph, catalogue, check };
    return wiresOf(graph)
      .filter(({ source, target }) => source in graph.nodes && hostOf(graph, target) in graph.nodes)
      .map((wire) => {
        const id = edgeText(wire);
        const grows = !(wire.port in portsOf(known, wire.target));
        const onAdapter = !(wire.target in graph.nodes);
        const targetHandle = onAdapter ? adapterHandle(wire.target, wire.port) : grows ? GROW : wire.port;
        const label = `wire from ${wire.source} to ${wire.target} ${wire.port}`;
        const ends = { source: wire.source, target: hostOf(graph, wire.target), sourceHandle: "out", targetHandle };
        return { id, type: "wire" as const, ...ends, selected: selected.includes(id), data: NO_DATA, ariaLabel: label };
      });
  }, [graph, selected, catalogue, check]);
}

/** Moves of a frame as moves of the nodes in it. */
function unframed(changes: NodeChange<FlowNode>[], nodes: FlowNode[]): NodeChange<FlowNode>[] {
  if (!changes.some((change) => change.type === "position" && change.id.startsWith(FRAME))) return changes;
  const where = new Map(nodes.map((node) => [node.id, node.position]));
  return changes.flatMap((change) => {
    if (change.type !== "position" || !change.id.startsWith(FRAME)) return [change];
    const from = where.get(change.id);
    const { position, dragging } = change;
    if (!from || !position) return [];
    const members = store.doc.graph.groups[change.id.slice(FRAME.length)]?.nodes ?? [];
    return members.flatMap((id): NodeChange<FlowNode>[] => {
      const at = where.get(id);
      return at ? [{ id, type: "position", dragging, position: { x: at.x + position.x - from.x, y: at.y + position.y - from.y } }] : [];
    });
  });
}

/** Moves that are over (mouse let go, an arrow key) become one entry of the history. */
function commitMoves(changes: NodeChange<FlowNode>[]): void {
  const done = changes.filter((change) => change.type === "position" && change.dragging === false && change.position);
  if (done.length === 0) return;
  const layout = positions();
  const names: string[] = [];
  for (const change of done) {
    if (change.type !== "position" || !change.position) continue;
    layout[change.id] = [change.position.x, change.position.y];
    names.push(change.id);
  }
  if (names.length > 0) store.act({ do: "move", layout }, `Moved ${names.join(", ")}`);
}

function commitSelection(nodes: FlowNode[], changes: NodeChange<FlowNode>[]): void {
  const selected = new Set(nodes.filter((node) => node.selected).map((node) => node.id));
  const touched = changes.filter((change) => change.type === "select");
  if (touched.length === 0) return;
  for (const change of touched) {
    if (change.selected) selected.add(change.id);
    else selected.delete(change.id);
  }
  store.set({ selection: { ...store.get().selection, nodes: [...selected], adapter: null, group: null } });
}

/** A connection as React Flow has it, as a wire; the handle that was grabbed may be either end. */
function toWire(connection: Connection): { source: string; target: string; port: string } {
  return { source: connection.source, ...endOf(connection.target, connection.targetHandle) };
}

function isValid(connection: Connection | WireEdgeType): boolean {
  const wire = toWire(connection as Connection);
  if (wire.port === GROW) return growthRefusal(store.known, wire.source, wire.target) === null;
  return refusal(store.known, wire) === null;
}

function onConnect(connection: Connection): void {
  const wire = toWire(connection);
  if (wire.port === GROW) grow(wire.source, wire.target);
  else connect(wire);
}

/** The wire in the hand, with the reason where it cannot end. */
function HeldWire(props: ConnectionLineComponentProps): ReactNode {
  const { fromX, fromY, toX, toY, fromPosition, toPosition, fromNode, fromHandle, toNode, toHandle } = props;
  const [path] = getBezierPath({ sourceX: fromX, sourceY: fromY, targetX: toX, targetY: toY, sourcePosition: fromPosition, targetPosition: toPosition });
  const forward = fromHandle.type === "source";
  const end = endOf(fromNode.id, fromHandle.id ?? null);
  const kind = forward ? givesOf(store.known, fromNode.id)[0] : portsOf(store.known, end.target)[end.port]?.[0];
  const why = reason(fromNode.id, fromHandle.id ?? null, forward, toNode?.id, toHandle?.id ?? null, toHandle?.type);
  return (
    <g>
      <path d={path} fill="none" strokeWidth={2.5} style={{ stroke: why ? "var(--red)" : colourOf(kind) }} />
      {why && (
        <foreignObject x={toX + 14} y={toY - 14} width={320} height={80} style={{ overflow: "visible" }}>
          <div className="why">{why}</div>
        </foreignObject>
      )}
    </g>
  );
}

function reason(from: string, port: string | null, forward: boolean, to: string | undefined, toPort: string | null, type: string | undefined): string | null {
  if (to === undefined || type === undefined) return null;
  if (forward && type === "source") return "a wire ends at an input";
  if (!forward && type === "target") return "a wire starts at an output";
  if (!forward) return refusal(store.known, { source: to, ...endOf(from, port) });
  if (toPort === GROW) return growthRefusal(store.known, from, to);
  return refusal(store.known, { source: from, ...endOf(to, toPort) });
}

function toEnd(node: string, handle: string): { node: string; port: string } {
  const { target, port } = endOf(node, handle);
  return { node: target, port };
}

function pointOf(event: MouseEvent | TouchEvent): Point {
  const touch = "changedTouches" in event ? event.changedTouches[0] : event;
  return [touch?.clientX ?? 0, touch?.clientY ?? 0];
}

/** What lies under a point of the screen, within the editor's shadow root. */
export function under(root: Node, [x, y]: Point): Element | null {
  return (root instanceof ShadowRoot ? root : document).elementFromPoint(x, y);
}

const miniColour = (node: FlowNode): string => {
  if (node.type === "frame") return "transparent";
  const { check } = store.get();
  if (check?.problems.some((problem) => problem.node === node.id)) return "light-dark(#e03131, #ff8787)";
  return colourOf(givesOf(store.known, node.id)[0]);
};

/** Where the user looked last at each document, while this page is there. */
const views = new Map<string, Viewport>();
const FIT = { padding: 0.1, maxZoom: 1.1 };

/** Show an opened document as it was looked at last, or all of it, once its nodes are measured. */
function useFirstLook(nodes: FlowNode[], many: boolean): void {
  const flow = useReactFlow();
  const id = useStore((state) => state.id);
  const opened = useStore((state) => state.opened);
  const pending = useRef(false);
  const before = useRef<{ id: string | null; opened: number; graph: Graph } | null>(null);
  useEffect(() => {
    const last = before.current;
    const now = { id, opened, graph: store.doc.graph };
    before.current = now;
    if (last?.id === id && last.opened === opened) return;
    // Saved under another name it is the same graph, and stays as it is looked at.
    pending.current = last?.graph !== now.graph;
    if (!pending.current && id !== null) views.set(id, flow.getViewport());
  });
  useEffect(() => {
    if (!pending.current || id === null) return;
    const names = Object.keys(store.doc.graph.nodes);
    const drawn = new Map(nodes.map((node) => [node.id, node]));
    const measured = names.every((name) => drawn.has(name) && (many || drawn.get(name)!.measured !== undefined));
    if (!measured) return;
    pending.current = false;
    if (names.length === 0) return; // the first part that is dropped stays where it falls
    const view = views.get(id);
    if (view && opened === 0) void flow.setViewport(view);
    else void flow.fitView(FIT);
  }, [nodes, many, id, opened, flow]);
}

export const Canvas = memo(function Canvas(): ReactNode {
  const [nodes, change] = useNodes();
  const edges = useEdges();
  const flow = useReactFlow();
  const frame = useRef<HTMLDivElement>(null);
  const compact = useFlowStore((state) => state.transform[2] < COMPACT_BELOW);
  const centre = useStore((state) => state.centre);
  const many = nodes.length > CULL_ABOVE;
  const empty = useStore((state) => Object.keys(state.history.doc.graph.nodes).length === 0);

  useEffect(() => store.set({ compact }), [compact]);
  useEffect(() => {
    if (centre) void flow.fitView({ nodes: [{ id: centre.node }], maxZoom: 1.1, duration: 250, padding: 1.2 });
  }, [centre, flow]);
  useFirstLook(nodes, many);

  const onNodesChange = useCallback(
    (changes: NodeChange<FlowNode>[]) => {
      const kept = unframed(changes.filter((item) => item.type !== "remove"), nodes);
      change(kept);
      commitSelection(nodes, kept);
      commitMoves(kept);
    },
    [change, nodes],
  );
  const onEdgesChange = useCallback((changes: EdgeChange<WireEdgeType>[]) => {
    const selected = new Set(store.get().selection.edges);
    for (const item of changes) {
      if (item.type === "select" && item.selected) selected.add(item.id);
      if (item.type === "select" && !item.selected) selected.delete(item.id);
    }
    store.set({ selection: { ...store.get().selection, edges: [...selected] } });
  }, []);
  const onConnectEnd = useCallback(
    (event: MouseEvent | TouchEvent, state: FinalConnectionState) => {
      const { connecting } = store.get();
      store.set({ connecting: null });
      if (!connecting || state.isValid) return;
      const screen = pointOf(event);
      const target = under(frame.current!.getRootNode(), screen)?.closest("[data-node]")?.getAttribute("data-node");
      if (state.toHandle) {
        const type = state.toHandle.type;
        const forward = connecting.port === null;
        const why = reason(connecting.node, connecting.port, forward, state.toHandle.nodeId, state.toHandle.id ?? null, type);
        if (why) store.say(`Not connected: ${why}`);
      } else if (target && target !== connecting.node) {
        if (connecting.port === null) connectAnywhere(connecting.node, target);
        else connect({ source: target, ...endOf(connecting.node, connecting.port) });
      } else if (!target) {
        const at = flow.screenToFlowPosition({ x: screen[0], y: screen[1] });
        const end = connecting.port === null ? { from: connecting.node } : { to: toEnd(connecting.node, connecting.port) };
        store.set({ menu: { screen, flow: [at.x, at.y - 40], ...end } });
      }
    },
    [flow],
  );
  const openMenu = (event: { clientX: number; clientY: number; target: EventTarget }): void => {
    if (!(event.target as Element).classList.contains("react-flow__pane")) return;
    const at = flow.screenToFlowPosition({ x: event.clientX, y: event.clientY });
    store.set({ menu: { screen: [event.clientX, event.clientY], flow: [at.x, at.y] } });
  };

  return (
    <div className="canvas" ref={frame} onDoubleClick={openMenu} onDrop={dropFile} onDragOver={(event) => event.preventDefault()}>
      <ReactFlow
        nodes={nodes}
        edges={edges}
        nodeTypes={nodeTypes}
        edgeTypes={edgeTypes}
        onNodesChange={onNodesChange}
        onEdgesChange={onEdgesChange}
        onConnect={onConnect}
        onConnectStart={(_, { nodeId, handleId, handleType }) => {
          if (nodeId) store.set({ connecting: { node: nodeId, port: handleType === "target" ? handleId : null }, menu: null });
        }}
        onConnectEnd={onConnectEnd}
        onMoveEnd={(_, view) => {
          if (store.get().id !== null) views.set(store.get().id!, view);
        }}
        onPaneClick={() => store.select({})}
        isValidConnection={isValid}
        connectionLineComponent={HeldWire}
        connectionRadius={28}
        deleteKeyCode={null}
        zoomOnDoubleClick={false}
        minZoom={0.08}
        maxZoom={2}
        onlyRenderVisibleElements={many}
        multiSelectionKeyCode={["Shift", "Meta", "Control"]}
        selectionKeyCode="Shift"
        fitViewOptions={FIT}
        aria-label="Graph"
      >
        <Background variant={BackgroundVariant.Dots} gap={22} size={1.4} />
        <Controls showInteractive={false} position="bottom-left" />
        {!compact && (
          <MiniMap<FlowNode> pannable zoomable nodeColor={miniColour} nodeStrokeWidth={0} position="bottom-right" ariaLabel="Overview" />
        )}
      </ReactFlow>
      {empty && (
        <div className="empty">
          <strong>An empty canvas</strong>
          <p>Drag a part from the left, press <kbd>Tab</kbd> or double-click to search, or drop a .yaml spec here.</p>
        </div>
      )}
    </div>
  );
});

/** A .yaml that is dropped on the canvas opens in place of the document, one step back away. */
function dropFile(event: DragEvent): void {
  event.preventDefault();
  const file = event.dataTransfer.files[0];
  if (!file) return;
  if (!/\.ya?ml$/i.test(file.name)) return store.say(`${file.name} is no .yaml file`);
  if (file.size > 1_000_000) return store.say(`${file.name} has ${file.size.toLocaleString("en")} bytes; a spec has at most 1,000,000`);
  void file.text().then((text) => open(text, file.name));
}

export function open(text: string, name: string): void {
  store.request("read", { text }, (answer) => {
    if (answer.doc) {
      store.act({ do: "replace", doc: answer.doc }, `Opened ${name}`);
      store.set({ positions: {}, opened: store.get().opened + 1 });
    } else {
      store.say(`${name}: ${answer.problems?.[0]?.message ?? answer.error ?? "cannot be read"}`);
    }
  });
}
