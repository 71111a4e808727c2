"""scMamba: every gene of a cell, read by a state space in both directions."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.part import WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.encoders._expression import GeneEncoder

if TYPE_CHECKING:
    from torch import nn


@register
class ScMambaEncoder(GeneEncoder):
    """Expression [B, G] -> tokens [B, G, d], one a gene, or with `output: pooled` an embedding [B, 3 d].

    A token is W v + b + E_g of the value v of gene g, with no bins and no choice of genes. Blocks of RMS norm and a
    bidirectional Mamba mixer read them, x <- x + mixer(norm(x)): u and a gate z = W_in x; in each direction a causal
    depthwise convolution of 4, SiLU, and h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t, y_t = C_t h_t + D u_t, where dt, B
    and C are made of u; W_out((y ahead + y back) * SiLU(z)). A starts as -1..-state, D as 1, and dt between 0.001 and
    0.1. The order of the genes is that of the input. `pooled` joins what stands at three CLS vectors, at the start, in
    the middle and at the end. With `pretrain`, a stage whose `objectives` name this node hides 15 % of the values that
    are not 0 and learns their squared error. Source: scMamba ("A Pre-Trained Model for Single-Nucleus RNA
    Sequencing Analysis in Neurodegenerative Disorders"); Mamba is arXiv 2312.00752.
    Parameters: 2d + Vd + layers * (d + 2d di + 2 (4di + di + di (r + 2n) + r di + di + n di + di) + di d) + d, where
    di = expand * d, n = state, r = ceil(d / 16), V = genes up to a multiple of 8; with `pooled` also d, with `pretrain`
    2d + 1, with `mix` layers + 2.
    """

    type = "encoder.scmamba"

    width: int = Field(256, ge=1, le=65_536, description="of a token")
    depth: int = Field(6, ge=1, le=256, description="blocks")
    expand: int = Field(2, ge=1, le=16, description="inner width of a block, in widths")
    state: int = Field(16, ge=1, le=1024, description="numbers that a channel remembers")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        d, depth, n, genes = 18, 2, 3, [f"G{i}" for i in range(11)]

        def spec(**knobs: Any) -> dict[str, Any]:
            nodes = {
                "cell": {"type": "input.expression", "genes": genes, "normalise": "none"},
                "part": {"type": cls.type, "width": d, "depth": depth, "state": n, **knobs},
            }
            return {"nodes": nodes, "edges": ["cell -> part"]}

        di, r = 2 * d, ceil(d / 16)
        one = 4 * di + di + di * (r + 2 * n) + r * di + di + n * di + di
        count = 2 * d + 16 * d + depth * (d + 2 * d * di + 2 * one + di * d) + d
        return [
            (spec(), count),
            (spec(output="pooled"), count + d),
            (spec(mix=True), count + depth + 2),
            (spec(layer=0, output="pooled"), None),
            (spec(pretrain=True), None),
        ]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        genes = inputs["in"]["genes"]
        self.block(self.depth)
        if isinstance(genes, int) and genes < 2 and self.output == "pooled":
            raise WireError("in", "one gene has no middle; give more genes, or `output: tokens`")
        if self.output == "pooled":
            return value("embedding", width=3 * self.width)
        return value("tokens", facts={"genes": inputs["in"].fact("genes")}, tokens=genes, width=self.width)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.encoders._scmamba import ScMamba

        return ScMamba(
            genes=inputs["in"].size("genes"),
            width=self.width,
            depth=self.depth,
            inner=self.expand * self.width,
            state=self.state,
            layer=self.block(self.depth),
            mix=self.mix,
            pooled=self.output == "pooled",
            rates=self.rates,
        )
