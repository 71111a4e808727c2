"""Adapters beside PEFT's, in one run: outputs after the weights are moved over, step time and memory; and many at once.

Times are of one forward and backward, paired, the order alternating; memory is the peak beside the model's weights.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from assembler.adapters.book import adapters_of
from assembler.adapters.files import load_adapter
from benchmarks._peak import peak_bytes
from components.adapters._shira import Switch
from components.adapters.lora import Lora
from components.adapters.router import Router
from components.adapters.shira import Shira

SIZE = {"vocab_size": 4000, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 6}
SIZE |= {"num_attention_heads": 9, "num_key_value_heads": 3}
LM: dict[str, Any] = {"task_type": "CAUSAL_LM"}
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
METHODS: dict[str, Callable[[], Any]] = {
    "LoRA on q, v": lambda: peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj"], **LM),
    "LoRA on all linears": lambda: peft.LoraConfig(r=8, target_modules=ALL, **LM),
    "DoRA on q, v": lambda: peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj"], use_dora=True, **LM),
    "SHiRA on q, v": lambda: peft.ShiraConfig(r=8, target_modules=["q_proj", "v_proj"], random_seed=0),
    "(IA)3": lambda: peft.IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], **LM
    ),
    "prefix of 20": lambda: peft.PrefixTuningConfig(num_virtual_tokens=20, **LM),
    "prompt of 20": lambda: peft.PromptTuningConfig(num_virtual_tokens=20, **LM),
    "adaption prompt of 10": lambda: peft.AdaptionPromptConfig(adapter_len=10, adapter_layers=6, **LM),
}
POSITIONS = {"prefix of 20": 20}
"""By how much PEFT moves the words' positions."""


def host() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZE)).requires_grad_(False)


def logits(model: nn.Module, ids: Tensor, offset: int = 0) -> Tensor:
    """What the model says about the words; PEFT's answers for its own prompt are cut off."""
    places = torch.arange(offset, offset + ids.shape[1]).unsqueeze(0)
    knobs = {} if isinstance(model, peft.PeftModel) else {"position_ids": places}
    mask = torch.ones_like(ids)
    return model(input_ids=ids, attention_mask=mask, use_cache=False, **knobs).logits[:, -ids.shape[1] :]


def seconds(model: nn.Module, ids: Tensor) -> float:
    """One forward and backward."""
    start = time.perf_counter()
    logits(model, ids).logsumexp(-1).mean().backward()
    return time.perf_counter() - start


def peak(model: nn.Module, ids: Tensor) -> int:
    """Bytes at the peak of a step, beside the model's own weights."""
    return peak_bytes(lambda: lambda: logits(model, ids).logsumexp(-1).mean().backward())


def paired(ours: nn.Module, theirs: nn.Module, ids: Tensor, pairs: int) -> str:
    """The median ratio of step times, with its quartiles."""
    for model in (ours, theirs) * 2:
        seconds(model, ids)
    ratios = []
    for index in range(pairs):
        times = {}
        for model in (ours, theirs) if index % 2 else (theirs, ours):
            times[model is ours] = seconds(model, ids)
        ratios.append(times[True] / times[False])
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} (quartiles {low:.3f} to {high:.3f})"


class Operations(TorchDispatchMode):
    """Counts what torch is asked to compute."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(model: nn.Module, ids: Tensor) -> int:
    """Of one forward and backward."""
    with Operations() as counted:
        seconds(model, ids)
    return counted.count


def beside_peft(name: str, ids: Tensor, pairs: int) -> list[tuple[str, str, str]]:
    """One method: ours over PEFT's."""
    theirs = peft.get_peft_model(host(), METHODS[name]()).train()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    ours = host()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        load_adapter(ours, Path(folder), "tune")
    ours.train()
    with torch.no_grad():
        far = (logits(ours, ids, POSITIONS.get(name, 0)) - logits(theirs, ids)).abs().max()

    def per(measure: Callable[[nn.Module, Tensor], int]) -> str:
        return f"{measure(ours, ids) / measure(theirs, ids):.3f}"

    return [
        (f"{name}: largest difference of logits to PEFT's", f"{far:.1e}", "<= 1e-5"),
        (f"{name}: step time, ours / PEFT's", paired(ours, theirs, ids, pairs), "<= 1.00"),
        (f"{name}: torch operations of a step, ours / PEFT's", per(operations), "<= 1.00"),
        (f"{name}: peak memory of a step, ours / PEFT's", per(peak), "<= 1.00"),
    ]


