"""What a part is: its knobs (pydantic fields), its ports, its shape rule and its torch module."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from assembler.bundle.manifest import Processor
from assembler.errors import AssemblerError
from assembler.problems import Fix
from assembler.values import Dim, Value

if TYPE_CHECKING:
    from torch import Tensor, nn

    from assembler.adapters.host import Host
    from assembler.adapters.prepare import Trial
    from assembler.adapters.tap import Insert
    from assembler.graph import Graph


Masks = Literal["refused", "kept", "own"]
Answers = Literal["text", "label", "score", "pair"]
KINDS = ("image", "video", "audio", "points", "expression", "text", "label", "score")
"""What a column of data may hold; `assembler.samples` says as what."""


class WireError(ValueError):
    """A shape rule refuses a wire: the port, the sentence and, where it is known, the fix."""

    def __init__(self, port: str, message: str, fix: Fix | None = None, width: Dim = None):
        super().__init__(message)
        self.port, self.message, self.fix, self.width = port, message, fix, width


class Part(BaseModel):
    """One node type. Subclasses add fields (the YAML keys), `accepts`, `shape` and `build`.

    `accepts` maps each input port to the kinds it takes; a part with one input names it `in`. The module that `build`
    returns is called with the tensors named in `extras` (made by `collator`) and then one tensor a wired port, in the
    order of `ports`. Those extras that are also `targets` exist only in learning; the module gets None for them when
    it serves. An `objective` returns a dict with `loss`; every other module returns one tensor, and may leave a scalar
    in its `auxiliary_loss` while it trains, which is added to the loss. Where the module of a node has `asked`, it is
    set while the `objectives` of a stage name the node, and what its `for_loss()` names learns only then.

    `masks` says what the part does with a ragged wire (samples of different lengths): it is `refused`; its module works
    on each position alone, so that the mask is `kept` and goes past it; or the module's `own` forward takes and gives
    `Ragged` values, as its shape rule says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    type: ClassVar[str]
    accepts: ClassVar[dict[str, tuple[str, ...]]] = {}
    optional: ClassVar[tuple[str, ...]] = ()
    extras: ClassVar[tuple[str, ...]] = ()
    targets: ClassVar[tuple[str, ...]] = ()
    masks: ClassVar[Masks] = "refused"
    objective: ClassVar[bool] = False
    reads_text: ClassVar[bool] = False
    """Whether a text wire brings this part token ids and their mask, as its processor makes them, and not words."""

    stores: ClassVar[bool] = False
    """Whether it keeps values of the nodes before it while it trains, so that these stand still in such a stage."""

    freeze: bool = Field(False, description="never train this node")
    anatomy: dict[str, str] | Literal["guess"] | None = Field(
        None, description="where adapters find their sites, as site: module path; `guess` looks for them by itself"
    )

    def ports(self) -> dict[str, tuple[str, ...]]:
        """Input ports and the kinds each accepts; by default the class's `accepts`."""
        return self.accepts

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        """Data columns this node reads and the kind of each, from KINDS; `wired` are the ports with a wire."""
        return {}

    def gives_loss(self) -> bool:
        """Whether a stage can learn by this part: an objective, or one whose module leaves an `auxiliary_loss`."""
        return self.objective or bool(getattr(self, "auxiliary", False))

    def pieces(self) -> tuple[str, ...]:
        """Submodules that a stage may train by themselves, as NODE.piece, even where the rest is frozen."""
        return ()

    def port_fix(self, port: str) -> tuple[str, Any] | None:
        """The key and new value that would give this part an input `port`, or None when it cannot have one."""
        return None

    def wants(self, port: str, base: Path) -> Dim:
        """The width this part needs on `port`, or None when any (or not known yet)."""
        return None

    def passes(self, port: str) -> bool:
        """Whether `port` has to be as wide as what this part puts out, so that its consumer's need goes past it."""
        return False

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        """The value this part puts out for `inputs`, where `want` is the width its consumer needs.

        Raises:
            WireError: these inputs do not fit.
        """
        raise WireError("in", f"{self.type} declares no shape rule")

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        """The torch module for these shapes, freshly initialised; on the meta device when that is the default."""
        raise AssemblerError(f"{self.type} holds no torch module")

    def bind(self, node: str, graph: Graph, modules: Mapping[str, nn.Module]) -> None:
        """Show the module `modules[node]`, or the adapter `node` on its host, those of other nodes that it reads; they
        stay the others' to train."""

    def load(self, module: nn.Module, base: Path) -> None:
        """Put the weights of `weight_sources` into `module`, whose parameters may be on the meta device."""

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        """Small specs that the conformance matrix runs this part in, and the parameters its formula gives there.

        The part is the node or adapter named `part`, or the `data`. Every part has at least one.
        """
        return []

    def unexported(self, base: Path) -> str:
        """Empty, or why there is no ONNX graph of this part; told without building it."""
        return ""

    def weight_sources(self) -> dict[str, str]:
        """Files this part reads, for fetching before the build: field name -> source."""
        source = getattr(self, "weights", "random")
        return {} if source == "random" else {"weights": source}

    def processor(self, source: Part, base: Path) -> Processor:
        """How the samples of the input node `source` become this part's tensor; training and serving read the same.

        A ragged input node's samples give a mask too.
        """
        raise AssemblerError(f"{self.type} takes no raw samples")

    def fake_extras(self, graph: Graph, batch: int) -> dict[str, Any]:
        """Tensors of the sizes that `collator` gives for `batch` samples, to forecast with; by default one number."""
        import torch

        return {key: torch.zeros(batch, dtype=torch.long) for key in self.extras}

    def collator(self, node: str, graph: Graph) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        """The function from data rows to the tensors of `extras`, keyed by their names."""
        raise AssemblerError(f"{self.type} has no extras")


