"""What a part is: its knobs (pydantic fields), its ports, its shape rule and its torch module."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from assembler.problems import Fix
from assembler.values import Dim, Value

if TYPE_CHECKING:
    from torch import nn


class WireError(ValueError):
    """A shape rule refuses a wire: the port, the sentence and, where it is known, the fix."""

    def __init__(self, port: str, message: str, fix: Fix | None = None, width: Dim = None):
        super().__init__(message)
        self.port, self.message, self.fix, self.width = port, message, fix, width


class Part(BaseModel):
    """One node type. Subclasses add fields (the YAML keys), `accepts`, `shape` and `build`.

    `accepts` maps each input port to the kinds it takes; a part with one input names it `in`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    type: ClassVar[str]
    accepts: ClassVar[dict[str, tuple[str, ...]]] = {}
    optional: ClassVar[tuple[str, ...]] = ()

    freeze: bool = False

    def ports(self) -> dict[str, tuple[str, ...]]:
        """Input ports and the kinds each accepts; by default the class's `accepts`."""
        return self.accepts

    def wants(self, port: str, base: Path) -> Dim:
        """The width this part needs on `port`, or None when any (or not known yet)."""
        return None

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        """The value this part puts out for `inputs`, where `want` is the width its consumer needs.

        Raises:
            WireError: these inputs do not fit.
        """
        raise WireError("in", f"{self.type} declares no shape rule")

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        """The torch module for these shapes; called under the meta device first."""
        from assembler.errors import AssemblerError

        raise AssemblerError(f"{self.type} holds no torch module")

    def load(self, module: nn.Module, base: Path) -> None:
        """Put the named weights into a materialised `module`; nothing to do for a part trained from scratch."""

    def weight_sources(self) -> dict[str, Any]:
        """Sources this part reads, for fetching before the build: field name -> source string."""
        source = getattr(self, "weights", None)
        return {"weights": source} if isinstance(source, str) and source != "random" else {}
