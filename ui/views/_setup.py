"""A new run: the data, the stages as a table, and the start."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st
import yaml
from pydantic import ValidationError

from assembler.errors import AssemblerError
from assembler.part import Part
from assembler.registry import family, parts
from assembler.spec import Stage
from ui import show, stages, training
from ui.editing import Opened, Plain, change, slug
from ui.opening import key_of
from ui.workspace import Workspace

LABELS = {
    "steps": "Steps",
    "batch": "Batch",
    "lr": "Learning rate",
    "warmup": "Warm-up steps",
    "schedule": "Schedule",
    "weight_decay": "Weight decay",
    "clip": "Gradient clip",
    "save_every": "Checkpoint every",
    "precision": "Precision",
}
FIRST = ("steps", "batch", "lr")
LOOKS = 20
"""How often the watched rows are answered in a run, unless one says otherwise."""


def render(workspace: Workspace) -> None:
    """Draw the form."""
    opened = Opened.read()
    if not opened.document["nodes"]:
        _problems(opened)
        show.nothing_yet("There is no model to train yet. Open one in the gallery, or draw one.")
        return
    _model(opened)
    if not stages.well_formed(opened.document):
        return
    _data(opened)
    _stages(opened)
    _start(workspace, opened)


def _model(opened: Opened) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        show.plain(f"{opened.name}   ·   {key_of(opened.path) if opened.path else 'not saved yet'}")
        if opened.unsaved:
            st.badge("unsaved changes", color="gray", icon=":material/edit:")
    _problems(opened)


def _problems(opened: Opened) -> None:
    """What is wrong, where and in words; text alone, since it quotes the spec."""
    if not opened.problems:
        return
    count = len(opened.problems)
    with st.container(border=True, key="problems"):
        st.markdown(
            f":orange[:material/warning:] **{count} problem{'s' if count > 1 else ''}** to mend before training"
        )
        for problem in opened.problems[:12]:
            show.plain(f"line {problem.place.line}: {problem.message}")


def _set(key: str, value: Any) -> str:
    """A widget's key, with the value that the document has."""
    st.session_state[key] = value
    return key


def _changed(key: str, edit: Any) -> None:
    value = st.session_state[key]
    change(lambda document: edit(document, value))


def _data(opened: Opened) -> None:
    """The dataset, its options, and which column feeds what."""
    document = opened.document
    data: Plain = document.get("data") or {}
    kinds = [name for name in parts() if family(name) == "dataset"]
    with st.container(border=True):
        st.subheader("Data", anchor=False)
        left, right = st.columns([1, 1], gap="large")
        with left:
            options = kinds if data.get("type") in kinds else ["", *kinds]
            key = _set("data-type", data.get("type") if data.get("type") in kinds else "")
            st.selectbox("Dataset", options, key=key, on_change=_changed, args=(key, _set_type))
            if data.get("type") in kinds:
                _options(data)
        with right:
            if data.get("type") in kinds:
                _columns(opened, data)
                key = _set("held-out", round(100 * float(data.get("held_out", 0.2))))
                st.slider("Held out, %", 0, 90, key=key, on_change=_changed, args=(key, _set_held_out))


def _set_type(document: Plain, value: str) -> Plain:
    return {**document, "data": {"type": value, **_guessed(value)} if value else None}


def _guessed(kind: str) -> Plain:
    """Columns of a new dataset where there is no choice: none has the name, and one has the kind."""
    opened, part = Opened.read(), parts()[kind]
    try:
        fields = part.model_validate({}).fields(opened.graph.base)  # type: ignore[attr-defined]
    except (ValidationError, AssemblerError):
        return {}  # its options are needed to know its columns
    columns = {}
    for name, its in _wanted(opened).items():
        fitting = [column for column, other in fields.items() if other == its]
        if name not in fields and len(fitting) == 1:
            columns[name] = fitting[0]
    return {"columns": columns} if columns else {}


def _set_held_out(document: Plain, value: int) -> Plain:
    return {**document, "data": {**document["data"], "held_out": value / 100}}