class ObjectivePart(Part):
    """A part that gives a loss; the model's loss is the sum of each one's, times its `weight`."""

    objective: ClassVar[bool] = True
    answers: ClassVar[Answers | None] = None
    """What it answers about a sample, and so which metrics can tell how well; None where it only teaches others."""

    metrics: ClassVar[tuple[str, ...]] = ()
    """Those of `assembler.metrics` that it is judged by where the spec names none; by default its kind's."""

    weight: float = Field(1.0, gt=0, le=1e6, description="what this node's loss is multiplied by in the sum")

    def expected(self) -> tuple[str, ...]:
        """Names, as in `columns`, of what holds the right answers; more than one where an answer is several numbers."""
        return ()

    def answer(self, output: dict[str, Any]) -> list[Any]:
        """One answer a sample, of what the module gives for a batch."""
        raise AssemblerError(f"{self.type} answers nothing")


class AdapterPart(Part):
    """A part that is put into a host node instead of standing between wires.

    A subclass writes `inject`, which says with the four ways of `assembler.adapters.host.Host` what it changes; putting
    in, composing, merging, taking off and keeping in files follow from that.

    Attributes:
        trait: `delta` when all it does is to change values at points, so that any block may hold it; `whole` when it
            wraps calls, attention or weights; `mixer` when it combines others, as `by=` of `fuse` or `route`.
        identity: whether the host's output is the same bits while the adapter is untrained.
        mergeable: whether it can be worked into the host's weights.
        exports: empty, or why a host with it has no ONNX graph.
        peft_type: what PEFT calls the method, where PEFT has it; `peft_config` and the three functions after it then
            say how the two translate.
        families: the families of hosts that it is for, by the names that tests/conformance/hosts.py gives them; None
            for all.
    """

    trait: ClassVar[Literal["delta", "whole", "mixer"]] = "delta"
    identity: ClassVar[bool] = True
    mergeable: ClassVar[bool] = False
    exports: ClassVar[str] = ""
    peft_type: ClassVar[str] = ""
    families: ClassVar[tuple[str, ...] | None] = None

    host: str = Field(description="the node that it is put into")
    layers: list[int] | None = Field(None, description="only these layers; -1 is the last")
    every: int = Field(1, ge=1, le=1000, description="each n-th layer, from the first")
    weights: str = Field("random", description="a folder with the adapter's file, such as file:adapters/tune")

    def unexported(self, base: Path) -> str:
        return self.exports

    @classmethod
    def small(cls) -> dict[str, Any]:
        """Options that fit a tiny host of any family, of width 16; the laws of adapters are tried with them."""
        return {}

    def inject(self, on: Host) -> None:
        """Put this part's modules on a host.

        Raises:
            AssemblerError: the host lacks a site, or has another shape there.
        """
        raise AssemblerError(f"{self.type} attaches nothing")

    def attach(
        self,
        host: nn.Module,
        name: str,
        seed: int,
        wires: Mapping[str, Value] | None = None,
        composition: str = "",
    ) -> list[str]:
        """Put the adapter `name` on `host` in place; the names, within `host`, of the new parameters.

        Args:
            host: the module of the node, or any module that an anatomy fits.
            name: of the adapter, unique on the host.
            seed: the new parameters are drawn under it.
            wires: the values on the wires into the adapter, by port.
            composition: for a mixer, where `by=` it combines others; see `assembler.adapters.blocks`.
        """
        from assembler.adapters.book import attach

        return attach(self, host, name, seed, wires, composition)

    def unprepared(self) -> str:
        """Why the adapter must be prepared before it learns; empty where it need not be."""
        return ""

    def prepare(self, trial: Trial) -> None:
        """Set what does not learn, such as masks and bases, from the rows of a data set or from other adapters' files.

        Raises:
            AssemblerError: what it was given says nothing about it.
        """
        raise AssemblerError(f"{self.type} has nothing to prepare; train it")

    def peft_config(self, inserts: Mapping[str, Insert]) -> dict[str, Any] | None:
        """The adapter as PEFT's config, or None where PEFT cannot say what it is."""
        return None

    def to_peft(self, inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our tensors under PEFT's names."""
        raise AssemblerError(f"{self.type} has no form in PEFT")

    def from_peft(self, inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """PEFT's tensors under our names."""
        raise AssemblerError(f"{self.type} has no form in PEFT")

    @classmethod
    def peft_options(cls, config: Mapping[str, Any], keys: Sequence[str], on: Host) -> dict[str, Any]:
        """This part's options from PEFT's config and the names of the tensors.

        Raises:
            AssemblerError: the config asks for what this part does not do.
        """
        raise AssemblerError(f"{cls.type} has no form in PEFT")

    def merge(self, host: nn.Module, name: str) -> None:
        """Work the adapter `name` into the weights of `host` and take it off, where this part is `mergeable`."""
        from assembler.adapters.book import adapters_of

        book = adapters_of(host)
        if self.mergeable and book is not None and name in book.names:
            book.merge(name)


class NumberedPart(AdapterPart):
    """An adapter that is told a whole number for each row of the batch, such as its task, on wires of its own.

    Attributes:
        numbers: the wires; each is `on.wire(name, default)`, so that rows which are told nothing have the default.
    """

    numbers: ClassVar[tuple[str, ...]] = ()

    rows: dict[str, str] = Field({}, description="wire -> column of the data that holds the number of each row")

    @field_validator("rows")
    @classmethod
    def _known(cls, rows: dict[str, str]) -> dict[str, str]:
        wrong = next((name for name in rows if name not in cls.numbers), None)
        if wrong is not None:
            raise ValueError(f"there is no wire {wrong[:80]!r}; there is {', '.join(cls.numbers)}")
        return rows


class MixerPart(AdapterPart):
    """An adapter that combines what others change: `by=` of `fuse` or `route` in a composition.

    A subclass writes `combine`. The module is called with the list of the changes that the options make at a point,
    each [B, T, d], and the values that the first option reads there; it returns the change to make. One with a method
    `gates(*reads) -> [B, T, N]` is a router: the change is the sum of the changes weighted by its gates.
    """

    trait: ClassVar[Literal["delta", "whole", "mixer"]] = "mixer"

    def combine(self, on: Host, like: Insert, count: int) -> nn.Module:
        """The module that combines `count` options at the point `like.at`, where `like` is the first of them."""
        raise AssemblerError(f"{self.type} combines nothing")

    def inject(self, on: Host) -> None:
        for like in on.mixed:
            on.mixer(self.combine(on, like, on.options), like)


class DatasetPart(Part):
    """A part that yields rows; `fields` names the columns of a row and their kinds."""

    def fetch(self, base: Path, say: Callable[[str], None] = lambda what: None) -> None:
        """Bring what `rows` reads to this computer, where it is not there yet; `say` is told of each thing before."""

    def fields(self, base: Path) -> dict[str, str]:
        """Column name -> its kind, from KINDS, known from the options alone."""
        raise AssemblerError(f"{self.type} names no columns")

    def rows(self, base: Path) -> Sequence[dict[str, Any]]:
        """All rows, in a fixed order; an `assembler.rows.Rows` says more of each than a plain sequence does."""
        raise AssemblerError(f"{self.type} has no rows")
