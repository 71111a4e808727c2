"""What adapters are made with besides their own modules: wires, the host's modules and copies of them, and sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from assembler.adapters.tap import is_conv1d
from assembler.errors import AssemblerError

if TYPE_CHECKING:
    from assembler.part import AdapterPart


class Heads(NamedTuple):
    """Number of query heads, of key and value heads, and the width of one."""

    query: int
    kv: int
    size: int


class Wire:
    """What another node sends to the adapter while the host runs, or what `lay` put there."""

    def __init__(self, port: str, default: Tensor | None = None) -> None:
        self.port, self.default = port, default
        self.value: Any = None

    def lay(self, value: Any) -> None:
        """Put a value on the wire for the next calls of the host; None takes it off."""
        self.value = value

    def __call__(self) -> Any:
        """The value on the wire: a tensor, or a `Ragged`.

        Raises:
            AssemblerError: the host is run outside its graph.
        """
        value = self.default if self.value is None else self.value
        if value is None:
            raise AssemblerError(
                f"nothing came over the wire into {self.port}; run the whole graph, not its host alone"
            )
        return value


class Own(nn.Module):
    """A module in place of the host's."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def fold(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The copy's weight and bias."""
        return self.module.weight, getattr(self.module, "bias", None)  # type: ignore[return-value]


class Borrowed:
    """A module that an adapter's module calls without holding it; of a fused projection, a slice of what it gives."""

    def __init__(self, module: nn.Module, index: int = 0, of: int = 1) -> None:
        self.module, self.index, self.of = module, index, of

    def __call__(self, *args: Any) -> Any:
        value = self.module(*args)
        return value if self.of == 1 else value.chunk(self.of, -1)[self.index]


def is_linear(module: nn.Module) -> bool:
    """Whether a module is W x + b."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def bare(site: str) -> str:
    """A site's name without its stack: `encoder.layers.0.attn` is `layers.0.attn`."""
    start = site.find("layers.")
    return site[start:] if start > 0 else site


def width_of(module: nn.Module, out: bool) -> int | None:
    """The last axis of what goes into or comes out of a module, where the module itself says it."""
    if hasattr(module, "get_base_layer"):
        module = module.get_base_layer()  # type: ignore[operator]
    for name in ("out_features", "out_channels", "embedding_dim") if out else ("in_features", "in_channels"):
        if isinstance(found := getattr(module, name, None), int):
            return found
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and (weight.dim() == 1 or is_conv1d(module)):
        return weight.shape[-1 if out else 0]
    return None


def selected(indices: list[int], part: AdapterPart | None) -> list[int]:
    """The layers of a stack that a part takes: those in `layers`, negative ones from the end, or each `every`-th.

    Raises:
        AssemblerError: a layer is not there.
    """
    if part is None:
        return indices
    if part.layers is None:
        return indices[:: part.every]
    wrong = next((i for i in part.layers if not -len(indices) <= i < len(indices)), None)
    if wrong is not None:
        raise AssemblerError(f"layers: there is no layer {wrong}; the host has {len(indices)}, 0 to {len(indices) - 1}")
    return sorted({indices[i] for i in part.layers})


def on_device(reference: Tensor) -> torch.device:
    """Where new modules are made: on the meta device for a host that is there."""
    return torch.device("meta") if reference.is_meta else torch.device("cpu")
