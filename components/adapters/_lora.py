"""LoRA's modules: W x + s B A x on linears, embeddings and convolutions (arXiv 2106.09685)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.host import Host
from assembler.adapters.tap import is_conv1d
from assembler.errors import AssemblerError

Folded = tuple[Tensor, Tensor | None]


class LowRank(nn.Module):
    """s B A x, with A [r, in] and B [out, r]; B starts at zero."""

    def __init__(self, inputs: int, outputs: int, rank: int, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.lora_A = nn.Linear(inputs, rank, bias=False)
        self.lora_B = nn.Linear(rank, outputs, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.scale = scale
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.lora_B(self.lora_A(self.dropout(x)) * self.scale)  # [..., in] -> [..., r] -> [..., out]

    @staticmethod
    def together(experts: list[LowRank], gates: Tensor, x: Tensor) -> Tensor:
        """sum_n g_n s_n B_n A_n x, as one low-rank change of the summed rank: gates [B, T, N], x [B, T, in]."""
        down = torch.cat([expert.lora_A.weight for expert in experts])  # [N r, in]
        up = torch.cat([expert.lora_B.weight for expert in experts], 1)  # [out, N r]
        scales = gates.new_tensor([expert.scale for expert in experts])
        ranks = [expert.lora_A.weight.shape[0] for expert in experts]
        repeats = ranks[0] if len({*ranks}) == 1 else torch.tensor(ranks, device=x.device)
        weights = (gates * scales).repeat_interleave(repeats, -1)  # [B, T, N r]
        inner = F.linear(experts[0].dropout(x), down)
        return F.linear(inner * weights.to(inner.dtype), up)

    @staticmethod
    def picked(experts: list[LowRank], chosen: Tensor, gates: Tensor, x: Tensor) -> Tensor:
        """The same for k experts a token, whose A and B are fetched: chosen and gates [B, T, k], x [B, T, in]."""
        down = torch.stack([expert.lora_A.weight for expert in experts])[chosen]  # [B, T, k, r, in]
        up = torch.stack([expert.lora_B.weight for expert in experts])[chosen]  # [B, T, k, out, r]
        weights = gates * gates.new_tensor([expert.scale for expert in experts])[chosen]
        inner = down.flatten(2, 3) @ experts[0].dropout(x).unsqueeze(-1)  # [B, T, k r, 1]
        inner = inner.unflatten(2, down.shape[2:4]) * weights[..., None, None].to(inner.dtype)
        return (up @ inner).sum(2).squeeze(-1)  # [B, T, out]

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """A [r, in] and s B [out, r], of which it is the whole change; None where it is another."""
        return (self.lora_A.weight, self.lora_B.weight * self.scale) if type(self) is LowRank else None

    def delta(self) -> Tensor:
        """The change of the weight: [out, in]."""
        return (self.lora_B.weight @ self.lora_A.weight) * self.scale

    def fold(self, weight: Tensor, bias: Tensor | None) -> Folded:
        """W + s B A."""
        return weight + self.delta(), bias


class LowRankEmbedding(LowRank):
    """s B A[:, ids] on a table of `inputs` rows."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.lora_B(F.embedding(ids, self.lora_A.weight.T) * self.scale)  # [B, T] -> [B, T, out]

    def fold(self, weight: Tensor, bias: Tensor | None) -> Folded:
        return weight + self.delta().T, bias  # [vocabulary, out]


