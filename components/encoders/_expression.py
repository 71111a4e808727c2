"""What encoders of expression share: their own weights, and masked pre-training as a stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from assembler.bundle.manifest import Processor
from assembler.errors import AssemblerError
from assembler.part import Part
from components.encoders._base import LayeredEncoder

if TYPE_CHECKING:
    from torch import Tensor, nn


class GeneEncoder(LayeredEncoder):
    """An encoder of expression [B, genes] that can learn by guessing the values of genes it does not see.

    `pretrain` gives it what that takes; a stage whose `objectives` name the node then learns so, and in any other stage
    the encoder reads every value.
    """

    accepts = {"in": ("expression",)}
    optional: ClassVar[tuple[str, ...]] = ("cls", "hidden", "head.", "mix.")
    """Tensors that only some ways of using the encoder have, by the beginnings of their names."""
    anchor: ClassVar[str] = "gene.weight"
    """A tensor that every file of such an encoder has."""

    pretrain: bool = Field(False, description="can learn by guessing hidden values, in stages that name it")
    hide: float = Field(0.15, gt=0, lt=1, description="share of the genes with a value that are hidden then")
    hide_zeros: float = Field(0.0, ge=0, lt=1, description="share of the genes without one, for imputation")

    @model_validator(mode="after")
    def _last(self) -> GeneEncoder:
        if self.pretrain and self.layer is not None:
            raise ValueError("`pretrain` learns at the last layer; leave `layer` out")
        return self

    @property
    def rates(self) -> tuple[float, float] | None:
        """Shares of genes with and without a value that are hidden, where there is pre-training."""
        return (self.hide, self.hide_zeros) if self.pretrain else None

    def gives_loss(self) -> bool:
        return self.pretrain

    def processor(self, source: Part, base: Path) -> Processor:
        made: Any = source
        return made.expression_processor(base)

    def place(self, module: nn.Module, state: dict[str, Tensor]) -> None:
        """The file is one that this part learned: of a state_dict, or of a stage of a run.

        What only one way of using the encoder has (`output: pooled`, `pretrain`, `mix`) may be missing and is fresh
        then, so that what was pre-trained over tokens can be read pooled, and the other way round.
        """
        from components.encoders._genes import draw_missing
        from components.encoders._states import place_exactly

        prefixes = [key.removesuffix(self.anchor) for key in state if key.endswith(self.anchor)]
        if not prefixes:
            raise AssemblerError(f"{self.weights}: there is no {self.anchor}; give what an {self.type} has learned")
        place_exactly(module, state, prefixes, self.weights, optional=self.optional)
        draw_missing(module)
