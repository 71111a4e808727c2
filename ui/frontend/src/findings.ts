/** The check's problems, sorted to the places they are shown at. Computed once for each check. */
import type { Check, Problem } from "./messages";

interface Findings {
  byNode: Map<string, Problem[]>;
  byPort: Map<string, Problem>;
  byEdge: Map<string, Problem>;
}

const known = new WeakMap<Check, Findings>();
const NONE: Findings = { byNode: new Map(), byPort: new Map(), byEdge: new Map() };
const NO_PROBLEMS: Problem[] = [];

export function findings(check: Check | null): Findings {
  if (!check) return NONE;
  const before = known.get(check);
  if (before) return before;
  const found: Findings = { byNode: new Map(), byPort: new Map(), byEdge: new Map() };
  for (const problem of check.problems) {
    for (const operation of problem.fix?.operations ?? []) {
      if (operation.op === "rewire") found.byEdge.set(operation.edge, problem);
    }
    if (problem.node === null) continue;
    found.byNode.set(problem.node, [...(found.byNode.get(problem.node) ?? []), problem]);
    if (problem.port !== null) found.byPort.set(`${problem.node}.${problem.port}`, problem);
  }
  known.set(check, found);
  return found;
}

export function problemsOf(check: Check | null, node: string): Problem[] {
  return findings(check).byNode.get(node) ?? NO_PROBLEMS;
}
