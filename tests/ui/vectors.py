"""What Python decides, as cases that the editor's rules are held to. `python -m tests.ui.vectors` writes them anew."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from assembler import template
from assembler.adapters import blocks
from assembler.anatomy import expanded
from assembler.check import check
from assembler.errors import AssemblerError
from assembler.fixes import apply
from assembler.spec import Document, Spec, parse_edge
from assembler.values import AXES
from components.backbones.causal_lm import CausalLM
from ui.catalogue import catalogue
from ui.editor.messages import Checked

FILE = Path(__file__).resolve().parents[2] / "ui" / "frontend" / "tests" / "vectors.json"
LM = {
    "type": "backbone.causal_lm",
    "arch": "llama",
    "config": {"vocab_size": 300, "hidden_size": 64},
    "prompt": "{photo} {sound} {question} {answer}",
}
GRAPH: dict[str, Any] = {
    "assembler": 1,
    "name": "all",
    "nodes": {
        "photo": {"type": "input.image", "size": [32, 32]},
        "sound": {"type": "input.audio", "seconds": 1},
        "question": {"type": "input.text"},
        "eyes": {"type": "encoder.timm", "model": "test_vit"},
        "bridge": {"type": "projector.linear"},
        "free": {"type": "projector.mlp"},
        "talk": LM,
    },
    "edges": ["photo -> eyes", "eyes -> bridge", "bridge -> talk.photo"],
}
EDGES = [
    "a -> b",
    "a->b.c",
    "  a  ->  b.c_d ",
    "a-b -> c",
    "a -> b.c.d",
    "a => b",
    "-> b",
    "a ->",
    "1a -> b",
    "a -> b\n",
]
PATTERNS = [
    "layers.*.attn.{q,v}", "layers.[0-3].mlp.up", "{embed,final}", "layers.[3-1].attn.q", "a{b", "a}b", "", "a b",
    "[1]", "layers.{0,2}.attn.{q, k}", "x[0-2]y[1-2]",
]  # fmt: skip
BLOCKS = [
    "a", "stack(a, parallel(b, c))", " fuse( a,b , by = mix)", "average(a, b, weights=[1.0, 3.0])", 
    "split(a, b, at=[64])", "nope(a)", "stack(a", "stack(a))", "stack a", "", "a.b", "stack(a, 1)",
]  # fmt: skip
TEMPLATES = ["{photo} what? {answer}", "{answer}", "no slots", "{a}{b} {answer}"]


def problems(raw: dict[str, Any]) -> list[str]:
    """What check says of a spec given as plain data."""
    return [problem.message for problem in check(Spec(Path("spec.yaml"), Document.model_validate(raw), raw)).problems]


def refused(source: str, target: str, port: str) -> bool:
    """Whether the wire is impossible, in check's eyes; a width that a projector mends is not."""
    text = f"{source} -> {target}" + ("" if port == "in" else f".{port}")
    raw = copy.deepcopy(GRAPH)
    before = set(problems(raw))
    raw["edges"].append(text)
    graph = check(Spec(Path("spec.yaml"), Document.model_validate(raw), raw))
    new = [problem for problem in graph.problems if problem.message not in before]
    wire = [p for p in new if p.message.startswith((f"{text}:", "edges:")) and "insert a projector" not in str(p.fix)]
    return bool(wire)


def needed(info: dict[str, Any]) -> dict[str, Any]:
    """What the rules read of a part, without the words about it."""
    fields = [{"key": f["key"], "default": f["default"]} for f in info["fields"] if f["key"] == info["grows"]]
    return {key: info[key] for key in ("type", "family", "role", "ports", "gives", "grows")} | {"fields": fields}


def wires() -> dict[str, Any]:
    """A graph and, for each wire that could be added, whether check refuses it."""
    graph = check(Spec(Path("spec.yaml"), Document.model_validate(GRAPH), GRAPH))
    cases = []
    for source in graph.parts:
        for target, part in graph.parts.items():
            cases += [[source, target, port, refused(source, target, port)] for port in [*part.ports(), "nowhere"]]
    data = Checked("tab", 1, "", graph, graph.problems).as_data()
    used = {str(node["type"]) for node in GRAPH["nodes"].values()}
    known = {name: needed(info) for name, info in catalogue()["parts"].items() if name in used}
    return {"graph": GRAPH, "check": data, "catalogue": {"parts": known, "axes": catalogue()["axes"]}, "cases": cases}


def fixes() -> list[dict[str, Any]]:
    """Graphs with a fix, before and after it."""
    found = []
    wrong = copy.deepcopy(GRAPH)
    wrong["edges"] = ["photo -> eyes", "eyes -> talk.photo", "free -> talk"]
    frozen = copy.deepcopy(GRAPH)
    frozen["nodes"]["bridge"]["freeze"] = True
    frozen["stages"] = [{"name": "s", "train": ["bridge"]}]
    for raw in (wrong, frozen):
        graph = check(Spec(Path("spec.yaml"), Document.model_validate(raw), raw))
        for problem in graph.problems:
            if problem.fix:
                after = copy.deepcopy(raw)
                for operation in problem.fix.operations:
                    apply(after, operation)
                found.append({"before": raw, "operations": list(problem.fix.operations), "after": after})
    return found


def expansion(pattern: str) -> list[str] | None:
    """The patterns that one stands for; None when it is refused."""
    try:
        return expanded(pattern)
    except AssemblerError:
        return None


def composition(text: str) -> str | None:
    """A composition in its plain form; None when it is refused."""
    try:
        return str(blocks.parse(text))
    except AssemblerError:
        return None


def vectors() -> dict[str, Any]:
    """Everything that both sides decide."""
    edges = {text: parse_edge(text) for text in EDGES}
    lm = CausalLM.model_validate({k: v for k, v in LM.items() if k != "type"})
    return {
        "kinds": list(AXES),
        "edges": [[text, edge and [edge.source, edge.target, edge.port]] for text, edge in edges.items()],
        "patterns": [[pattern, expansion(pattern)] for pattern in PATTERNS],
        "blocks": [[text, composition(text)] for text in BLOCKS],
        "templates": [[text, [s for s in template.slots(text) if s != "answer"]] for text in TEMPLATES],
        "grown": [LM["prompt"], "cell", (lm.port_fix("cell") or ("", ""))[1]],
        "fixes": fixes(),
        "wires": wires(),
    }


def text() -> str:
    return json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
