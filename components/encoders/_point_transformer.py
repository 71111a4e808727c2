"""The module of `encoder.point_transformer`."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from assembler.ragged import Ragged, masked_mean, paired, parted
from components.encoders._clouds import PointNorm, farthest_points, near_points, rows
from components.encoders._states import LayerMix, place_exactly


class MiniPointNet(nn.Module):
    """Groups [B, G, k, c] -> tokens [B, G, D], the same whatever the order within a group."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(nn.Linear(inner, 128), PointNorm(128), nn.ReLU(), nn.Linear(128, 256))
        self.second_conv = nn.Sequential(nn.Linear(512, 512), PointNorm(512), nn.ReLU(), nn.Linear(512, width))

    def forward(self, groups: Tensor) -> Tensor:
        x = self.first_conv(groups)  # [B, G, k, 256]
        whole = x.amax(2, keepdim=True).expand_as(x)
        return self.second_conv(torch.cat([whole, x], dim=-1)).amax(2)


class Blocks(nn.Module):
    """The blocks, under the name that Point-MAE gives them."""

    def __init__(self, width: int, depth: int, heads: int, drop_path: float) -> None:
        super().__init__()
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        norm: type[nn.Module] = nn.LayerNorm
        self.blocks = nn.ModuleList([Block(width, heads, drop_path=rate, norm_layer=norm) for rate in rates])


class PointTransformerTower(nn.Module):
    """Groups of points as tokens, and a transformer over them that is told where they are."""

    def __init__(
        self,
        channels: int,
        layer: int | None,
        mix: bool,
        pooled: bool,
        unsettled: nn.Module,
        *,
        groups: int,
        neighbours: int,
        width: int,
        depth: int,
        heads: int,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.groups, self.neighbours, self.layer, self.pooled = groups, neighbours, layer, pooled
        self.unsettled = unsettled
        self.encoder = MiniPointNet(channels, width)
        self.pos_embed = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, width))
        self.blocks = Blocks(width, depth, heads, drop_path)
        self.norm = nn.LayerNorm(width)
        self.apply(_initialise)
        self.mix = LayerMix(depth + 1) if mix else None

    def forward(self, points: Tensor | Ragged) -> Tensor | Ragged:
        x, mask = parted(points)
        x = self.unsettled(x)
        centres, groups = grouped(x, mask, self.groups, self.neighbours)
        real = None if mask is None else fewer(mask, self.groups)  # [B, G]
        states, position = [self.encoder(groups)], self.pos_embed(centres)  # [B, G, D]
        seen = None if real is None else attendable(real)
        for block in self.blocks.blocks:
            states.append(block(states[-1] + position, attn_mask=seen))
        out = self._read(states)
        return masked_mean(out, real) if self.pooled else paired(out, real)

    def _read(self, states: list[Tensor]) -> Tensor:
        if self.layer is not None:
            return states[self.layer + 1]
        last = self.norm(states[-1])
        return last if self.mix is None else self.mix([*states[:-1], last])


def grouped(points: Tensor, mask: Tensor | None, count: int, neighbours: int) -> tuple[Tensor, Tensor]:
    """Centres [B, G, 3], and groups [B, G, k, 3 + C] of the points around each, whose places are less the centre's."""
    xyz = points[..., :3]
    centres = rows(xyz, farthest_points(xyz, count, mask))
    near = rows(points, near_points(centres, xyz, neighbours, mask))
    return centres, torch.cat([near[..., :3] - centres.unsqueeze(2), near[..., 3:]], dim=-1)


def fewer(mask: Tensor, count: int) -> Tensor:
    """The mask [B, count] of centres: a cloud has no more of them than points."""
    return torch.arange(count, device=mask.device) < mask.sum(1, keepdim=True)


def attendable(real: Tensor) -> Tensor:
    """The mask [B, 1, T, T] of what attention may look at; everything, where nothing is real."""
    seen = real | ~real.any(1, keepdim=True)
    return seen[:, None, None].expand(-1, -1, real.shape[1], -1)


def place_points(module: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Put this part's own weights, or those of a Point-MAE encoder with its 1 x 1 convolutions, into the module."""
    flat = {key: x.squeeze(-1) if "_conv." in key and x.dim() == 3 else x for key, x in state.items()}
    plain = {key.removeprefix("module."): x for key, x in flat.items()}
    place_exactly(module, plain, ("MAE_encoder.", ""), name, optional=("mix.",))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