def routed(count: int) -> nn.Module:
    """A host with LoRAs on q and v, two for each token by a router."""
    model = host()
    names = [f"l{i}" for i in range(count)]
    for seed, name in enumerate(names):
        Lora(host="h", rank=8).attach(model, name, seed)
    composition = f"route({', '.join(names)}, by=gate)"
    Router(host="h", top=2).attach(model, "gate", 0, composition=composition)
    book = adapters_of(model)
    assert book is not None
    book.activate(composition)
    return model.train()


def many(ids: Tensor, pairs: int) -> list[tuple[str, str, str]]:
    """Routing over more and more LoRAs, and switching between them."""
    one, sixty_four = routed(1), routed(64)
    found = [
        ("64 LoRAs routed by token, step time over 1", paired(sixty_four, one, ids, pairs), "far below 64"),
        ("64 LoRAs routed by token, step time over the bare host", paired(sixty_four, bare(), ids, pairs), "-"),
    ]
    book = adapters_of(sixty_four)
    assert book is not None
    times = []
    for index in range(40):
        start = time.perf_counter()
        book.activate(f"l{index}")
        times.append(time.perf_counter() - start)
    return [*found, ("switching the active LoRA of 64", f"{1e3 * statistics.median(times):.2f} ms", "-")]


SMOL = {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
SMOL |= {"num_attention_heads": 9, "num_key_value_heads": 3}
"""SmolLM2-135M; what the weights are does not change how long they take to write."""


def switching() -> list[tuple[str, str, str]]:
    """Merged SHiRAs by turns, with as many entries as a LoRA of rank 4: whole rows and the diagonal, at random in runs
    of a line of memory, and each at random. Random ones are not where the other adapter has them, so that a switch
    writes the host's own entries first, and single ones take as many lines of memory as there are."""
    found = []
    ways: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("rows and diagonal", {"mask": "struct"}, "< 1 ms"),
        ("random, runs of 16", {"run": 16}, "-"),
        ("random", {}, "-"),
    )
    for label, options, target in ways:
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**SMOL)).requires_grad_(False)
        for seed, name in enumerate(("one", "two")):
            new = Shira(host="h", rank=4, seed=seed, **options).attach(model, name, seed)
            for key in new:
                torch.nn.init.normal_(model.get_parameter(key), std=0.01)
        book = adapters_of(model)
        assert book is not None
        count = sum(p.numel() for p in book.modules["one"].parameters())
        switch, times = Switch(book, ("one", "two")), []
        for index in range(200):
            start = time.perf_counter()
            switch.to("two" if index % 2 else "one")
            times.append(time.perf_counter() - start)
        low, middle, high = (1e3 * t for t in statistics.quantiles(times[20:], n=4))
        what = f"switching a merged SHiRA of {count:,} entries ({label}) in SmolLM2-135M"
        found.append((what, f"{middle:.2f} ms (quartiles {low:.2f} to {high:.2f})", target))
    return found


def bare() -> nn.Module:
    """The host alone, with a gradient to its embeddings so that it has a backward."""
    model = copy.deepcopy(host())
    model.model.embed_tokens.weight.requires_grad_(True)
    return model.train()


def rows(pairs: int = 60) -> list[tuple[str, str, str]]:
    """(what, figure, target)."""
    ids = torch.randint(0, SIZE["vocab_size"], (4, 128), generator=torch.Generator().manual_seed(0))
    found = [row for name in METHODS for row in beside_peft(name, ids, pairs)]
    return [*found, *many(ids, pairs), *switching()]
