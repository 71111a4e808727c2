"""Drawn triples of encoder, projector and LLM: each is joined, learns a step and exports, or is refused with a reason.

`pytest tests/conformance/test_pairs.py --pairs 100` draws a hundred of them.
"""

import random
from pathlib import Path

import pytest
import torch

from assembler.batches import Batches
from assembler.check import check
from assembler.compile import compile_graph
from assembler.export import export
from assembler.registry import parts
from assembler.spec import Document, Spec
from tests.conformance.rows import row_of

SIZES = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0}
LMS = {arch: SIZES for arch in ("llama", "mistral", "qwen2", "qwen3", "gemma", "phi", "olmo2", "gpt_neox")}
LMS |= {"gpt2": {"vocab_size": 300, "n_embd": 32, "n_layer": 1, "n_head": 2}}


def triples() -> list[tuple[dict, dict, str]]:
    """Every (spec of an encoder as the node `part`, knobs of a projector, architecture), in a fixed random order."""
    found = parts()
    encoders = [tree for name, cls in found.items() if name.startswith("encoder.") for tree, _ in cls.examples()]
    projectors = [
        {**tree["nodes"]["part"], "ports": sorted({e.split("part.")[1] for e in tree["edges"] if "-> part." in e})}
        for name, cls in found.items()
        if name.startswith("projector.")
        for tree, _ in cls.examples()[:1]
    ]
    drawn = [(encoder, projector, lm) for encoder in encoders for projector in projectors for lm in LMS]
    random.Random(0).shuffle(drawn)
    return drawn


def spec_of(encoder: dict, projector: dict, lm: str) -> Spec:
    """The graph encoder -> projector -> LLM; a projector of several ports takes the encoder's tokens on each."""
    knobs = {key: value for key, value in projector.items() if key not in ("width", "ports")}
    talk = {"type": "backbone.causal_lm", "arch": lm, "config": LMS[lm], "prompt": "{seen} {question} {answer}"}
    nodes = {**encoder["nodes"], "bridge": knobs, "talk": {**talk, "max_new_tokens": 3}}
    wires = [f"part -> bridge.{port}" for port in projector["ports"]] or ["part -> bridge"]
    edges = [*encoder.get("edges", []), *wires, "bridge -> talk.seen"]
    tree = {"assembler": 1, "nodes": nodes, "edges": edges}
    return Spec(Path("drawn.yaml").resolve(), Document.model_validate(tree), tree)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    drawn = triples()[: metafunc.config.getoption("--pairs")]
    names = [f"{e['nodes']['part']['type']}-{p['type']}-{lm}".replace("encoder.", "") for e, p, lm in drawn]
    metafunc.parametrize("triple", drawn, ids=names)


def test_a_drawn_triple_learns_and_exports_or_is_refused_with_a_reason(triple, tmp_path):
    spec = spec_of(*triple)
    graph = check(spec)
    if graph.problems:
        for problem in graph.problems:
            assert "bridge" in problem.render("drawn.yaml") and len(problem.message) > 20
        return
    assembly = compile_graph(graph)
    rows = [row_of(graph, seed) for seed in range(3)]
    assembly.train_only(["bridge"] if any(True for _ in assembly.nodes["bridge"].parameters()) else ["talk"])
    before = {key: p.clone() for key, p in assembly.named_parameters()}
    optimizer = torch.optim.SGD([p for p in assembly.parameters() if p.requires_grad], lr=0.1)
    loss = assembly.train()(**Batches(graph)(rows))["loss"]
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    moved = {key for key, p in assembly.named_parameters() if not torch.equal(p, before[key])}
    assert moved and all(assembly.get_parameter(key).requires_grad for key in moved)
    report = export(graph, assembly.eval(), tmp_path / "bundle", "fp32", rows)
    assert report["ok"], report
