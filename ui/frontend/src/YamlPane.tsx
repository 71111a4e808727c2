/** The spec as text beside the canvas, live both ways. What is typed becomes the document once it can be read. */
import { type ReactNode, type UIEvent, useEffect, useMemo, useRef, useState } from "react";
import type { Problem } from "./messages";
import { store, useStore } from "./store";

const PAUSE_MS = 350;

export function YamlPane(): ReactNode {
  const yaml = useStore((state) => (state.check && state.check.rev >= state.rev ? state.check.yaml : null));
  const found = useStore((state) => state.check?.problems);
  const [text, setText] = useState(yaml ?? "");
  const [typed, setTyped] = useState(false);
  const [refused, setRefused] = useState<Problem[]>([]);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const newest = useRef(text);
  useEffect(() => {
    if (yaml !== null && !typed) {
      setText(yaml);
      setRefused([]);
    }
  }, [yaml, typed]);
  const read = (value: string): void => {
    store.request("read", { text: value }, (answer) => {
      if (newest.current !== value) return;
      setRefused(answer.doc ? [] : (answer.problems ?? []));
      if (!answer.doc) return;
      setTyped(false);
      store.act({ do: "replace", doc: answer.doc }, "Edited the YAML");
    });
  };
  const type = (value: string): void => {
    newest.current = value;
    setText(value);
    setTyped(true);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => read(value), PAUSE_MS);
  };
  const problems = refused.length > 0 ? refused : (found ?? []);
  return (
    <div className="yaml">
      <Code text={text} problems={problems} onChange={type} />
      {refused.map((problem, index) => (
        <p key={index} className="refused" role="alert">
          line {problem.line}: {problem.message}
        </p>
      ))}
    </div>
  );
}

interface CodeProps {
  text: string;
  problems: Problem[];
  onChange: (text: string) => void;
}

/** A text field over its own coloured copy; both scroll as one. */
function Code({ text, problems, onChange }: CodeProps): ReactNode {
  const back = useRef<HTMLPreElement>(null);
  const lines = useMemo(() => text.split("\n"), [text]);
  const marked = useMemo(() => new Map(problems.map((problem) => [problem.line, problem.message])), [problems]);
  const scroll = (event: UIEvent<HTMLTextAreaElement>): void => {
    if (!back.current) return;
    back.current.scrollTop = event.currentTarget.scrollTop;
    back.current.scrollLeft = event.currentTarget.scrollLeft;
  };
  return (
    <div className="code">
      <pre ref={back} aria-hidden="true">
        {lines.map((line, index) => (
          <div key={index} className={marked.has(index + 1) ? "line wrong" : "line"} title={marked.get(index + 1)}>
            {coloured(line)}
            {"\n"}
          </div>
        ))}
      </pre>
      <textarea aria-label="The spec as YAML" value={text} spellCheck={false} wrap="off" onScroll={scroll} onChange={(event) => onChange(event.target.value)} />
    </div>
  );
}

const TOKENS = /(#.*$)|("(?:[^"\\]|\\.)*"|'[^']*')|^(\s*(?:- )?)([\w.-]+)(?=:)|([\w.-]+)(?=:\s)|(->)|\b(true|false|null|-?\d[\d.e+-]*)\b/g;

/** One line with its comments, strings, keys and numbers told apart; always as text. */
function coloured(line: string): ReactNode[] {
  const out: ReactNode[] = [];
  let last = 0;
  for (const found of line.matchAll(TOKENS)) {
    const [whole, comment, string, lead, key, inner, arrow, word] = found;
    const start = found.index + (lead?.length ?? 0);
    if (start > last) out.push(line.slice(last, start));
    const kind = comment ? "comment" : string ? "string" : (key ?? inner) ? "key" : arrow ? "arrow" : word ? "number" : "";
    out.push(
      <span key={start} className={kind}>
        {line.slice(start, found.index + whole.length)}
      </span>,
    );
    last = found.index + whole.length;
  }
  out.push(line.slice(last));
  return out;
}
