"""Flexible realignment: one more layer and how much of it, and the student between two teachers."""

import torch
from transformers import DynamicCache

from assembler.adapters.book import adapters_of
from assembler.caching import cache_argument
from components.adapters.inra import InRa
from components.objectives._realign import Realign
from tests.conformance.hosts import HOSTS, host_of

CASE = HOSTS["llama"]
IDS = torch.tensor([[5, 9, 3, 17], [8, 30, 4, 7]])


def learned():
    """A Llama whose inserted layer learned to say word 7 after everything; its host, frozen."""
    host = host_of("llama").requires_grad_(False)
    keys = InRa(host="host").attach(host, "tune", seed=0)
    optimizer = torch.optim.Adam([host.get_parameter(key) for key in keys], lr=0.05)
    host.train()
    for _ in range(50):
        optimizer.zero_grad()
        logits = host(input_ids=IDS).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.full((8,), 7)).backward()
        optimizer.step()
    streams = adapters_of(host).inserts("tune")["host"].module
    return host.eval(), streams


def test_one_layer_is_all_that_learns():
    host = host_of("llama").requires_grad_(False)
    keys = InRa(host="host").attach(host, "tune", seed=0)
    one = sum(p.numel() for p in host.model.layers[0].parameters())
    assert sum(host.get_parameter(key).numel() for key in keys) == one
    assert {key for key, p in host.named_parameters() if p.requires_grad} == set(keys)


def test_lam_0_is_the_frozen_model_bit_for_bit_and_the_style_grows_with_lam():
    host, streams = learned()
    with torch.no_grad():
        streams.lam = 0
        assert torch.equal(host(input_ids=IDS).logits, host_of("llama")(input_ids=IDS).logits)
        style = []
        for streams.lam in (-0.5, 0.0, 0.3, 0.7, 1.0, 1.5):
            style.append(host(input_ids=IDS).logits.log_softmax(-1)[..., 7].mean().item())
    assert style == sorted(style) and style[-2] > style[1] + 0.3


def test_each_stream_has_its_cache():
    host, streams = learned()
    streams.lam = 0.4
    with torch.no_grad():
        whole = host(input_ids=IDS).logits
        cache = DynamicCache(config=host.config)
        steps = [
            host(input_ids=x, use_cache=True, **cache_argument(host, cache)).logits for x in IDS.split([2, 1, 1], 1)
        ]
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-4, atol=1e-5)


def said(*shape: int, seed: int) -> dict[str, torch.Tensor]:
    return {"logits": torch.randn(*shape, generator=torch.Generator().manual_seed(seed))}


def test_the_student_is_done_when_it_is_the_teacher():
    reference, aligned = (said(2, 3, 9, seed=seed) for seed in (0, 1))
    for direction in ("teacher", "student"):
        assert Realign(1.0, direction)(aligned, reference, aligned)["loss"].abs() < 1e-6
        assert Realign(0.0, direction)(reference, reference, aligned)["loss"].abs() < 1e-6
        assert Realign(2.0, direction)(aligned, reference, aligned)["loss"] > 0.1


def test_the_loss_is_the_mean_divergence_over_the_vocabulary():
    student, reference, aligned = (said(2, 3, 9, seed=seed) for seed in (0, 1, 2))
    teacher = (1.5 * aligned["logits"] - 0.5 * reference["logits"]).softmax(-1)
    own = student["logits"].softmax(-1)
    forward = (teacher * (teacher / own).log()).sum(-1).mean()
    backward = (own * (own / teacher).log()).sum(-1).mean()
    torch.testing.assert_close(Realign(1.5, "teacher")(student, reference, aligned)["loss"], forward)
    torch.testing.assert_close(Realign(1.5, "student")(student, reference, aligned)["loss"], backward)
