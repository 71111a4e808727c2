"""One question to a bundle, from files and words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from assembler.errors import AssemblerError


def ask(folder: Path, images: Sequence[str], prompts: Sequence[str], max_new_tokens: int | None = None) -> str:
    """The bundle's greedy answer; images and prompts are `FILE` or `SLOT=FILE`, `TEXT` or `SLOT=TEXT`.

    Raises:
        AssemblerError: a slot is missing, unknown or given twice, or a file is no picture.
    """
    from assembler.bundle.processor import open_image
    from assembler.bundle.runtime import Bundle

    bundle = Bundle(folder)
    columns = [part.column for part in bundle.manifest.prompt if part.column is not None]
    pictures = _named(images, list(bundle.manifest.slots), "--image")
    words = _named(prompts, columns, "--prompt")
    sample = {**{slot: open_image(Path(file)) for slot, file in pictures.items()}, **words}
    return bundle.generate([sample], max_new_tokens)[0].strip()


def _named(given: Sequence[str], slots: list[str], option: str) -> dict[str, str]:
    """Each slot's value: by name where one is said, else in the order of the slots."""
    found: dict[str, str] = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or name not in slots:
            left = [slot for slot in slots if slot not in found]
            if not left:
                taken = ", ".join(slots) or "none"
                raise AssemblerError(f"{option} {item}: the bundle takes {len(slots)} of these ({taken})")
            name, text = left[0], item
        if name in found:
            raise AssemblerError(f"{option} {item}: {name} is given twice")
        found[name] = text
    missing = [slot for slot in slots if slot not in found]
    if missing:
        raise AssemblerError(f"the bundle also wants {option} {missing[0]}=...")
    return found
