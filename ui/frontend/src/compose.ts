/** How several adapters on one host are composed: `stack(a, parallel(b, c))`, as `assembler.adapters.blocks` reads it. */

export interface Leaf {
  name: string;
}

export interface Block {
  op: string;
  children: Tree[];
  options: Record<string, string>;
}

export type Tree = Leaf | Block;

/** What each operation does, and the option it takes. */
export const OPERATIONS: Record<string, { about: string; option?: "weights" | "at" | "by" }> = {
  stack: { about: "one after the other" },
  parallel: { about: "side by side, their changes added" },
  average: { about: "the weighted mean of their changes", option: "weights" },
  split: { about: "each has its stretch of the tokens", option: "at" },
  batch_split: { about: "each has its rows of the batch", option: "at" },
  fuse: { about: "a fusion combines what they give", option: "by" },
  route: { about: "a router weighs them for each token", option: "by" },
};

export function isLeaf(tree: Tree): tree is Leaf {
  return "name" in tree;
}

export function stackOf(names: string[]): Tree {
  return { op: "stack", children: names.map((name) => ({ name })), options: {} };
}

const TOKEN = /\s*([A-Za-z_]\w*|[(),=]|\[[^\]]*\])/y;

/** The blocks of a text; null when it is none. */
export function parseBlocks(text: string): Tree | null {
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  const trimmed = text.trim();
  while (TOKEN.lastIndex < trimmed.length) {
    const found = TOKEN.exec(trimmed);
    if (!found) return null;
    tokens.push(found[1]!);
  }
  let at = 0;
  const isName = (token: string | undefined): token is string => token !== undefined && /^[A-Za-z_]/.test(token);
  const read = (depth: number): Tree | null => {
    const name = tokens[at];
    if (!isName(name) || depth > 30) return null;
    at += 1;
    if (tokens[at] !== "(") return { name };
    if (!(name in OPERATIONS)) return null;
    const block: Block = { op: name, children: [], options: {} };
    do {
      at += 1;
      if (tokens[at] === ")") break;
      const key = tokens[at];
      if (isName(key) && tokens[at + 1] === "=") {
        const value = tokens[at + 2];
        if (value === undefined) return null;
        block.options[key] = value;
        at += 3;
      } else {
        const child = read(depth + 1);
        if (child === null) return null;
        block.children.push(child);
      }
    } while (tokens[at] === ",");
    if (tokens[at] !== ")") return null;
    at += 1;
    return block;
  };
  const tree = read(0);
  return at === tokens.length ? tree : null;
}

export function blocksText(tree: Tree): string {
  if (isLeaf(tree)) return tree.name;
  const options = Object.entries(tree.options).map(([key, value]) => `${key}=${value}`);
  return `${tree.op}(${[...tree.children.map(blocksText), ...options].join(", ")})`;
}

/** The adapters in it, those that combine others too. */
export function namesIn(tree: Tree): string[] {
  if (isLeaf(tree)) return [tree.name];
  return [...tree.children.flatMap(namesIn), ...(tree.options.by === undefined ? [] : [tree.options.by])];
}

/** The tree under new names; null for a name takes the adapter out, and blocks that are left empty with it. */
export function renamedIn(tree: Tree, change: (name: string) => string | null): Tree | null {
  if (isLeaf(tree)) {
    const name = change(tree.name);
    return name === null ? null : { name };
  }
  const children = tree.children.map((child) => renamedIn(child, change));
  const kept = children.filter((child): child is Tree => child !== null);
  const by = tree.options.by === undefined ? undefined : change(tree.options.by);
  if (kept.length === 0) return null;
  if (by === null || kept.length !== tree.children.length) {
    // Weights and positions are for as many as there were; a block of one is that one.
    return kept.length === 1 ? kept[0]! : { op: by === null || tree.op === "stack" ? "stack" : withoutCounts(tree), children: kept, options: byOnly(by) };
  }
  return { ...tree, children: kept, options: by === undefined ? tree.options : { ...tree.options, by } };
}

function withoutCounts(block: Block): string {
  return "at" in block.options ? "parallel" : block.op;
}

function byOnly(by: string | null | undefined): Record<string, string> {
  return typeof by === "string" ? { by } : {};
}

/** A new adapter after all others. */
export function appended(tree: Tree, name: string): Tree {
  if (!isLeaf(tree) && tree.op === "stack") return { ...tree, children: [...tree.children, { name }] };
  return { op: "stack", children: [tree, { name }], options: {} };
}

/** The tree with the part at a path (indices of children) replaced; null takes it out. */
export function replacedAt(tree: Tree, path: number[], value: Tree | null): Tree | null {
  const [index, ...rest] = path;
  if (index === undefined) return value;
  if (isLeaf(tree)) return tree;
  const children = tree.children.flatMap((child, i) => {
    if (i !== index) return [child];
    const found = replacedAt(child, rest, value);
    return found === null ? [] : [found];
  });
  return children.length === 0 ? null : { ...tree, children };
}
