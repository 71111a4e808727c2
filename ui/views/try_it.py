"""The Try page: ask a run, a bundle, or both side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from assembler.errors import AssemblerError
from ui import pickers, show, talking
from ui.talking import Answer, Talker
from ui.workspace import Workspace

HELD_OUT = 48


@st.cache_resource(max_entries=3, show_spinner="Loading the model")
def _talker(folder: str, stamp: float) -> Talker:
    return talking.load(Path(folder))


@st.cache_resource(max_entries=2, show_spinner="Reading held-out rows")
def _rows(folder: str, stamp: float) -> list[dict[str, Any]]:
    talker = _talker(folder, stamp)
    return talker.held_out(HELD_OUT) if isinstance(talker, talking.TorchTalker) else []


def render() -> None:
    """Draw the page."""
    st.title("Try", anchor=False)
    found = talking.talkers(Workspace.current())
    if not found:
        show.nothing_yet("There is nothing to ask yet. Train a run until a stage is finished, or export a bundle.")
        return
    names = list(found)
    default = [names[0], *(name for name in names if name.endswith("ONNX"))][:2]
    chosen = st.multiselect("Models", names, default=list(dict.fromkeys(default)), max_selections=3)
    if not chosen:
        st.caption("Choose at least one.")
        return
    places = {name: (str(found[name]), talking.stamp(found[name])) for name in chosen}
    talkers = {name: _talker(*place) for name, place in places.items()}
    wants: dict[str, str] = {}
    for talker in talkers.values():
        wants.update(talker.wants)
    question, answers = st.columns([4, 5], gap="large")
    with question:
        examples, index = _example(places)
        sample = pickers.sample(wants, examples, index)
        missing = [name for name in wants if name not in sample]
        pressed = st.button("Ask", type="primary", icon=":material/send:", disabled=bool(missing), width="stretch")
        if missing:
            st.caption(f"Still wanted: {show.escaped(', '.join(missing))}")
    with answers:
        _answers(talkers, sample, {} if index is None else examples[index], pressed)
        for name in chosen:
            if isinstance(talkers[name], talking.BundleTalker):
                st.caption("The same from a terminal")
                show.command(["ask", str(found[name]), *asked(wants)])


def asked(wants: dict[str, str]) -> list[str]:
    """What `assembler ask` takes for a sample."""
    words = [("--prompt" if kind == "text" else f"--{kind}", name, kind) for name, kind in wants.items()]
    return [w for option, name, kind in words for w in (option, f"{name}={'TEXT' if kind == 'text' else 'FILE'}")]


def _example(places: dict[str, tuple[str, float]]) -> tuple[list[dict[str, Any]], int | None]:
    """Held-out rows of the first run that is chosen, and which of them the user takes."""
    place = next((place for name, place in places.items() if name.endswith("torch")), None)
    rows = _rows(*place) if place else []
    if not rows:
        return [], None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        taken = st.toggle("Take a row that was held out", value=True)
        number = st.number_input("Row", 1, len(rows), 1, disabled=not taken, width=160)
    return rows, int(number) - 1 if taken else None


def _answers(talkers: dict[str, Talker], sample: dict[str, Any], example: dict[str, Any], pressed: bool) -> None:
    """The answers, each in its own column as it grows, and how long each took."""
    for index, (column, (name, talker)) in enumerate(zip(st.columns(len(talkers)), talkers.items(), strict=True)):
        with column, st.container(border=True, height="stretch", key=f"answer-{index}"):
            st.caption(show.escaped(name))
            place, below = st.empty(), st.empty()
            if not pressed:
                below.caption("Its answer will stand here.")
                continue
            try:
                answer = talker.ask({key: sample[key] for key in talker.wants}, place.text)
            except AssemblerError as error:
                place.text(str(error))
                continue
            place.text(answer.text.strip() or "(it says nothing)")
            below.caption(_speed(answer))
    if pressed and "expected" in example:
        st.caption("Expected")
        show.plain(example["expected"])


def _speed(answer: Answer) -> str:
    took = f"{1000 * answer.seconds:.0f} ms" if answer.seconds < 1 else f"{answer.seconds:.1f} s"
    if answer.tokens is None:
        return took
    rate = f" · {answer.tokens / answer.seconds:.1f} tokens/s" if answer.tokens else ""
    return f"{answer.tokens} tokens in {took}{rate}"
