"""What was said of the nearest learned samples reaches an LLM as its own words."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from assembler.check import check
from assembler.ragged import Ragged
from assembler.runs import load_run
from assembler.spec import parse, read
from assembler.train import train
from components.projectors._nearest import Nearest
from tests.assembler.test_resume import killed_at

SPEC = """\
assembler: 1
name: near
nodes:
  photo: {{type: input.image, size: [32, 32]}}
  eyes: {{type: encoder.timm, model: test_efficientnet, output: pooled}}
  near: {{type: projector.nearest, top: 2, size: 40, spell: 4}}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {{vocab_size: 300, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 1, num_attention_heads: 4}}
    prompt: "{{photo}} {{answer}}"
edges: [photo -> eyes, eyes -> near, near -> talk.photo]
data: {{type: dataset.digits, columns: {{photo: image, answer: word}}}}
stages:
{stages}
"""
ONE = "  - {name: fill, train: [near], steps: 12, batch: 4, save_every: 3}"


class Table(nn.Module):
    """An LLM that is its embedding table: the row of id i holds i."""

    def __init__(self) -> None:
        super().__init__()
        table = nn.Embedding.from_pretrained(torch.arange(100.0).unsqueeze(1).expand(-1, 3))
        self.lm = nn.Module()
        self.lm.get_input_embeddings = lambda: table


def store(size: int, spell: int = 2, top: int = 2, least: float = -1.0) -> Nearest:
    found = Nearest(5, 3, size, spell, top, least, beta=5.5)
    found.words_of(Table())
    return found.train()


def told(near: Nearest, x: torch.Tensor) -> list[list[int]]:
    """The ids that it tells of each sample."""
    with torch.no_grad():
        out = near.eval()(None, x)
    return [row[mask][:, 0].round().int().tolist() for row, mask in zip(out.values, out.mask, strict=True)]


def samples(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=40)
@given(st.integers(3, 20), st.integers(1, 7), st.integers(0, 99))
def test_it_tells_what_was_said_of_the_learned_samples_of_the_largest_cosines(count, batch, seed):
    near, keys = store(size=32), samples(count, seed)
    said = torch.stack([torch.arange(count), torch.where(torch.arange(count) % 2 == 0, 90, -1)], 1)
    for start in range(0, count, batch):
        near(said[start : start + batch], keys[start : start + batch])
    asked = samples(6, seed + 100)
    nearest = torch.cosine_similarity(asked[:, None], keys[None], dim=-1).topk(2).indices
    assert told(near, asked) == [[i for n in row for i in said[n].tolist() if i >= 0] for row in nearest]
    assert near.count == count


def test_a_sample_that_is_learned_is_told_of_others_only_and_stored_once():
    near, keys = store(size=8), samples(4)
    said = torch.arange(4).unsqueeze(1).expand(-1, 2)
    for _ in range(3):
        out = near(said, keys)
        own = out.values[..., 0].round()
        assert not (out.mask & (own == said[:, :1])).any()
    near(said.repeat(2, 1), keys.repeat(2, 1))
    assert near.count == 4
    assert [row[0] for row in told(near, keys)] == [0, 1, 2, 3]  # and what it has learned it tells


def test_where_fewer_are_stored_than_it_tells_of_there_are_fewer_words():
    near, keys = store(size=3, top=3), samples(3)
    said = torch.arange(3).unsqueeze(1).expand(-1, 2)
    assert near.eval()(None, keys).mask.sum(1).tolist() == [3, 3, 3]  # an empty store tells what was drawn
    assert near.train()(said[:1], keys[:1]).mask.sum() == 0  # there is no other
    assert [len({*row}) for row in told(near, keys)] == [1, 1, 1]
    near.train()(said, keys)
    out = near(said, keys)
    assert [{*row[mask][:, 0].tolist()} for row, mask in zip(out.values.detach(), out.mask, strict=True)] == [
        {1, 2},
        {0, 2},
        {0, 1},
    ]


def test_past_its_size_the_oldest_give_way():
    near, keys = store(size=4, top=1), samples(6)
    said = torch.arange(6).unsqueeze(1).expand(-1, 2)
    near(said[:3], keys[:3])
    near(said[3:], keys[3:])
    answers = [row[0] for row in told(near, keys)]
    assert answers[2:] == [2, 3, 4, 5] and not {0, 1} & set(answers[:2])


def test_the_likeness_stands_on_every_word():
    near, keys = store(size=4, top=1, spell=1), samples(2)
    near(torch.tensor([[7], [9]]), keys)
    with torch.no_grad():
        near.trust.fill_(1.0)
        out = near.eval()(None, 3 * keys[:1])
        other = near(None, samples(1, seed=3))
    torch.testing.assert_close(out.values[0, 0], torch.full((3,), 8.0))  # 7 and exp(0)
    cosine = torch.cosine_similarity(samples(1, seed=3), keys).max()
    torch.testing.assert_close(other.values[0, 0, 0] % 1, (5.5 * (cosine - 1)).exp() % 1)


def test_a_sample_unlike_all_others_has_no_word():
    near, keys = store(size=4, least=0.6), torch.eye(5)[:3]
    near(torch.tensor([[1, 1], [2, 2], [3, 3]]), keys)
    asked = torch.tensor([[1.0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1.4, 0, 0], [0, 0, 0, 1, 1]])
    told_of = [{*row} for row in told(near, asked)]
    assert told_of == [{1}, {1, 2}, {3}, set()]


def test_padding_is_no_part_of_a_sample():
    near, x = store(size=4, top=1), samples(6).reshape(2, 3, 5)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    near(torch.tensor([[1, 1], [2, 2]]), Ragged(x, mask))
    pooled = torch.stack([x[0, :2].mean(0), x[1].mean(0)])
    assert told(near, pooled) == [[1, 1], [2, 2]]


def test_it_stores_while_it_trains_and_a_resumed_run_stores_the_same(tmp_path):
    spec = tmp_path / "near.yaml"
    spec.write_text(SPEC.format(stages=ONE))
    unbroken = train(read(spec), tmp_path / "unbroken")
    killed_at(read(spec), tmp_path / "killed", "fill", 9)
    killed = train(read(spec), tmp_path / "killed", resume=True)
    ours, theirs = load_file(killed.learned("fill")), load_file(unbroken.learned("fill"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs) and ours.keys() == theirs.keys()

    graph, assembly = load_run(tmp_path / "unbroken")
    near = assembly.nodes["near"]
    assert near.count == 12 * 4
    ids = graph.parts["talk"].load_tokenizer(graph.base)("seven,", add_special_tokens=False)["input_ids"][-4:]
    seven = assembly.nodes["talk"].lm.get_input_embeddings().weight[torch.tensor(ids)]
    assert (near.words == seven).all(-1).all(-1).any()


@pytest.mark.parametrize("moving", ["eyes", "tune"])
def test_a_stage_that_moves_what_it_stores_is_a_problem(moving):
    adapter = "adapters: {tune: {type: adapter.film, host: eyes, after: depthwise}}\n"
    body = SPEC.format(stages=f"  - {{name: both, train: [near, {moving}], steps: 2}}") + adapter
    (problem,) = check(parse(body, Path("spec.yaml"))).problems
    assert problem.message.endswith(f"train {moving} in a stage of its own before") and problem.node == moving
    assert not check(parse(body.replace("[near, ", "["), Path("spec.yaml"))).problems