def _options(data: Plain) -> None:
    """A field for each option of the dataset, made from its schema."""
    schema = parts()[data["type"]].model_json_schema()
    given = data.get("options") or {}
    for name, field in schema.get("properties", {}).items():
        if name in Part.model_fields:  # what every part has says nothing about data
            continue
        value, key = given.get(name, field.get("default")), f"option-{data['type']}-{name}"
        label, about = name.replace("_", " ").capitalize(), field.get("description")
        knobs: dict[str, Any] = {"help": about, "on_change": _changed}
        if field.get("type") == "boolean":
            st.checkbox(label, key=_set(key, bool(value)), args=(key, partial(_set_option, name)), **knobs)
        elif "enum" in field:
            st.selectbox(label, field["enum"], key=_set(key, value), args=(key, partial(_set_option, name)), **knobs)
        else:
            text = _text(value) if field.get("type") != "string" else (value or "")
            read = partial(_set_option, name) if field.get("type") == "string" else partial(_set_yaml_option, name)
            st.text_input(label, key=_set(key, text), args=(key, read), **knobs)


def _text(value: Any) -> str:
    """A value as one line of YAML."""
    return "" if value is None else yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _set_option(name: str, document: Plain, value: Any) -> Plain:
    options = {**(document["data"].get("options") or {}), name: value}
    return {**document, "data": {**document["data"], "options": {k: v for k, v in options.items() if v is not None}}}


def _set_yaml_option(name: str, document: Plain, text: str) -> Plain:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text  # as it is: the check says what it should be
    return _set_option(name, document, value)


def _wanted(opened: Opened) -> dict[str, str]:
    """What the graph reads from the data, and the kind of each."""
    graph, found = opened.graph, {}
    for node, part in graph.parts.items():
        wired = {edge.port for edge in graph.edges if edge.target == node}
        found.update(part.columns(node, wired))
    return found


def _columns(opened: Opened, data: Plain) -> None:
    """Which column of the data feeds each input and each slot of the prompt."""
    graph, wanted = opened.graph, _wanted(opened)
    found = graph.dataset.fields(graph.base) if graph.dataset else {}
    mapped = data.get("columns") or {}
    for name, kind in wanted.items():
        fitting = [column for column, its in found.items() if its == kind]
        now = mapped.get(name, name)
        options = list(dict.fromkeys([*fitting, now]))
        key = _set(f"column-{name}", now)
        args = (key, partial(_set_column, name))
        st.selectbox(f"{show.escaped(name)} takes the {kind}", options, key=key, on_change=_changed, args=args)


def _set_column(name: str, document: Plain, value: str) -> Plain:
    columns = {**(document["data"].get("columns") or {}), name: value}
    columns = {k: v for k, v in columns.items() if k != v}
    data = {**document["data"], "columns": columns}
    return {**document, "data": data if columns else {k: v for k, v in data.items() if k != "columns"}}


def _stages(opened: Opened) -> None:
    """Stages as columns: their settings above, and below what each part is in them."""
    document = opened.document
    count = len(document.get("stages") or [])
    with st.container(border=True):
        head, add = st.columns([4, 1], vertical_alignment="center")
        head.subheader("Stages", anchor=False)
        add.button("Add a stage", icon=":material/add:", on_click=change, args=(stages.add_stage,), width="stretch")
        if not count:
            st.caption("A stage says what learns, for how long and how fast. Everything else is frozen.")
            return
        widths = [1.1, *[1.6] * count]
        for index, column in enumerate(st.columns(widths)[1:]):
            with column:
                _settings(document, index, list(opened.graph.objectives))
        st.space("small")
        for row in stages.rows(document):
            label, *cells = st.columns(widths, vertical_alignment="center")
            with label:
                show.plain(row)
            for index, column in enumerate(cells):
                with column:
                    _cell(document, row, index)