class LowRankConv(nn.Module):
    """s B A x, where A is a convolution of the host's kernel to r channels and B one of a single point."""

    def __init__(self, conv: nn.Conv1d | nn.Conv2d | nn.Conv3d, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        kind: type = type(conv)
        like = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation, "bias": False}
        self.lora_A = kind(conv.in_channels, rank, conv.kernel_size, **like)
        self.lora_B = kind(rank, conv.out_channels, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.scale = scale
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.lora_B(self.lora_A(self.dropout(x)) * self.scale)

    def fold(self, weight: Tensor, bias: Tensor | None) -> Folded:
        down, up = self.lora_A.weight, self.lora_B.weight.flatten(1)  # [r, in, k...], [out, r]
        return weight + torch.einsum("or,r...->o...", up, down) * self.scale, bias


class Dora(LowRank):
    """The same with the norm of each row of W + s B A learned apart from its direction (arXiv 2402.09353).

    y + (g - 1) (y - b) + g s B A x with g = m / |W + s B A|, whose denominator takes no gradient; m starts as |W|.
    """

    def __init__(self, weight: Weight, rank: int, scale: float, dropout: float) -> None:
        outputs, inputs = weight()[0].shape
        super().__init__(inputs, outputs, rank, scale, dropout)
        self.weight = weight
        self.magnitude = nn.Parameter(self.norms().clone())

    def norms(self) -> Tensor:
        """|W + s B A| of every output: [out]."""
        weight, _ = self.weight()
        return torch.linalg.norm(weight + self.delta().to(weight), dim=1).detach()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        gain = self.magnitude / self.norms()  # [out]
        _, bias = self.weight()
        linear = y if bias is None else y - bias
        return y + (gain - 1) * linear + gain * super().forward(x)

    def fold(self, weight: Tensor, bias: Tensor | None) -> Folded:
        gain = (self.magnitude / self.norms())[:, None]
        return gain * (weight + self.delta()), bias


class Weight:
    """The weight [out, in] and bias of a host's linear, or of the slice of it at a site, asked for when needed."""

    def __init__(self, on: Host, site: str) -> None:
        self.module, place = on.module(site), on.place(site)
        self.index, self.of = place.index, place.of

    def __call__(self) -> Folded:
        weight, bias = self.module.weight, self.module.bias
        assert isinstance(weight, Tensor)
        weight = weight.T if is_conv1d(self.module) else weight
        part = weight.chunk(self.of, 0)[self.index]
        return part, None if bias is None else bias.chunk(self.of, 0)[self.index]  # type: ignore[operator,union-attr]


def low_rank(on: Host, site: str, rank: int, scale: float, dropout: float = 0.0, init: str = "kaiming") -> LowRank:
    """The low-rank change that fits the layer at a site.

    Raises:
        AssemblerError: it is no linear, embedding or convolution.
    """
    host = on.module(site)
    made: nn.Module
    if isinstance(host, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        if host.groups != 1:
            raise AssemblerError(f"site {site} is a convolution in groups, which LoRA does not take; name another")
        made = LowRankConv(host, rank, scale, dropout)
    elif isinstance(host, nn.Embedding):
        made = LowRankEmbedding(host.num_embeddings, host.embedding_dim, rank, scale)
    elif isinstance(host, nn.Linear) or is_conv1d(host):
        made = LowRank(*on.shape(site), rank, scale, dropout)
    else:
        raise AssemblerError(_no_linear(on, site))
    if init == "gaussian":
        nn.init.normal_(made.lora_A.weight, std=1 / rank)  # type: ignore[union-attr,arg-type]
    return made  # type: ignore[return-value]


def put_low_rank(
    on: Host, pattern: str, rank: int, alpha: float, dropout: float, rslora: bool, dora: bool, init: str
) -> None:
    """LoRA on every site that a pattern names; see `components.adapters.lora`."""
    scale = alpha / math.sqrt(rank) if rslora else alpha / rank
    for site in on.matching(pattern):
        if not dora:
            on.branch(low_rank(on, site, rank, scale, dropout, init), f"{site}.out", [f"{site}.in"])
            continue
        if not (isinstance(on.module(site), nn.Linear) or is_conv1d(on.module(site))):
            raise AssemblerError(f"site {site}: `dora` takes linears; leave it out for embeddings and convolutions")
        module = Dora(Weight(on, site), rank, scale, dropout)
        if init == "gaussian":
            nn.init.normal_(module.lora_A.weight, std=1 / rank)
        on.branch(module, f"{site}.out", [f"{site}.in", f"{site}.out"], replace=True)


def _no_linear(on: Host, site: str) -> str:
    module = on.module(site)
    return (
        f"site {site} is a {type(module).__name__} ({on.place(site).path}); LoRA takes linears, embeddings and "
        "convolutions, such as layers.*.attn.{q,v}"
    )
