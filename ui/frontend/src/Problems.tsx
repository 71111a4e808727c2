/** Problems: a click goes to the place, a fix is one click. Below, the command line of what was last done. */
import { type ReactNode, useState } from "react";
import { mend } from "./gestures";
import { Icon } from "./Icon";
import type { Problem } from "./messages";
import { store, useStore } from "./store";

export function Problems(): ReactNode {
  const problems = useStore((state) => state.check?.problems);
  const fresh = useStore((state) => state.check !== null && state.check.rev >= state.rev);
  const [open, setOpen] = useState(true);
  const count = problems?.length ?? 0;
  return (
    <section className="problems" aria-label="Problems">
      <div className="problems-head">
        <button type="button" aria-expanded={open} onClick={() => setOpen(!open)} className={count > 0 ? "bad" : "good"}>
          <Icon name={count > 0 ? "warn" : "check"} size={14} />
          {problems === undefined ? "Checking…" : count === 0 ? "No problems" : `${count} problem${count === 1 ? "" : "s"}`}
          {problems !== undefined && !fresh && <small> checking…</small>}
        </button>
        <Command />
      </div>
      {open && count > 0 && (
        <ul>
          {problems!.map((problem, index) => (
            <Row key={index} problem={problem} />
          ))}
        </ul>
      )}
    </section>
  );
}

function hasName(name: string): boolean {
  const { nodes, adapters } = store.doc.graph;
  return name in nodes || name in adapters;
}

function Row({ problem }: { problem: Problem }): ReactNode {
  const go = (): void => {
    if (problem.node !== null && hasName(problem.node)) store.goTo(problem.node);
    else store.set({ side: "yaml" });
  };
  return (
    <li>
      <button type="button" className="go" onClick={go}>
        <small>line {problem.line}</small> {problem.message}
      </button>
      {problem.fix && (
        <button type="button" className="mend" onClick={() => mend(problem)}>
          <Icon name="mend" size={12} /> {problem.fix.title}
        </button>
      )}
    </li>
  );
}

function Command(): ReactNode {
  const command = useStore((state) => state.command);
  if (!command) return null;
  return (
    <div className="command">
      <Icon name="terminal" size={14} />
      <code>{command}</code>
      <button
        type="button"
        title="Copy the command"
        aria-label="Copy the command"
        onClick={() => void navigator.clipboard.writeText(command).then(() => store.say("Copied the command"))}
      >
        <Icon name="copy" size={14} />
      </button>
    </div>
  );
}
