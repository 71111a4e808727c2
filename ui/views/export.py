"""The Export page: write a run as a bundle, see how close, large and fast it is, take it away."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import streamlit as st

from assembler.bundle.manifest import Precision, read_manifest
from assembler.errors import AssemblerError
from assembler.runs import Run
from ui import exporting, show, training
from ui.exporting import Parity
from ui.jobs import Job
from ui.talking import has_learned, wants_of
from ui.views.try_it import asked
from ui.workspace import Workspace

PRECISIONS = get_args(Precision)
EVERY = 1.5


def render() -> None:
    """Draw the page."""
    workspace = Workspace.current()
    st.title("Export", anchor=False)
    runs = {run.folder.name: run for run in training.runs_in(workspace) if has_learned(run)}
    if not runs and not exporting.bundles_in(workspace):
        show.nothing_yet("There is nothing to export yet. Train a run until a stage is finished.")
        return
    if runs:
        _form(workspace, runs)
    for name in exporting.writing(workspace):
        _writing(workspace, name)
    _table(workspace)
    for folder in exporting.bundles_in(workspace):
        _bundle(folder)


def _form(workspace: Workspace, runs: dict[str, Run]) -> None:
    with st.container(border=True):
        run_column, precision_column, name_column, button_column = st.columns(
            [2, 2, 2, 1.3], vertical_alignment="bottom"
        )
        run = run_column.selectbox("Run", list(runs))
        about = "fp32 equals torch; the others are smaller, and how far each may drift is checked"
        precision = precision_column.selectbox("Weights of the decoder", PRECISIONS, help=about)
        proposed = _free(workspace, f"{run}-{precision}")
        name = name_column.text_input("Name of the bundle", value=proposed, key=f"bundle-{proposed}")
        pressed = button_column.button("Export", type="primary", icon=":material/deployed_code:", width="stretch")
        show.command(exporting.arguments(workspace, runs[run], name or "NAME", precision))
    if pressed:
        exporting.begin(workspace, runs[run], name, precision)
        st.rerun()


def _free(workspace: Workspace, name: str) -> str:
    taken = {path.name for path in exporting.bundles_in(workspace)} | set(exporting.writing(workspace))
    return next(n for n in (name, *(f"{name}-{i}" for i in range(2, 100_000))) if n not in taken)


def _writing(workspace: Workspace, name: str) -> None:
    """A bundle that is being written, or could not be."""
    job = exporting.job_of(workspace, name)
    running = job.running
    with st.container(border=True):
        head, action = st.columns([5, 1], vertical_alignment="center")
        with head, st.container(horizontal=True, vertical_alignment="center"):
            show.state("running" if running else "ended early")
            show.plain(name)
        if running:
            action.button("Stop writing", key=f"stop-{name}", on_click=job.stop, width="stretch")
            st.fragment(_progress, run_every=EVERY)(job)
        else:
            args = (workspace, name)
            action.button("Dismiss", key=f"dismiss-{name}", on_click=exporting.dismiss, args=args, width="stretch")
            show.plain(job.last_word())


def _progress(job: Job) -> None:
    if not job.running:
        st.rerun()
    st.progress(_share(job), text="writing the graphs and comparing them with torch")


def _share(job: Job) -> float:
    """How far an export is: it says what it does line by line, five things in all at most."""
    return min(0.95, 0.1 + 0.2 * len(job.said().splitlines()))


def _bundle(folder: Path) -> None:
    """One bundle: its parity, the ways to serve it, and the download."""
    parity = exporting.parity_of(folder)
    with st.container(border=True, key=f"bundle-{folder.name}"):
        head, actions = st.columns([3, 2], vertical_alignment="center")
        with head, st.container(horizontal=True, vertical_alignment="center"):
            show.plain(folder.name)
            if parity:
                st.badge(show.escaped(parity.precision), color="gray")
                same, exact = parity.greedy == 1.0, parity.precision == "fp32"
                word = ("equals torch" if exact else "answers as torch does") if same else "answers differ"
                st.badge(word, color="green" if same else "orange")
        with actions, st.container(horizontal=True, horizontal_alignment="right"):
            url = f"bundles/{folder.name}.zip"
            st.link_button("Download", url, icon=":material/download:", help="The folder as a zip file")
            if st.button("Delete", key=f"delete-{folder.name}", type="tertiary"):
                _confirm(folder.name)
        if parity:
            _parity(parity)
        st.caption("Serve it, in OpenAI's chat format, or ask it from a terminal; neither needs torch")
        show.command(["serve", str(folder)], ["ask", str(folder), *asked(wants_of(read_manifest(folder)))])


def _parity(parity: Parity) -> None:
    """How far each graph is from torch."""
    import pandas

    rows = [
        {"graph": row.graph, "largest difference": f"{row.max_abs:.1e}", "relative": f"{row.relative:.1e}"}
        for row in parity.graphs
    ]
    st.dataframe(pandas.DataFrame(rows), hide_index=True, width="stretch", alt="The parity report")
    moved = parity.drift
    told = f"; drift {moved.kl:.1e} nats a token, at most {moved.bound:g}" if moved else ""
    st.caption(
        f"Greedy answers equal to torch's on {parity.greedy:.0%} of {parity.samples} rows{told}; "
        f"{show.size(parity.bytes)} in all"
    )


@st.dialog("Delete this bundle?")
def _confirm(name: str) -> None:
    show.plain(name)
    st.markdown("Its folder is removed from the disk. The run it was made from stays.")
    if st.button("Delete", type="primary", key="confirm-delete"):
        exporting.delete(Workspace.current(), name)
        st.rerun()


def _table(workspace: Workspace) -> None:
    """Bundles side by side: size, drift and, once measured, speed."""
    found = exporting.bundles_in(workspace)
    if not found:
        return
    import pandas

    with st.container(border=True):
        head, action = st.columns([5, 1], vertical_alignment="center")
        head.subheader("Size and speed", anchor=False)
        about = f"Each answers {exporting.MEASURED} held-out rows, one at a time, on this computer"
        pressed = action.button("Measure", icon=":material/speed:", help=about, width="stretch")
        if pressed:
            _measure(workspace, [folder.name for folder in found])
        table = pandas.DataFrame([_line(workspace, folder) for folder in found])
        st.dataframe(table, hide_index=True, width="stretch", alt="Size and speed of the bundles")


def _measure(workspace: Workspace, names: list[str]) -> None:
    for name in names:
        with st.spinner(f"Asking {show.escaped(name)}"):
            try:
                exporting.measure(workspace, name)
            except AssemblerError as error:
                show.error(str(error))


def _line(workspace: Workspace, folder: Path) -> dict[str, str | None]:
    parity, speed = exporting.parity_of(folder), exporting.speed_of(workspace, folder.name)
    rate = speed.tokens_per_second if speed else None
    return {
        "bundle": folder.name,
        "precision": parity.precision if parity else None,
        "size": show.size(parity.bytes if parity else training.size_of(folder)),
        "greedy answers equal": f"{parity.greedy:.0%}" if parity else None,
        "drift, nats a token": f"{parity.drift.kl:.1e}" if parity and parity.drift else None,
        "first token": f"{1000 * speed.first_token:.0f} ms" if speed else None,
        "tokens a second": f"{rate:.1f}" if rate else None,
    }
