/** The prompt template: slots as pills in the text, and the filled prompt with its tokens below. */
import { type ReactNode, useEffect, useRef, useState } from "react";
import type { Json } from "./document";
import type { Field, PromptPiece } from "./messages";
import { feederOf, slotsOf } from "./rules";
import { store, useStore } from "./store";

interface Props {
  node: string;
  field: Field;
  value: Json | undefined;
  onChange: (value: Json | undefined) => void;
}

export function PromptEditor({ node, field, value, onChange }: Props): ReactNode {
  const current = String(value ?? field.default ?? "");
  const [text, setText] = useState(current);
  const area = useRef<HTMLTextAreaElement>(null);
  useEffect(() => setText(current), [current]);
  const finish = (): void => {
    if (text !== current) onChange(text);
  };
  const insert = (slot: string): void => {
    const at = area.current?.selectionStart ?? text.length;
    const next = `${text.slice(0, at)}{${slot}}${text.slice(at)}`;
    setText(next);
    onChange(next);
  };
  const offered = useStore((state) => Object.keys(state.history.doc.graph.nodes).join(" "));
  const missing = [...offered.split(" ").filter((name) => isInput(name)), "question", "answer"];
  const used = new Set([...slotsOf(text), ...(text.includes("{answer}") ? ["answer"] : [])]);
  return (
    <div className="field prompt set">
      <label htmlFor={`${node}-prompt`} title={field.about}>
        {field.key}
      </label>
      <div className="template">
        <div className="pills" aria-hidden="true">
          {pieces(text).map((piece, index) =>
            piece.slot === null ? (
              <span key={index}>{piece.text}</span>
            ) : (
              <mark key={index} className={kindOf(node, piece.slot)}>
                {piece.text}
              </mark>
            ),
          )}
          {"\n"}
        </div>
        <textarea
          id={`${node}-prompt`}
          ref={area}
          value={text}
          rows={Math.max(3, text.split("\n").length)}
          onChange={(event) => setText(event.target.value)}
          onBlur={finish}
          onKeyDown={(event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) finish();
          }}
        />
      </div>
      <div className="offer">
        {[...new Set(missing)]
          .filter((slot) => !used.has(slot))
          .map((slot) => (
            <button key={slot} type="button" onMouseDown={(event) => event.preventDefault()} onClick={() => insert(slot)}>
              + {`{${slot}}`}
            </button>
          ))}
      </div>
      <Preview node={node} />
      {field.about && <small>{field.about}</small>}
    </div>
  );
}

function isInput(node: string): boolean {
  const raw = store.doc.graph.nodes[node];
  return typeof raw === "object" && raw !== null && !Array.isArray(raw) && String(raw.type).startsWith("input.");
}

function kindOf(node: string, slot: string): string {
  if (slot === "answer") return "answer";
  return feederOf(store.known, node, slot) === null ? "data" : "wire";
}

function pieces(text: string): { text: string; slot: string | null }[] {
  return text.split(/(\{[A-Za-z_]\w*\})/).map((piece) => {
    const slot = /^\{(\w+)\}$/.exec(piece)?.[1] ?? null;
    return { text: piece, slot };
  });
}

/** The prompt as the model gets it, from Python: chat form, tokens a slot, words of a sample where there is data. */
function Preview({ node }: { node: string }): ReactNode {
  const found = useStore((state) => state.feed?.costs?.prompts[node]);
  if (!found) return null;
  const total = found.reduce((sum, piece) => sum + (piece.tokens ?? 0), 0);
  const open = found.some((piece) => piece.tokens === null);
  return (
    <figure className="preview">
      <figcaption>
        as the model gets it: {total} tokens{open ? " and those that are not known yet" : ""}
      </figcaption>
      <p>
        {found.map((piece, index) => (
          <Piece key={index} piece={piece} />
        ))}
      </p>
    </figure>
  );
}

function Piece({ piece }: { piece: PromptPiece }): ReactNode {
  const tokens = piece.tokens === null ? "?" : String(piece.tokens);
  if (piece.slot === null) return <span title={`${tokens} tokens`}>{piece.text}</span>;
  const kind = piece.slot === "answer" ? "answer" : piece.source;
  return (
    <mark className={kind} title={`${tokens} tokens`}>
      {piece.source === "wire" ? piece.slot : piece.text || piece.slot} <b>{tokens}</b>
    </mark>
  );
}
