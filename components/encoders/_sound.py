"""What encoders of sound share: the rate they hear, and the tokens that a stack of convolutions makes of a length."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from assembler.bundle.manifest import SoundProcessor
from assembler.errors import AssemblerError
from assembler.part import Part

RATE = 16_000


def sound_processor(source: Part, who: str) -> SoundProcessor:
    """The processor of an `input.audio` node.

    Raises:
        AssemblerError: it is of another rate than the encoder hears.
    """
    sound = source.model_dump()
    if sound["rate"] != RATE:
        raise AssemblerError(f"{who} hears {RATE:,} samples a second, and the input has {sound['rate']:,}; set `rate`")
    return SoundProcessor(rate=RATE, samples=round(sound["seconds"] * RATE))


def field(kernels: Sequence[int], strides: Sequence[int]) -> tuple[int, int]:
    """(samples that one token hears, samples from one token to the next) of convolutions without padding."""
    steps = [prod(strides[:i]) for i in range(len(kernels))]
    return 1 + sum((kernel - 1) * step for kernel, step in zip(kernels, steps, strict=True)), prod(strides)


def tokens_of(samples: int, kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Tokens that convolutions without padding make of so many samples.

    >>> tokens_of(16_000, (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
    49
    """
    hears, step = field(kernels, strides)
    return max(0, (samples - hears) // step + 1)
