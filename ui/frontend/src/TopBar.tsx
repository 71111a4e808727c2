/** The bar above: name, save, history, tools, and the totals against the GPU that the user names. */
import { type ReactNode, useEffect, useState } from "react";
import { groupSelected, tidyUp } from "./gestures";
import { bytes, count, LABELS } from "./format";
import { Icon } from "./Icon";
import { store, useStore } from "./store";

/** Memory that the maker states, in GiB. */
const GPUS: Record<string, number> = {
  "RTX 3060 12 GB": 12,
  "T4 16 GB": 16,
  "RTX 4090 24 GB": 24,
  "L4 24 GB": 24,
  "RTX 5090 32 GB": 32,
  "A100 40 GB": 40,
  "L40S 48 GB": 48,
  "A100 80 GB": 80,
  "H100 80 GB": 80,
  "H200 141 GB": 141,
};

export function save(): void {
  if (store.get().place.writable) store.request("save", {}, () => undefined);
  else saveAs();
}

function saveAs(): void {
  store.set({ dialog: "save" });
}

function discard(): void {
  store.request("discard", {}, (answer) => {
    if (!answer.doc) return;
    store.act({ do: "replace", doc: answer.doc }, "Went back to the saved file");
    store.set({ positions: {}, opened: store.get().opened + 1 });
  });
}

export function TopBar(): ReactNode {
  const place = useStore((state) => state.place);
  const past = useStore((state) => state.history.past.at(-1)?.title);
  const future = useStore((state) => state.history.future[0]?.title);
  return (
    <div className="bar" role="toolbar" aria-label="Editor">
      <ModelName />
      <span className={`dirty${place.dirty ? " yes" : ""}`} title={place.path ?? "not saved as a file yet"}>
        {place.path === null ? "draft" : place.dirty ? "edited" : "saved"}
      </span>
      <Tool icon="save" label="Save" keys="Ctrl+S" onClick={save} />
      {place.path !== null && <Tool icon="copy" label="Save as" onClick={saveAs} />}
      {place.path !== null && place.dirty && <Tool icon="close" label="Back to the saved file" onClick={discard} />}
      <i className="gap" />
      <Tool icon="undo" label={past ? `Undo: ${past}` : "Undo"} keys="Ctrl+Z" onClick={store.undo} disabled={!past} />
      <Tool icon="redo" label={future ? `Redo: ${future}` : "Redo"} keys="Ctrl+Y" onClick={store.redo} disabled={!future} />
      <i className="gap" />
      <Tool icon="tidy" label="Tidy" keys="T" onClick={tidyUp} />
      <Tool icon="group" label="Group" keys="G" onClick={groupSelected} />
      <Tool icon="search" label="Search in the graph" keys="Ctrl+F" onClick={() => store.set({ dialog: "search" })} />
      <WireLabels />
      <Tool icon="terminal" label="Command lines" onClick={() => store.set({ dialog: "commands" })} />
      <Tool icon="keys" label="Shortcuts" keys="?" onClick={() => store.set({ dialog: "shortcuts" })} />
      <Conflict />
      <RunNow />
      <Totals />
    </div>
  );
}

interface ToolProps {
  icon: string;
  label: string;
  keys?: string;
  disabled?: boolean;
  onClick: () => void;
}

function Tool({ icon, label, keys, disabled = false, onClick }: ToolProps): ReactNode {
  return (
    <button type="button" className="tool" aria-label={label} title={keys ? `${label} (${keys})` : label} disabled={disabled} onClick={onClick}>
      <Icon name={icon} />
    </button>
  );
}

const LABEL_WORDS = { shape: "shapes", dtype: "shapes and number formats", bytes: "bytes a sample", none: "nothing" };

/** The next thing that the wires say: shapes, number formats, bytes, nothing. */
export function nextLabel(): void {
  const label = LABELS[(LABELS.indexOf(store.get().label) + 1) % LABELS.length]!;
  localStorage.setItem("assembler:label", label);
  store.set({ label });
  store.say(`Wires show ${LABEL_WORDS[label]}`);
}

function WireLabels(): ReactNode {
  const label = useStore((state) => state.label);
  return <Tool icon="ruler" label={`Wires show ${LABEL_WORDS[label]}`} keys="L" onClick={nextLabel} />;
}