def _settings(document: Plain, index: int, objectives: list[str]) -> None:
    name, remove = st.columns([5, 1], vertical_alignment="bottom")
    with name:
        _setting(document, index, "name", "Stage")
    with remove:
        st.button(
            "",
            icon=":material/close:",
            key=f"remove-{index}",
            help="Remove this stage",
            type="tertiary",
            on_click=change,
            args=(partial(stages.remove_stage, stage=index),),
        )
    for column, field in zip(st.columns(len(FIRST)), FIRST, strict=True):
        with column:
            _setting(document, index, field, LABELS[field])
    with st.expander("More"):
        for field in [field for field in stages.FIELDS if field not in FIRST]:
            _setting(document, index, field, LABELS[field])
    if len(objectives) > 1:
        key = _set(f"stage-{index}-objectives", stages.counted(document, index, objectives))
        args = (key, partial(_set_counted, index, objectives))
        about = "Nodes whose losses count in this stage; what none of them needs is not computed"
        st.multiselect("Losses of", objectives, key=key, on_change=_changed, args=args, help=about)


def _set_counted(index: int, objectives: list[str], document: Plain, chosen: list[str]) -> Plain:
    return stages.set_counted(document, index, objectives, chosen)


def _setting(document: Plain, index: int, field: str, label: str) -> None:
    """One setting; numbers are typed as text, so that 1e-3 stays 1e-3, and the check says what does not fit."""
    value = stages.setting(document, index, field)
    key = f"stage-{index}-{field}"
    args = (key, partial(_set_setting, index, field))
    annotation = Stage.model_json_schema()["properties"][field]
    if "enum" in annotation:
        options = annotation["enum"] if value in annotation["enum"] else [*annotation["enum"], value]
        st.selectbox(label, options, key=_set(key, value), on_change=_changed, args=args)
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
        st.text_input(label, key=_set(key, text), on_change=_changed, args=args)


def _set_setting(index: int, field: str, document: Plain, text: str) -> Plain:
    kind = Stage.model_json_schema()["properties"][field].get("type")
    value: Any = text.strip()
    try:
        value = int(value) if kind == "integer" else float(value) if kind == "number" else value
    except ValueError as error:
        wanted = "a whole number" if kind == "integer" else "a number"
        raise AssemblerError(f"{LABELS.get(field, field)} is {wanted}, not {value!r}; nothing was changed") from error
    return stages.set_setting(document, index, field, value)


def _cell(document: Plain, row: str, index: int) -> None:
    key = _set(f"cell-{index}-{row}", stages.cell(document, row, index))
    options = stages.choices(document, row)
    args = (key, partial(_set_cell, row, index))
    label = f"{show.escaped(row)} in stage {index + 1}"
    st.segmented_control(label, options, key=key, on_change=_changed, args=args, label_visibility="collapsed")


def _set_cell(row: str, index: int, document: Plain, state: str | None) -> Plain:
    return stages.set_cell(document, row, index, state or stages.FROZEN)


def _start(workspace: Workspace, opened: Opened) -> None:
    """The name, and the start."""
    document = opened.graph.spec.document
    total = sum(stage.steps for stage in document.stages) if document else 0
    with st.container(border=True):
        name_column, watch_column, button_column = st.columns([2, 1, 1], vertical_alignment="bottom")
        name = name_column.text_input("Name of the run", value=_free_name(workspace, opened.name))
        watch = watch_column.number_input(
            "Sample answers every", 0, max(1, total), min(total, max(5, total // LOOKS)), help="Steps; 0 is never"
        )
        ready = not opened.problems and total > 0
        pressed = button_column.button(
            "Start training", type="primary", icon=":material/play_arrow:", disabled=not ready, width="stretch"
        )
        if not opened.document["stages"]:
            st.caption("Add a stage to say what learns.")
        path = opened.path or workspace.specs / "untitled.yaml"
        if name:
            show.command(training.arguments(path, training.Run(workspace.runs / name), int(watch)))
    if pressed:
        from ui.views.train import select

        run = training.begin(workspace, opened.saved(workspace), name, int(watch))
        select(run.folder.name)
        st.rerun()


def _free_name(workspace: Workspace, name: str) -> str:
    stem = slug(name) or "run"
    return next(n for n in (f"{stem}-{i}" for i in range(1, 100_000)) if not (workspace.runs / n).exists())
