/** How the adapters on a host are composed, edited as a tree of blocks or as text. */
import { type ReactNode, useEffect, useState } from "react";
import { appended, type Block, blocksText, isLeaf, namesIn, OPERATIONS, parseBlocks, replacedAt, stackOf, type Tree } from "./compose";
import { adaptersOn } from "./document";
import { setComposition } from "./gestures";
import { Icon } from "./Icon";
import { infoOf } from "./rules";
import { store, useStore } from "./store";

export function Composition({ host }: { host: string }): ReactNode {
  const names = useStore((state) => adaptersOn(state.history.doc.graph, host).join(" ")).split(" ").filter(Boolean);
  const text = useStore((state) => state.history.doc.graph.compose[host]);
  if (names.length < 2 && text === undefined) return null;
  const tree = text === undefined ? stackOf(names.filter((name) => !isMixer(name))) : parseBlocks(text);
  const idle = names.filter((name) => tree !== null && !namesIn(tree).includes(name));
  const change = (next: Tree | null): void => setComposition(host, next === null ? undefined : blocksText(next));
  return (
    <fieldset className="composition">
      <legend>composition</legend>
      {tree !== null && <Part tree={tree} path={[]} root={tree} change={change} names={names} />}
      {idle.map((name) => (
        <p key={name} className="problem">
          {name} {isMixer(name) ? "combines others; choose it in fuse or route" : "does not run"}
          {tree !== null && !isMixer(name) && (
            <button type="button" className="mend" onClick={() => change(appended(tree, name))}>
              <Icon name="plus" size={12} /> add it
            </button>
          )}
        </p>
      ))}
      <BlockText host={host} text={text ?? (tree === null ? "" : blocksText(tree))} />
    </fieldset>
  );
}

function isMixer(name: string): boolean {
  return infoOf(store.known, name)?.trait === "mixer";
}

interface PartProps {
  tree: Tree;
  path: number[];
  root: Tree;
  names: string[];
  change: (tree: Tree | null) => void;
}

function Part(props: PartProps): ReactNode {
  const { tree, path, root, change } = props;
  if (isLeaf(tree)) return <Row {...props} tree={tree} />;
  return (
    <div className="block">
      <div className="block-head">
        <OperationChoice {...props} tree={tree} />
        {path.length > 0 && (
          <button type="button" className="reset" title="dissolve this block" aria-label={`dissolve ${tree.op}`} onClick={() => change(dissolved(root, path, tree))}>
            <Icon name="close" size={12} />
          </button>
        )}
      </div>
      {tree.children.map((child, index) => (
        <Part key={index} {...props} tree={child} path={[...path, index]} />
      ))}
    </div>
  );
}

function Row({ tree, path, root, change }: PartProps & { tree: { name: string } }): ReactNode {
  const at = path.at(-1);
  const parent = at === undefined ? null : partAt(root, path.slice(0, -1));
  const swap = (by: number): void => {
    if (at === undefined || parent === null || isLeaf(parent)) return;
    const children = [...parent.children];
    const [one] = children.splice(at, 1);
    children.splice(at + by, 0, one!);
    change(replacedAt(root, path.slice(0, -1), { ...parent, children }));
  };
  const last = parent !== null && !isLeaf(parent) ? parent.children.length - 1 : 0;
  return (
    <div className="block-row">
      <button type="button" className="chip" onClick={() => store.select({ adapter: tree.name })}>
        <Icon name="adapter" size={12} /> {tree.name}
      </button>
      <button type="button" aria-label={`${tree.name} earlier`} disabled={!at} onClick={() => swap(-1)}>
        ↑
      </button>
      <button type="button" aria-label={`${tree.name} later`} disabled={at === undefined || at >= last} onClick={() => swap(1)}>
        ↓
      </button>
      <button
        type="button"
        aria-label={`${tree.name} and the next in a block of their own`}
        title="put it and the next into a block of their own"
        disabled={at === undefined || at >= last}
        onClick={() => change(paired(root, path))}
      >
        ⊞
      </button>
    </div>
  );
}

