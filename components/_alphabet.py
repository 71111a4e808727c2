"""The labels of CTC: characters of a given alphabet or, without one, the bytes of UTF-8; 0 is the blank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assembler.errors import AssemblerError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Alphabet:
    """Label i + 1 is character i. An alphabet without capitals reads a text as if it had none."""

    characters: str | None = None

    @property
    def size(self) -> int:
        """Labels, the blank among them."""
        return 1 + (256 if self.characters is None else len(self.characters))

    def encode(self, text: str) -> list[int]:
        """The labels of a text.

        Raises:
            AssemblerError: a character is not in the alphabet.
        """
        if self.characters is None:
            return [1 + byte for byte in text.encode()]
        text = text.casefold() if self.characters == self.characters.casefold() else text
        odd = next((character for character in text if character not in self.characters), None)
        if odd is not None:
            raise AssemblerError(f"the alphabet lacks {odd!r} of {text[:60]!r}; add it, or leave `alphabet` out")
        return [1 + self.characters.index(character) for character in text]

    def decode(self, labels: Sequence[int]) -> str:
        """The text of the best label at every place: repeats are one, and blanks fall away."""
        kept = [x for x, before in zip(labels, [0, *labels], strict=False) if x and x != before]
        if self.characters is None:
            return bytes(x - 1 for x in kept).decode(errors="replace")
        return "".join(self.characters[x - 1] for x in kept)

    def batch(self, node: str, rows: Sequence[dict[str, Any]], column: str) -> Tensor:
        """Labels [B, S] of the texts in a column, with blanks after the shorter ones."""
        import torch

        try:
            found = [self.encode(row[column]) for row in rows]
        except AssemblerError as error:
            raise AssemblerError(f"{node}: column {column}: {error}") from error
        longest = max([1, *map(len, found)])
        return torch.tensor([labels + [0] * (longest - len(labels)) for labels in found])
