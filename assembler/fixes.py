"""Fixes: the patches that problems offer, applied to a spec."""

from __future__ import annotations

from typing import Any

from assembler.check import check
from assembler.spec import Spec, parse, parse_edge, plain


def apply_fixes(spec: Spec) -> tuple[Spec, list[str]]:
    """Apply one fix after another until none is left: the mended spec, not saved, and the titles of what was done."""
    done: list[str] = []
    for _ in range(1000):
        fix = next((problem.fix for problem in check(spec).problems if problem.fix), None)
        if fix is None or (len(done) > 1 and done[-1] == done[-2] == fix.title):
            break
        for operation in fix.operations:
            apply(spec.tree, operation)
        done.append(fix.title)
        spec = parse(spec.dump(), spec.path)
    return spec, done


def apply(tree: Any, operation: dict[str, Any]) -> None:
    """Carry out one operation of a fix on a spec's tree."""
    if operation["op"] == "set":
        *parents, last = operation["path"]
        for key in parents:
            tree = tree.setdefault(key, {}) if isinstance(tree, dict) else tree[key]
        tree[last] = operation["value"]
        return
    edges = tree["edges"]
    index = next(i for i, text in enumerate(edges) if str(parse_edge(plain(text))) == operation["edge"])
    edges[index : index + 1] = operation["edges"]