function OperationChoice({ tree, path, root, names, change }: PartProps & { tree: Block }): ReactNode {
  const option = OPERATIONS[tree.op]?.option;
  const mixers = names.filter(isMixer);
  const set = (next: Block): void => change(replacedAt(root, path, next));
  const choose = (op: string): void => {
    const wants = OPERATIONS[op]?.option;
    const steps = tree.children.slice(1).map((_, index) => index + 1);
    const options: Record<string, string> = wants === "at" ? { at: `[${steps.join(", ")}]` } : wants === "by" ? { by: mixers[0] ?? "mix" } : {};
    set({ ...tree, op, options });
  };
  return (
    <>
      <select aria-label="operation" title={OPERATIONS[tree.op]?.about} value={tree.op} onChange={(event) => choose(event.target.value)}>
        {Object.keys(OPERATIONS).map((op) => (
          <option key={op}>{op}</option>
        ))}
      </select>
      {option === "by" && (
        <select aria-label="combined by" value={tree.options.by ?? ""} onChange={(event) => set({ ...tree, options: { by: event.target.value } })}>
          {[...new Set([tree.options.by ?? "", ...mixers])].map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      )}
      {(option === "at" || option === "weights") && (
        <OptionText
          key={tree.options[option]}
          label={option}
          value={tree.options[option] ?? ""}
          onChange={(value) => set({ ...tree, options: value === "" ? {} : { [option]: value } })}
        />
      )}
    </>
  );
}

function OptionText({ label, value, onChange }: { label: string; value: string; onChange: (value: string) => void }): ReactNode {
  const [text, setText] = useState(value);
  const finish = (): void => {
    if (text !== value) onChange(text);
  };
  return (
    <input
      aria-label={label}
      placeholder={label === "weights" ? "[1, 1]" : "[64]"}
      value={text}
      onChange={(event) => setText(event.target.value)}
      onBlur={finish}
      onKeyDown={(event) => event.key === "Enter" && finish()}
    />
  );
}

function BlockText({ host, text }: { host: string; text: string }): ReactNode {
  const [typed, setTyped] = useState(text);
  useEffect(() => setTyped(text), [text]);
  const finish = (): void => {
    if (typed !== text) setComposition(host, typed.trim() === "" ? undefined : typed);
  };
  return (
    <input
      className="block-text"
      aria-label="composition as text"
      value={typed}
      onChange={(event) => setTyped(event.target.value)}
      onBlur={finish}
      onKeyDown={(event) => event.key === "Enter" && finish()}
    />
  );
}

function partAt(tree: Tree, path: number[]): Tree | null {
  return path.reduce<Tree | null>((found, index) => (found === null || isLeaf(found) ? null : (found.children[index] ?? null)), tree);
}

/** The adapter at a path and the one after it, side by side in a block of their own. */
function paired(root: Tree, path: number[]): Tree | null {
  const above = path.slice(0, -1);
  const parent = partAt(root, above);
  const at = path.at(-1) ?? 0;
  if (parent === null || isLeaf(parent)) return root;
  const pair: Block = { op: "parallel", children: parent.children.slice(at, at + 2), options: {} };
  if (parent.children.length === 2) return replacedAt(root, above, pair);
  const children = [...parent.children.slice(0, at), pair, ...parent.children.slice(at + 2)];
  return replacedAt(root, above, { ...parent, children });
}

/** A block's members in the block above it. */
function dissolved(root: Tree, path: number[], block: Block): Tree | null {
  const above = path.slice(0, -1);
  const parent = partAt(root, above);
  const at = path.at(-1) ?? 0;
  if (parent === null || isLeaf(parent)) return root;
  const children = [...parent.children.slice(0, at), ...block.children, ...parent.children.slice(at + 1)];
  return replacedAt(root, above, { ...parent, children });
}