/** The newest run of this spec, which the browser may have missed the beginning of. */
function RunNow(): ReactNode {
  const run = useStore((state) => state.feed?.run ?? null);
  if (run === null) return null;
  const loss = run.loss === null ? "" : `, loss ${run.loss.toPrecision(3)}`;
  const far = run.state === "running" ? `step ${run.step} of ${run.steps}` : run.state;
  return (
    <a className={`run-now ${run.state.replace(" ", "-")}`} href={`train?run=${encodeURIComponent(run.name)}`} target="_self" title={`${run.name}: ${run.state}, step ${run.step} of ${run.steps}${loss}`}>
      <span>{run.name}</span> {far}
    </a>
  );
}

function ModelName(): ReactNode {
  const name = useStore((state) => state.history.doc.graph.name);
  const [text, setText] = useState(name);
  useEffect(() => setText(name), [name]);
  const finish = (): void => {
    if (text !== name) store.act({ do: "section", key: "name", value: text }, `Named the model ${text}`);
  };
  return (
    <input
      className="model-name"
      aria-label="Name of the model"
      value={text}
      size={Math.max(text.length, 6)}
      onChange={(event) => setText(event.target.value)}
      onBlur={finish}
      onKeyDown={(event) => event.key === "Enter" && event.currentTarget.blur()}
    />
  );
}

function Conflict(): ReactNode {
  const conflict = useStore((state) => state.conflict);
  if (!conflict) return null;
  return (
    <div className="conflict" role="alert">
      Another tab changed this model.
      <button type="button" onClick={store.keepMine}>
        Keep mine
      </button>
      <button type="button" onClick={store.takeTheirs}>
        Take theirs
      </button>
    </div>
  );
}

function Totals(): ReactNode {
  const costs = useStore((state) => state.feed?.costs ?? null);
  const [gpu, setGpu] = useState(() => localStorage.getItem("assembler:gpu") ?? "RTX 4090 24 GB");
  const [own, setOwn] = useState(() => Number(localStorage.getItem("assembler:gpu-memory") ?? 24));
  const memory = (GPUS[gpu] ?? own) * 2 ** 30;
  const peaks = Object.entries(costs?.stages ?? {}).map(([name, stage]) => [name, stage.memory_bytes] as const);
  const serving = costs?.serving?.weights_bytes;
  const [stage, peak] = peaks.reduce<readonly [string, number]>((most, item) => (item[1] > most[1] ? item : most), ["serving", serving ?? 0]);
  const share = peak / memory;
  return (
    <div className="totals">
      {costs?.state === "counting" && <span className="counting">counting…</span>}
      {costs?.state === "failed" && (
        <span className="counting" title={costs.why}>
          no forecast yet
        </span>
      )}
      {costs !== null && costs.total > 0 && (
        <span title={`${costs.total.toLocaleString("en")} parameters, of which ${costs.trainable.toLocaleString("en")} are trained`}>
          <b>{count(costs.total)}</b> parameters, <b>{costs.total ? ((100 * costs.trainable) / costs.total).toPrecision(2) : 0} %</b> trained
        </span>
      )}
      {peak > 0 && (
        <span className={share > 1 ? "meter over" : "meter"} title={`Forecast of the peak in ${stage}: ${bytes(peak)}, of ${bytes(memory)}. Beside it the driver and torch take about 1 GiB.`}>
          <progress value={Math.min(share, 1)} max={1} aria-label={`memory of ${stage}`} />
          {bytes(peak)} {share > 1 ? "does not fit" : "of"}
        </span>
      )}
      <select
        aria-label="GPU"
        value={gpu}
        onChange={(event) => {
          localStorage.setItem("assembler:gpu", event.target.value);
          setGpu(event.target.value);
        }}
      >
        {Object.keys(GPUS).map((name) => (
          <option key={name}>{name}</option>
        ))}
        <option>other</option>
      </select>
      {!(gpu in GPUS) && (
        <input
          type="number"
          aria-label="Memory of the GPU in GiB"
          min={1}
          value={own}
          onChange={(event) => {
            localStorage.setItem("assembler:gpu-memory", event.target.value);
            setOwn(Number(event.target.value));
          }}
        />
      )}
    </div>
  );
}
