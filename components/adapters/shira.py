"""SHiRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import INNER, KV_HEADS, LAYERS, VIT_LAYERS, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from torch import Tensor

    from assembler.adapters.host import Host
    from assembler.adapters.prepare import Trial
    from assembler.adapters.tap import Insert


@register
class Shira(AdapterPart):
    """(W + s S) x + b, where S [out, in] is zero but for n = rank * (in + out) learned entries (arXiv 2406.13175).

    The entries are as many as LoRA of that rank has, yet S is of high rank. They are drawn at random, the largest
    |W| (`magnitude`), the largest gradients or gradients times W (`gradient`, `snip`: `assembler adapters prepare`), or
    as many whole rows as fit into n beside the diagonal (`struct`). S starts at zero; several adapters add up, and
    `components.adapters._shira.Switch` overwrites only these entries to go from one merged adapter to another: memory
    writes whole rows, and random entries in a `run` of neighbours, many times faster than single ones. With `dora` r
    the entries do not learn by themselves: they are those of DoRA's change of rank r, which is masked.
    Parameters: sum over the sites of rank * (in + out); with `struct` rows * in and the diagonal outside of them; with
    `dora` r * (in + out) + out.
    """

    type = "adapter.shira"
    trait = "whole"
    mergeable = True
    peft_type = "SHIRA"

    sites: str = Field("layers.*.{attn.q,attn.k,attn.v,mlp.up,mlp.down}", description="pattern over the host's sites")
    rank: int = Field(32, ge=1, le=4096, description="of the LoRA that has as many parameters")
    mask: Literal["random", "magnitude", "gradient", "snip", "struct"] = Field("random", description="the entries")
    seed: int | None = Field(0, ge=0, le=2**31, description="of random entries; none is torch's own")
    run: int = Field(1, ge=1, le=4096, description="random entries that lie side by side; 16 fill a line of memory")
    dora: int = Field(0, ge=0, le=4096, description="rank of the DoRA whose change the mask lets through; 0: none")
    scale: float = Field(1.0, gt=0, le=1e4, description="s; 1 in training")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        kv = KV_HEADS * 8
        count = LAYERS * 2 * (2 * WIDTH + 2 * (WIDTH + kv) + 2 * (WIDTH + INNER))
        rows = (2 * 128 - 64) // 64
        return [
            on_llama(cls.type, count, rank=2),
            on_llama(cls.type, LAYERS * 2 * (WIDTH + kv), rank=2, sites="layers.*.attn.v", mask="magnitude"),
            on_vit(cls.type, VIT_LAYERS * (rows * 64 + 64 - rows), rank=2, sites="layers.*.attn.o", mask="struct"),
            on_llama(
                cls.type, LAYERS * 2 * (WIDTH * 2 * 3 + WIDTH), rank=2, sites="layers.*.attn.{q,o}", dora=3, run=4
            ),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"rank": 2}

    def inject(self, on: Host) -> None:
        from components.adapters._lora import Weight
        from components.adapters._shira import Sparse, SparseDora, structure

        drawn: dict[tuple[int, int], Tensor] = {}  # weights of one shape have the same entries
        for site in on.linears(self.sites):
            inputs, outputs = on.shape(site)
            rows = structure((outputs, inputs), self.rank * (inputs + outputs)) if self.mask == "struct" else None
            entries, options = self._entries(on, site, drawn), (self.scale, rows, self.run)
            if self.dora:
                on.weight(SparseDora(entries, Weight(on, site)()[0], self.dora, *options), site)
            else:
                on.weight(Sparse(entries, (outputs, inputs), *options), site)

    def _entries(self, on: Host, site: str, drawn: dict[tuple[int, int], Tensor]) -> Tensor:
        import torch

        from assembler.errors import AssemblerError
        from components.adapters._lora import Weight
        from components.adapters._shira import largest_entries, random_entries, structured_entries

        inputs, outputs = on.shape(site)
        count = self.rank * (inputs + outputs)
        if count > inputs * outputs:
            raise AssemblerError(f"`rank` {self.rank} asks for {count:,} of {inputs * outputs:,} entries of {site}")
        if self.mask == "struct":
            return structured_entries((outputs, inputs), count)
        if self.mask == "magnitude" and not on.parameter.is_meta:
            return largest_entries(Weight(on, site)()[0].abs(), count)
        if on.parameter.is_meta:
            return torch.empty(count // self.run * self.run, dtype=torch.long)
        if (outputs, inputs) not in drawn:
            drawn[outputs, inputs] = random_entries((outputs, inputs), count, self.seed, self.run)
        return drawn[outputs, inputs].clone()

    @model_validator(mode="after")
    def _drawn(self) -> Shira:
        if self.run > 1 and self.mask != "random":
            raise ValueError(f"`run` is of random entries, and `mask` is {self.mask}; leave one of them out")
        return self

    def unprepared(self) -> str:
        return f"`mask: {self.mask}` chooses entries on data" if self.mask in ("gradient", "snip") else ""

    def prepare(self, trial: Trial) -> None:
        from components.adapters._shira import choose

        if not self.unprepared():
            super().prepare(trial)
        choose(trial, by_weight=self.mask == "snip")

    def peft_config(self, inserts: Mapping[str, Insert]) -> dict[str, Any] | None:
        from components.adapters._peft import shira_config

        return shira_config(self, inserts)

    def to_peft(self, inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from components.adapters._peft import to_shira

        return to_shira(inserts, tensors)

    def from_peft(self, inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from components.adapters._peft import from_shira

        return from_shira(inserts, tensors)

    @classmethod
    def peft_options(cls, config: Mapping[str, Any], keys: Sequence[str], on: Host) -> dict[str, Any]:
        from components.adapters._peft import shira_options

        return shira_options(config, keys, on)
