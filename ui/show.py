"""Small things that every page shows alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import streamlit as st

from ui.jobs import command_line

Colour = Literal["red", "orange", "yellow", "blue", "green", "violet", "gray", "primary"]
BADGES: dict[str, tuple[Colour, str]] = {
    "running": ("blue", ":material/play_arrow:"),
    "done": ("green", ":material/check:"),
    "stopped": ("gray", ":material/pause:"),
    "ended early": ("orange", ":material/warning:"),
}


def state(name: str) -> None:
    """A state as a coloured word."""
    colour, icon = BADGES[name]
    st.badge(name, color=colour, icon=icon)


def command(*lines: Sequence[str]) -> None:
    """The command lines that do the same, to copy."""
    st.code("\n".join(map(command_line, lines)), language="bash", wrap_lines=True)


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def size(count: float) -> str:
    """Bytes as a person says them."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def plain(text: Any, missing: str = "-") -> None:
    """A text that came from a spec, a model or a file, as text alone: neither Markdown nor HTML is made of it."""
    st.text(str(text) if text not in (None, "") else missing)


def escaped(text: str) -> str:
    """A text as Markdown that shows just its letters."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def error(sentence: str) -> None:
    """What went wrong; the sentence may quote anything, so it is shown as text."""
    st.error("  \n".join(escaped(line) for line in sentence.splitlines()), icon=":material/error:")


def nothing_yet(sentence: str, page: Any = None, label: str = "") -> None:
    """What an empty page says, and where to go."""
    with st.container(border=True, horizontal_alignment="center"):
        st.space("small")
        st.markdown(sentence, text_alignment="center")
        if page is not None and st.button(label, type="primary"):
            st.switch_page(page)
        st.space("small")


def page(name: str) -> Any:
    """A page of the app by its address, to switch to."""
    return st.session_state["pages"][name]
