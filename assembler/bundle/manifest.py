"""What a bundle's manifest.json says, and how raw samples become tensors: the one form that training and serving read.

Light on purpose: checking a spec reads this, and so does a server without torch.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from assembler.errors import AssemblerError
from assembler.files import write_text

FORMAT = 2
MANIFEST = "manifest.json"


def _inside(name: str) -> str:
    if not name or "\\" in name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError(f"{name!r} is outside the bundle")
    return name


FileName = Annotated[str, AfterValidator(_inside)]
Precision = Literal["fp32", "fp16", "bf16", "int8", "int8_dynamic", "int4"]
Held = Literal["int8"]
WEIGHTS = "weights.data"
"""The file that graphs of a bundle share, where they were written directly."""
Side = Annotated[int, Field(ge=1, le=8192)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageProcessor(Strict):
    """(pixels / 255 - mean) / std of a picture brought to `size` = (H, W).

    `mean` and `std` have one number, or one a channel. `fit` is "stretch" (both sides resized) or "crop" (the shorter
    relation decides, the middle is kept).

    With `crops` the picture becomes up to crops + 1 of that size: first all of it, then, row by row, the tiles of the
    grid of at most `crops` tiles whose shape is nearest to the picture's (of equally near ones the largest; the grid of
    one tile adds none).
    """

    kind: Literal["image"] = "image"
    size: tuple[Side, Side]
    channels: Literal[1, 3] = 3
    fit: Literal["stretch", "crop"] = "stretch"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    mean: tuple[Number, ...] = (0.0,)
    std: tuple[Positive, ...] = (1.0,)
    crops: int = Field(0, ge=0, le=64)

    @model_validator(mode="after")
    def _a_number_a_channel(self) -> ImageProcessor:
        if not {len(self.mean), len(self.std)} <= {1, self.channels}:
            raise ValueError(f"`mean` and `std` have one number, or one for each of {self.channels} channels")
        return self


class VideoProcessor(Strict):
    """`frames` pictures of a video, taken at even distances; a shorter one is followed by blank ones, or repeats."""

    kind: Literal["video"] = "video"
    frames: int = Field(ge=1, le=4096)
    short: Literal["mask", "repeat"] = "mask"
    picture: ImageProcessor

    @model_validator(mode="after")
    def _one_picture_a_frame(self) -> VideoProcessor:
        if self.picture.crops:
            raise ValueError("a frame of a video is not cut into crops")
        return self


class PointsProcessor(Strict):
    """A cloud as `points` rows of x, y, z and the first `extra` of its other channels.

    `normalize` "sphere" moves the mean to the origin and the farthest point to distance 1, before points are left out.
    Of a larger cloud `sample` keeps a "random" subset, the same for every cloud of that size, or the "farthest" points,
    each farthest from those before it. A smaller one is followed by zeros, or repeats itself.
    """

    kind: Literal["points"] = "points"
    points: int = Field(ge=1, le=2**20)
    extra: int = Field(0, ge=0, le=1024)
    normalize: Literal["sphere", "none"] = "sphere"
    sample: Literal["random", "farthest"] = "random"
    short: Literal["mask", "repeat"] = "mask"


class SoundProcessor(Strict):
    """A sound at `rate` samples a second, padded with silence or cut to `samples`."""

    kind: Literal["audio"] = "audio"
    rate: int = Field(ge=1)
    samples: int = Field(ge=1)


class TextProcessor(Strict):
    """A text as ids of the tokenizer (a tokenizer.json), cut or padded at the end to `length`."""

    kind: Literal["text"] = "text"
    tokenizer: str
    length: int = Field(ge=1, le=2**20)
    pad: int = Field(0, ge=0)


class ExpressionProcessor(Strict):
    """A cell as one number a gene, in the order of `genes`, or of the file `vocabulary` with one gene a line.

    A gene that the cell does not have counts as 0; a cell that has none of them is refused. `normalise`: "log1p_cp10k"
    is ln(1 + 10,000 * count / all counts of the cell), of raw counts; "counts" takes raw counts as they are; "none"
    takes values that are normalised already. A cell of the other kind is refused.
    """

    kind: Literal["expression"] = "expression"
    genes: tuple[str, ...] = ()
    vocabulary: str | None = None
    normalise: Literal["log1p_cp10k", "counts", "none"] = "log1p_cp10k"

    @model_validator(mode="after")
    def _one_list(self) -> ExpressionProcessor:
        if bool(self.genes) == (self.vocabulary is not None):
            raise ValueError("give one of `genes` and `vocabulary`")
        return self


Processor = Annotated[
    ImageProcessor | VideoProcessor | SoundProcessor | PointsProcessor | ExpressionProcessor | TextProcessor,
    Field(discriminator="kind"),
]
FILES = ("tokenizer", "vocabulary")
"""Fields of a processor that name a file, which a bundle takes along."""


class Input(Strict):
    """A raw sample that the bundle takes, and whether its tensor comes with a mask `NAME_mask`."""

    processor: Processor
    masked: bool = False


class Slot(Strict):
    """A slot of the prompt: the graph that fills it, the inputs it takes, and the most tokens that come out.

    `precision` is that of the graph's weights.
    Where it is `ragged` the graph's second output is a mask [B, tokens], and only the real ones enter the prompt.
    A graph that fills several slots has `outputs` for each: the names of its features and, where it is ragged, mask.
    """

    graph: FileName
    inputs: list[str] = Field(min_length=1)
    tokens: int = Field(ge=1, le=2**20)
    ragged: bool = False
    precision: Precision = "fp32"
    outputs: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _named(self) -> Slot:
        if self.outputs and len(self.outputs) != 1 + self.ragged:
            raise ValueError(f"{self.graph}: `outputs` names {1 + self.ragged} of the graph's")
        return self


class PromptPart(Strict):
    """One of: a literal `text`, a `column` of the sample, a `slot`."""

    text: str | None = None
    column: str | None = None
    slot: str | None = None

    @model_validator(mode="after")
    def _one(self) -> PromptPart:
        if sum(item is not None for item in (self.text, self.column, self.slot)) != 1:
            raise ValueError("a part of the prompt is one of text, column and slot")
        return self


class Manifest(Strict):
    """manifest.json. `files` gives the SHA-256 of every other file in the folder; `bos` begins each prompt, if any.

    `digest` is that of the manifest itself. `cache` says what the decoder does with its keys and values, `held` in how
    many bits they are kept where those are not its own, `positions` how many tokens it reads at most, `origin` whether
    it was written directly or traced, and why. `prompts` is the decoder's graph once more, where it has one that a CPU
    is faster with in long prompts. `adapters` are LoRAs by name, of which one may be asked for.
    """

    format: Literal[2] = 2
    name: str
    precision: Precision
    inputs: dict[str, Input] = {}
    slots: dict[str, Slot]
    prompt: list[PromptPart] = Field(min_length=1)
    bos: int | None = Field(None, ge=0)
    stop: list[Annotated[int, Field(ge=0)]]
    max_new_tokens: int = Field(ge=1, le=100_000)
    vocab_size: int = Field(ge=1, le=2**31)
    embedding: FileName = "embedding.onnx"
    decoder: FileName = "decoder.onnx"
    prompts: FileName | None = None
    tokenizer: FileName = "tokenizer.json"
    adapters: dict[str, FileName] = {}
    cache: Literal["grows", "in_place"] = "grows"
    held: Held | None = None
    positions: int | None = Field(None, ge=1)
    origin: str = "traced"
    files: dict[FileName, str]
    digest: str = ""

    def own_digest(self) -> str:
        """SHA-256 of everything that the manifest says, but for this."""
        plain = self.model_dump_json(exclude={"digest"}, exclude_none=True)
        return hashlib.sha256(plain.encode()).hexdigest()

    @model_validator(mode="after")
    def _whole(self) -> Manifest:
        used = [part.slot for part in self.prompt if part.slot is not None]
        unknown = sorted(set(used) - set(self.slots))
        if unknown:
            raise ValueError(f"the prompt has the slots {', '.join(unknown)}, which no graph fills")
        lacking = sorted({name for slot in self.slots.values() for name in slot.inputs} - set(self.inputs))
        if lacking:
            raise ValueError(f"a slot takes {lacking[0]}, which `inputs` does not describe")
        ids = [*self.stop, *([] if self.bos is None else [self.bos])]
        if any(token >= self.vocab_size for token in ids):
            raise ValueError(f"`bos` and `stop` are token ids, below `vocab_size` {self.vocab_size}")
        named = [
            *self.graphs,
            *([self.prompts] if self.prompts else []),
            self.tokenizer,
            *self.companions,
            *self.adapters.values(),
        ]
        unlisted = [name for name in named if name not in self.files]
        if unlisted:
            raise ValueError(f"`files` has no hash of {unlisted[0]}")
        return self

    @property
    def companions(self) -> list[str]:
        """The files that processors read."""
        processors = [item.processor for item in self.inputs.values()]
        return [getattr(p, field) for p in processors for field in FILES if getattr(p, field, None)]

    @property
    def encoders(self) -> list[str]:
        """The file of every graph that fills slots."""
        return list(dict.fromkeys(slot.graph for slot in self.slots.values()))

    @property
    def graphs(self) -> list[str]:
        """The file of every graph."""
        return [*self.encoders, self.embedding, self.decoder]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json with the digest of itself."""
    whole = manifest.model_copy(update={"digest": manifest.own_digest()})
    write_text(folder / MANIFEST, whole.model_dump_json(indent=2, exclude_none=True) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the bundle at `folder`.

    Raises:
        AssemblerError: it is not there, it is none of this format, or it is not as it was written.
    """
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise AssemblerError(f"{folder}: no manifest.json here; name the folder of an exported bundle") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        what = first["msg"].removeprefix("Value error, ")
        raise AssemblerError(f"{path}: {where}: {what}; export again with this version (format {FORMAT})") from error
    if manifest.digest != manifest.own_digest():
        raise AssemblerError(f"{path} is not the file that was exported; its digest differs. Export again.")
    return manifest
