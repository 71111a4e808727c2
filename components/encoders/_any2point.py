"""The module of `encoder.any2point`."""

from __future__ import annotations

import inspect
import math
from typing import Any, NamedTuple

import timm
import torch
import transformers
from torch import Tensor, nn

from assembler.anatomy import sites_of
from assembler.errors import AssemblerError, told
from assembler.ragged import Ragged, paired, parted
from components.encoders._guided import GuidedAdapter, ViewAttention, cells
from components.encoders._point_pn import PointPn
from components.encoders._point_transformer import attendable
from components.encoders._projection import Projection, positions
from components.encoders._states import LayerMix
from components.encoders.any2point import Source

VIEW_WIDTH = 12
SCALES = {"ls1": "scale1", "layer_scale1": "scale1", "ls2": "scale2", "layer_scale2": "scale2"}
"""What hosts call a learned scale on the attention's output, and on the MLP's."""


class Table(NamedTuple):
    """Where a host's positions are: the tensor's path, the rows before the grid, and the grid."""

    path: str
    front: int
    grid: tuple[int, ...]


class Guide(nn.Module):
    """All that learns: tokenizer, [CLS] and its position, the views' attention, an adapter a block, the last norm."""

    def __init__(
        self,
        *,
        channels: int,
        width: int,
        depth: int,
        tokens: int,
        neighbours: int,
        embed: int,
        rank: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.tokenizer = PointPn(channels, tokens, neighbours, embed)
        self.proj = nn.Identity() if 8 * embed == width else nn.Linear(8 * embed, width)
        self.cls_token, self.cls_position = (nn.Parameter(torch.randn(1, 1, width) * 0.02) for _ in range(2))
        self.views = ViewAttention(width, VIEW_WIDTH)
        self.blocks = nn.ModuleList([GuidedAdapter(width, rank, dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)


class Any2PointTower(nn.Module):
    """A transformer of another sense over tokens of points, and its guide."""

    def __init__(
        self,
        host: nn.Module,
        table: Table,
        knobs: dict[str, Any],
        *,
        scale: float,
        guidance: float,
        voxel: float,
        cell: float,
        layer: int | None,
        mix: bool,
        pooled: bool,
        prefix: bool,
    ) -> None:
        super().__init__()
        self.host, self.table, self.knobs = host, table, knobs
        self.scale, self.guidance, self.voxel, self.cell = scale, guidance, voxel, cell
        self.layer, self.pooled, self.prefix = layer, pooled, prefix
        self.seed = torch.initial_seed()
        self.halves = _halves(host, knobs["depth"])
        self.guide = Guide(**knobs)
        self.projection = Projection(table.grid)
        self.mix = LayerMix(knobs["depth"] + 1) if mix else None
        self._begin_as_host()

    def materialise(self) -> None:
        """A guide with values, drawn under the seed of the build, when the host's come from a file."""
        if self.guide.cls_token.is_meta:
            with torch.random.fork_rng(devices=[]):
                torch.random.default_generator.manual_seed(self.seed)
                self.guide = Guide(**self.knobs)
        self._begin_as_host()

    def _begin_as_host(self) -> None:
        """The last norm as the host's own."""
        norm: Any = self.host.get_submodule(sites_of(self.host)["final"])
        self.guide.norm.eps = norm.eps
        if not norm.weight.is_meta:
            self.guide.norm.load_state_dict(norm.state_dict())

    def forward(self, points: Tensor | Ragged) -> Tensor | Ragged:
        centres, x, real = self.guide.tokenizer(*parted(points))  # [B, T, 3], [B, T, 8 e], [B, T]
        at = self.projection(centres, real)  # [B, V, T, axes]
        cls, place = (one.expand(x.shape[0], -1, -1) for one in (self.guide.cls_token, self.guide.cls_position))
        rows: Any = self.host.get_parameter(self.table.path)
        where = positions(at, self.table.grid, rows.reshape(-1, rows.shape[-1])[self.table.front :])
        states = self._blocks(torch.cat([cls, self.guide.proj(x)], 1), torch.cat([place, where], 1), centres, at, real)
        if self.layer is not None:
            out = states[self.layer + 1]
        else:
            last = self.guide.norm(states[-1])
            out = last if self.mix is None else self.mix([*states[:-1], last])
        return self._read(out, real)

    def _read(self, out: Tensor, real: Tensor | None) -> Tensor | Ragged:
        if self.pooled:
            tokens = out[:, 1:]
            if real is not None:
                lowest = tokens.masked_fill(~real.unsqueeze(-1), torch.finfo(out.dtype).min).amax(1)
                largest = torch.where(real.any(1, keepdim=True), lowest, 0)
            else:
                largest = tokens.amax(1)
            return torch.cat([out[:, 0], largest], dim=-1)  # [B, 2 D]
        if not self.prefix:
            return paired(out[:, 1:], real)
        return paired(out, None if real is None else nn.functional.pad(real, (1, 0), value=True))

    def _blocks(self, x: Tensor, where: Tensor, centres: Tensor, at: Tensor, real: Tensor | None) -> list[Tensor]:
        """The tokens with [CLS] in front, before the first block and after each."""
        low = centres if real is None else centres.masked_fill(~real.unsqueeze(-1), torch.inf)
        voxels = cells(((centres - low.amin(1, keepdim=True)) / self.voxel).floor(), real)
        views = cells((at / self.cell).floor(), real)
        seen = None if real is None else attendable(nn.functional.pad(real, (1, 0), value=True))
        states = [x]
        for halves, adapter in zip(self.halves, self.guide.blocks, strict=True):
            x = self._block(states[-1] + where, halves, adapter, seen)  # type: ignore[arg-type]
            guided = adapter.guidance(x[:, 1:], voxels, views, self.guide.views)  # type: ignore[operator,union-attr]
            states.append(torch.cat([x[:, :1], x[:, 1:] + self.guidance * guided], dim=1))
        return states

    def _block(self, x: Tensor, halves: Halves, adapter: GuidedAdapter, seen: Tensor | None) -> Tensor:
        block: dict[str, Any] = {name: self.host.get_submodule(path) for name, path in halves.paths.items()}
        found = block["attn"](block["norm1"](x), **{halves.mask: seen})
        attended = found[0] if isinstance(found, tuple) else found
        x = x + (block["scale1"](attended) if "scale1" in block else attended)
        f = block["mlp"](block["norm2"](x))
        f = block["scale2"](f) if "scale2" in block else f
        return x + f + self.scale * adapter.bottleneck(f)


class Halves(NamedTuple):
    """Paths of the modules of one block of a host, and what its attention calls a mask."""

    paths: dict[str, str]
    mask: str


def _halves(host: nn.Module, depth: int) -> list[Halves]:
    """Every block of a host.

    Raises:
        AssemblerError: its blocks are not built of a norm and attention, and a norm and an MLP.
    """
    sites, found = sites_of(host), []
    for site in (f"layers.{index}" for index in range(depth)):
        paths = {name: sites.get(f"{site}.{name}", "") for name in ("norm1", "attn", "norm2", "mlp")}
        if not all(paths.values()):
            raise AssemblerError(
                f"the blocks of {type(host).__name__} are not norm, attention, norm, MLP; pick another"
            )
        block = host.get_submodule(sites[site])
        for scale in (name for name in SCALES if hasattr(block, name)):
            paths[SCALES[scale]] = f"{sites[site]}.{scale}"
        known = inspect.signature(host.get_submodule(paths["attn"]).forward).parameters
        found.append(Halves(paths, "attention_mask" if "attention_mask" in known else "attn_mask"))
    return found


def hf_host(source: Source, config: dict[str, Any]) -> tuple[nn.Module, Table]:
    """A transformer of transformers, and where its positions are."""
    knobs = {key: item for key, item in config.items() if key not in ("model_type", "architectures", "auto_map")}
    with told(f"transformers cannot make a {source.model} of this config"):
        made = getattr(transformers, source.config)(**knobs)
        made._attn_implementation = "sdpa"
        host: Any = getattr(transformers, source.model)(made, **dict(source.options))
    if source.sense == "audio":
        grid = tuple(host.embeddings.get_shape(made))
    elif source.sense == "vision":
        count = host.get_parameter(source.table).numel() // made.hidden_size - source.front
        grid = (math.isqrt(count), math.isqrt(count))
        if math.prod(grid) != count:
            raise AssemblerError(f"this {source.model} has positions of no square picture; pick another")
    else:
        grid = (made.max_position_embeddings,)
    return host, Table(source.table, source.front, grid)


def timm_host(model: str) -> tuple[nn.Module, Table]:
    """A vision transformer of timm, and where its positions are."""
    host: Any = timm.create_model(model, pretrained=False, num_classes=0)
    rows, columns = host.patch_embed.grid_size
    return host, Table("pos_embed", host.pos_embed.shape[-2] - rows * columns, (rows, columns))
