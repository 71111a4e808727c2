"""A classifier's likeliest classes reach an LLM as its own words."""

from pathlib import Path

import pytest
import torch
from timm.data import ImageNetInfo

from assembler.check import check
from assembler.compile import compile_graph
from assembler.spec import parse

SPEC = """
assembler: 1
nodes:
  photo: {{type: input.image, size: [32, 32]}}
  eyes: {{type: encoder.timm, model: test_efficientnet, output: logits{classes}}}
  bridge: {{type: projector.conse, top: 2{more}}}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {{vocab_size: 300, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 1, num_attention_heads: 4}}
    prompt: "{{photo}} {{answer}}"
edges: [photo -> eyes, eyes -> bridge, bridge -> talk.photo]
"""


def graph_of(folder=".", classes="", more=""):
    return check(parse(SPEC.format(classes=classes, more=more), Path(folder) / "spec.yaml"))


def spelled(graph, assembly, name):
    """The mean of the LLM's embeddings of a name's bytes, with the space before it."""
    ids = graph.parts["talk"].load_tokenizer(graph.base)(f" {name}", add_special_tokens=False)["input_ids"]
    return assembly.nodes["talk"].lm.get_input_embeddings().weight[torch.tensor(ids)].mean(0)


def test_its_tokens_are_the_names_of_the_likeliest_classes():
    graph = graph_of()
    assembly = compile_graph(graph)
    logits = torch.zeros(1, 1000)
    logits[0, 1], logits[0, 2] = 2, 3
    first = spelled(graph, assembly, "great white shark")
    second = spelled(graph, assembly, ImageNetInfo().index_to_description(1).split(", ")[0])
    with torch.no_grad():
        torch.testing.assert_close(assembly.nodes["bridge"](logits), torch.stack([first, second])[None])
        mean = compile_graph(graph_of(more=", blend: true")).nodes["bridge"](logits)
        e = torch.e
        torch.testing.assert_close(mean, ((e * first + second) / (e + 1))[None, None])


def test_spelled_they_are_the_last_tokens_of_the_names_and_how_likely_each_is():
    graph = graph_of(more=", spell: 6")
    assembly = compile_graph(graph)
    part, logits = assembly.nodes["bridge"], torch.full((1, 1000), -1e4)
    logits[0, 1], logits[0, 2] = 0, 1
    table = assembly.nodes["talk"].lm.get_input_embeddings().weight
    tokenizer = graph.parts["talk"].load_tokenizer(graph.base)
    first, second = (
        tokenizer(f" {ImageNetInfo().index_to_description(index).split(', ')[0]},", add_special_tokens=False)
        for index in (2, 1)
    )
    with torch.no_grad():
        part.trust.fill_(1.0)
        values, mask = part(logits)
        p = torch.tensor([torch.e, 1.0]) / (torch.e + 1)
        told = zip((first, second), p, strict=True)
        wanted = [table[torch.tensor(ids["input_ids"][-6:])] + share for ids, share in told]
    torch.testing.assert_close(values[mask], torch.cat(wanted))


@pytest.mark.parametrize("knob", ["spell: 3", "least: 0.5"])
def test_blended_classes_are_neither_spelled_nor_left_out(knob):
    assert "give one of the two" in graph_of(more=f", blend: true, {knob}").problems[0].message


@pytest.mark.parametrize("spell", ["", ", spell: 6"])
def test_classes_that_are_not_likely_are_not_told(spell):
    part = compile_graph(graph_of(more=f", least: 0.4{spell}")).nodes["bridge"]
    logits = torch.full((3, 1000), -1e4)
    logits[0, 1], logits[1, 1:3], logits[2, 1:4] = 0, 0, 0  # one class, two of 1/2 each, three of 1/3
    with torch.no_grad():
        values, mask = part(logits)
        one, two = part(logits[:1])
    each = int(two[0].sum()) if spell else 1
    assert each <= mask[1].sum() <= 12 and mask[0].sum() == each and not mask[2].any()
    assert torch.equal(values[0, :each], one[0, :each])


def test_a_file_gives_the_names_of_other_classes(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ngreen parrot\nfire\n", encoding="utf-8")
    graph = graph_of(tmp_path, ", classes: 3", ', names: "file:names.txt"')
    assembly = compile_graph(graph)
    torch.testing.assert_close(assembly.nodes["bridge"].words[1], spelled(graph, assembly, "green parrot"))


@pytest.mark.parametrize(
    ("classes", "more", "sentence"),
    [
        (", classes: 7", "", "give `names`"),
        (", classes: 3", ', names: "file:names.txt"', "has 2 names, and the wire 3 classes"),
        (", classes: 1", ', names: "file:names.txt"', "lower `top`"),
    ],
)
def test_classes_without_a_name_are_refused(classes, more, sentence, tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n", encoding="utf-8")
    assert sentence in graph_of(tmp_path, classes, more).problems[0].message
