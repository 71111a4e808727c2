/** The palette: parts by family, found by name, alias or modality; dragged by mouse or finger, or added by Enter. */
import { useReactFlow } from "@xyflow/react";
import { type PointerEvent, type ReactNode, useMemo, useRef, useState } from "react";
import { viewCentre } from "./App";
import { under } from "./Canvas";
import type { Point } from "./document";
import { addNode, attach, insertOn } from "./gestures";
import { Icon } from "./Icon";
import { KINDS } from "./kinds";
import type { PartInfo } from "./messages";
import { FAMILIES, familyTitle, search, shortName } from "./parts";
import { PortMark } from "./PartNode";
import { store, useStore } from "./store";

export function Palette(): ReactNode {
  const catalogue = useStore((state) => state.catalogue);
  const [query, setQuery] = useState("");
  const [modality, setModality] = useState("");
  const found = useMemo(() => search(catalogue, `${query} ${modality}`), [catalogue, query, modality]);
  const modalities = [...new Set(Object.values(catalogue.parts).flatMap((info) => info.modalities))].sort();
  const families = [...new Set([...FAMILIES, ...found.map((info) => info.family)])];
  return (
    <nav className="palette" aria-label="Parts">
      <input type="search" placeholder="Search parts" aria-label="Search parts" value={query} onChange={(event) => setQuery(event.target.value)} />
      <div className="modalities" role="group" aria-label="Modality">
        {modalities.map((name) => (
          <button key={name} type="button" aria-pressed={modality === name} onClick={() => setModality(modality === name ? "" : name)}>
            {name}
          </button>
        ))}
      </div>
      <div className="families">
        {families.map((family) => {
          const parts = found.filter((info) => info.family === family).sort((a, b) => a.type.localeCompare(b.type));
          if (parts.length === 0) return null;
          return (
            <section key={family} aria-label={familyTitle(family)}>
              <h3>
                <Icon name={family} size={14} /> {familyTitle(family)}
              </h3>
              {parts.map((info) => (
                <PaletteItem key={info.type} info={info} />
              ))}
            </section>
          );
        })}
        {found.length === 0 && <p className="hint">No part is called so.</p>}
      </div>
      <Legend />
    </nav>
  );
}

function PaletteItem({ info }: { info: PartInfo }): ReactNode {
  const flow = useReactFlow();
  const drag = useRef<{ start: Point; ghost: HTMLElement | null } | null>(null);
  const element = useRef<HTMLButtonElement>(null);
  const add = (): void => {
    const editor = element.current!.closest<HTMLElement>(".editor")!;
    if (info.role === "adapter") attachToSelected(info);
    else addNode(info, freeSpot(viewCentre(flow, editor).flow));
  };
  const move = (event: PointerEvent): void => {
    if (!drag.current) return;
    const [x, y] = drag.current.start;
    if (!drag.current.ghost && Math.hypot(event.clientX - x, event.clientY - y) > 6) drag.current.ghost = ghostOf(element.current!);
    const { ghost } = drag.current;
    if (ghost) ghost.style.transform = `translate(${event.clientX + 8}px, ${event.clientY + 8}px)`;
  };
  const drop = (event: PointerEvent): void => {
    const { ghost = null } = drag.current ?? {};
    drag.current = null;
    ghost?.remove();
    if (!ghost) return;
    const target = under(element.current!.getRootNode(), [event.clientX, event.clientY]);
    if (!target?.closest(".canvas")) return;
    dropPart(info, target, flow.screenToFlowPosition({ x: event.clientX, y: event.clientY }));
  };
  return (
    <button
      ref={element}
      type="button"
      className={`item ${info.family}`}
      data-part={info.type}
      title={info.summary}
      onPointerDown={(event) => {
        if (event.button !== 0) return;
        event.currentTarget.setPointerCapture(event.pointerId);
        drag.current = { start: [event.clientX, event.clientY], ghost: null };
      }}
      onPointerMove={move}
      onPointerUp={drop}
      onPointerCancel={() => {
        drag.current?.ghost?.remove();
        drag.current = null;
      }}
      onDoubleClick={add}
      onKeyDown={(event) => {
        if (event.key !== "Enter") return;
        event.preventDefault();
        add();
      }}
    >
      <PortMark kind={info.gives[0] ?? Object.values(info.ports)[0]?.[0]} />
      <span>
        {shortName(info.type)}
        <small>{info.summary}</small>
      </span>
    </button>
  );
}

function ghostOf(element: HTMLElement): HTMLElement {
  const ghost = element.cloneNode(true) as HTMLElement;
  ghost.classList.add("ghost");
  element.closest(".editor")!.append(ghost);
  return ghost;
}

function dropPart(info: PartInfo, target: Element, at: { x: number; y: number }): void {
  const host = target.closest("[data-node]")?.getAttribute("data-node");
  const edge = target.closest(".react-flow__edge")?.getAttribute("data-id") ?? target.closest("[data-wire]")?.getAttribute("data-wire");
  if (info.role === "adapter") {
    if (host) attach(info, host);
    else store.say("An adapter is dropped on the node that hosts it");
  } else if (edge && Object.keys(info.ports).length > 0) {
    insertOn(edge, info, [at.x - 104, at.y - 30]);
  } else {
    addNode(info, [at.x - 104, at.y - 30]);
  }
}

function attachToSelected(info: PartInfo): void {
  const [host] = store.get().selection.nodes;
  if (host === undefined) store.say("Select the node that is to host the adapter first, or drag the adapter onto it");
  else attach(info, host);
}

/** A spot near `at` where no node stands. */
function freeSpot([x, y]: Point): Point {
  const taken = Object.values(store.doc.graph.layout);
  let spot: Point = [x, y];
  while (taken.some(([a, b]) => Math.abs(a - spot[0]) < 60 && Math.abs(b - spot[1]) < 60)) spot = [spot[0] + 64, spot[1] + 64];
  return spot;
}

function Legend(): ReactNode {
  const catalogue = useStore((state) => state.catalogue);
  const used = new Set(Object.values(catalogue.parts).flatMap((info) => [...info.gives, ...Object.values(info.ports).flat()]));
  return (
    <details className="legend">
      <summary>Kinds of values</summary>
      <ul>
        {Object.keys(catalogue.axes)
          .filter((kind) => used.has(kind) && kind in KINDS)
          .map((kind) => (
            <li key={kind}>
              <PortMark kind={kind} /> {kind} <code>[{catalogue.axes[kind]!.map((axis) => axis.replace("batch", "B")).join(", ")}]</code>
            </li>
          ))}
      </ul>
    </details>
  );
}
