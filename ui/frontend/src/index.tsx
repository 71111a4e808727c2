/** The component's entry: Streamlit calls the default export with the same element whenever the data changes. */
import { createRoot, type Root } from "react-dom/client";
import { App } from "./App";
import type { Catalogue, Feed, Received } from "./messages";
import { store } from "./store";
import styles from "./styles.css?inline";
import flowStyles from "@xyflow/react/dist/style.css?inline";

interface Mount {
  data: Received | Feed | ({ role: "catalogue" } & Catalogue);
  parentElement: HTMLElement | ShadowRoot;
  setStateValue: (name: string, value: unknown) => void;
}

interface Mounted {
  root: Root;
  generation: number;
}

const mounted = new WeakMap<Node, Mounted>();

export default function mount({ data, parentElement, setStateValue }: Mount): (() => void) | undefined {
  if (data.role === "catalogue") store.receiveCatalogue(data);
  if (data.role === "feed") store.receiveFeed(data);
  if (data.role !== "editor") return undefined;
  store.send = (message) => setStateValue("graph", message);
  const known = mounted.get(parentElement) ?? begin(parentElement);
  known.generation += 1;
  const { generation } = known;
  store.receive(data);
  return () => {
    // A newer call has the element already: only the last one's cleanup is the end.
    if (known.generation !== generation) return;
    mounted.delete(parentElement);
    store.send = null;
    setTimeout(() => known.root.unmount());
  };
}

function begin(parent: HTMLElement | ShadowRoot): Mounted {
  const host = document.createElement("div");
  host.className = "assembler-editor";
  const style = document.createElement("style");
  style.textContent = `${flowStyles}\n${styles}`;
  parent.replaceChildren(style, host);
  holdKeys(host);
  const found = { root: createRoot(host), generation: 0 };
  found.root.render(<App />);
  mounted.set(parent, found);
  return found;
}

/** Streamlit reruns on `r` and opens a dialog on `c`: bare letters stay in the editor, all other keys pass. */
function holdKeys(host: HTMLElement): void {
  for (const type of ["keydown", "keyup", "keypress"] as const) {
    host.addEventListener(type, (event) => {
      if (/^[a-z]$/i.test(event.key) && !event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
    });
  }
}
