/** The menu that adds a part: by keyboard, by double-click, or where a wire was dropped, with only what fits there. */
import { type ReactNode, useEffect, useMemo, useRef, useState } from "react";
import { attach, addConnected, addNode, insertOn, swapPart } from "./gestures";
import type { PartInfo } from "./messages";
import { search, shortName } from "./parts";
import { PortMark } from "./PartNode";
import { fitsAfter, fitsBefore, givesOf, infoOf, portsOf } from "./rules";
import { type Menu, store, useStore } from "./store";

export function QuickAdd(): ReactNode {
  const menu = useStore((state) => state.menu);
  return menu && <Search key={`${menu.screen}`} menu={menu} />;
}

/** The parts that may stand at the menu's place, and what that place is, in words. */
function choices(menu: Menu): { only: Set<string> | undefined; title: string } {
  const { known } = store;
  if (menu.swap) {
    const family = infoOf(known, menu.swap)?.family;
    const same = Object.values(known.catalogue.parts).filter((info) => info.family === family && info.role === "node");
    return { only: new Set(same.map((info) => info.type)), title: `Swap the part of ${menu.swap}` };
  }
  if (menu.to) {
    const kinds = portsOf(known, menu.to.node)[menu.to.port] ?? [];
    return { only: fitsBefore(known, menu.to.node, menu.to.port), title: `Gives ${kinds.join(" or ")} to ${menu.to.node}` };
  }
  if (menu.edge) {
    const source = menu.edge.split(" -> ")[0] ?? "";
    return { only: new Set(fitsAfter(known, source).keys()), title: `Insert on ${menu.edge}` };
  }
  if (menu.from) {
    const fits = new Set(fitsAfter(known, menu.from).keys());
    for (const info of Object.values(known.catalogue.parts)) if (info.role === "adapter") fits.add(info.type);
    return { only: fits, title: `Takes ${givesOf(known, menu.from).join(" or ")} of ${menu.from}` };
  }
  const nodes = Object.values(known.catalogue.parts).filter((info) => info.role === "node");
  return { only: new Set(nodes.map((info) => info.type)), title: "Add a part" };
}

function choose(menu: Menu, info: PartInfo): void {
  store.set({ menu: null });
  if (menu.swap) swapPart(menu.swap, info);
  else if (menu.edge) insertOn(menu.edge, info, menu.flow);
  else if (info.role === "adapter" && menu.from) attach(info, menu.from);
  else if (menu.from || menu.to) addConnected(info, menu.flow, menu);
  else addNode(info, menu.flow);
}

function Search({ menu }: { menu: Menu }): ReactNode {
  const catalogue = useStore((state) => state.catalogue);
  const recent = useStore((state) => state.recent);
  const [query, setQuery] = useState("");
  const [at, setAt] = useState(0);
  const input = useRef<HTMLInputElement>(null);
  const box = useRef<HTMLDivElement>(null);
  const { only, title } = useMemo(() => choices(menu), [menu]);
  const found = useMemo(() => search(catalogue, query, recent, only).slice(0, 60), [catalogue, query, recent, only]);
  useEffect(() => input.current?.focus(), []);
  useEffect(() => {
    box.current?.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: "nearest" });
  }, [at]);
  const close = (): void => {
    const editor = input.current?.closest<HTMLElement>(".editor");
    store.set({ menu: null });
    editor?.focus();
  };
  const pick = (info: PartInfo | undefined): void => {
    if (!info) return;
    const editor = input.current?.closest<HTMLElement>(".editor");
    choose(menu, info);
    editor?.focus();
  };
  const onKey = (event: React.KeyboardEvent): void => {
    const keys: Record<string, () => void> = {
      ArrowDown: () => setAt(Math.min(at + 1, found.length - 1)),
      ArrowUp: () => setAt(Math.max(at - 1, 0)),
      Enter: () => pick(found[at]),
      Escape: close,
      Tab: close,
    };
    const action = keys[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  };
  return (
    <div className="quick" ref={box} style={placeOf(menu)} onBlur={(event) => !event.currentTarget.contains(event.relatedTarget) && store.set({ menu: null })}>
      <label htmlFor="quick-search">{title}</label>
      <input
        id="quick-search"
        ref={input}
        role="combobox"
        aria-expanded="true"
        aria-controls="quick-list"
        aria-activedescendant={found[at] ? `quick-${at}` : undefined}
        placeholder="Name, modality or method"
        value={query}
        onChange={(event) => {
          setQuery(event.target.value);
          setAt(0);
        }}
        onKeyDown={onKey}
      />
      <div id="quick-list" role="listbox" aria-label={title} tabIndex={-1}>
        {found.map((info, index) => (
          // The list is driven from the field: its options take no focus of their own.
          <div
            key={info.type}
            id={`quick-${index}`}
            role="option"
            aria-selected={index === at}
            data-part={info.type}
            onPointerMove={() => setAt(index)}
            onPointerDown={(event) => {
              event.preventDefault();
              pick(info);
            }}
          >
            <PortMark kind={info.gives[0]} />
            <span>
              {shortName(info.type)} <em>{info.family}</em>
              <small>{info.summary}</small>
            </span>
          </div>
        ))}
        {found.length === 0 && <p className="hint">Nothing fits here.</p>}
      </div>
    </div>
  );
}

/** Near the pointer, and inside the window. */
function placeOf(menu: Menu): { left: number; top: number } {
  const left = Math.max(8, Math.min(menu.screen[0], window.innerWidth - 340));
  const top = Math.max(8, Math.min(menu.screen[1], window.innerHeight - 380));
  return { left, top };
}
