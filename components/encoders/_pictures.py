"""What image encoders share: a picture, crops of one or the frames of a video in; one grid of tokens each out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from assembler.bundle.manifest import ImageProcessor, Number, Positive, Processor, VideoProcessor
from assembler.part import Masks, Part, WireError
from assembler.values import Value, value


class PictureEncoder(Part):
    """image [B, C, H, W] -> tokens [B, T, width]; video [B, F, C, H, W] -> tokens [B, F * T, width], frame by frame.

    The tokens' facts are the `grid` = (rows, columns) of each picture, where they are nothing else, and `frames` = F.
    Tokens of a frame that is not real are not real. One embedding a picture makes a token a frame.
    """

    accepts: ClassVar[dict[str, tuple[str, ...]]] = {"in": ("image", "video")}
    masks: ClassVar[Masks] = "own"

    prefix: bool = Field(False, description="keep class and register tokens, in front")
    mean: tuple[Number, ...] | None = Field(None, description="of the pixels, a channel each; by default the model's")
    std: tuple[Positive, ...] | None = Field(None, description="of the pixels, a channel each; by default the model's")

    def check_statistics(self, pictures: Value) -> None:
        """`mean` and `std` fit the wire's channels.

        Raises:
            WireError: they have another count.
        """
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers is not None and len(numbers) not in (1, pictures["channels"]):
                raise WireError("in", f"`{name}` has {len(numbers)} numbers; give one, or {pictures['channels']}")

    def tokens_of(self, pictures: Value, grid: tuple[int, int], width: int, extra: int = 0) -> Value:
        """The value of `extra` tokens and then a grid for each picture."""
        tokens, facts = grid[0] * grid[1] + extra, {} if extra else {"grid": grid}
        if pictures.kind == "image":
            return value("tokens", facts=facts, tokens=tokens, width=width)
        frames = pictures.size("frames")
        return value("tokens", pictures.ragged, {**facts, "frames": frames}, tokens=frames * tokens, width=width)

    def embedding_of(self, pictures: Value, width: int) -> Value:
        """The value of one embedding for each picture."""
        if pictures.kind == "image":
            return value("embedding", width=width)
        frames = pictures.size("frames")
        return value("tokens", pictures.ragged, {"frames": frames}, tokens=frames, width=width)

    def pictures(self, source: Part, mean: Sequence[float], std: Sequence[float], interpolation: str) -> Processor:
        """How the samples of an input node become pixels, by the model's statistics or this part's own."""
        knobs = source.model_dump()
        channels, crops = knobs["channels"], knobs.get("crops", 0)
        picture = ImageProcessor(
            **{key: knobs[key] for key in ("size", "channels", "fit")},
            mean=self.mean or tuple(mean[:channels]),
            std=self.std or tuple(std[:channels]),
            interpolation=interpolation,  # type: ignore[arg-type]
            crops=crops,
        )
        if "frames" not in knobs:
            return picture
        return VideoProcessor(frames=knobs["frames"], short=knobs["short"], picture=picture)
