"""Runs and bundles on their pages: compared, told apart, deleted only when confirmed, and served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.ui.test_jobs import SPEC
from ui.views.export import PRECISIONS
from ui.workspace import WORKSPACE, Workspace


def train_page() -> None:
    from ui.views.train import render

    render()


def runs_page() -> None:
    from ui.views.runs import render

    render()


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    for name, rate in (("slow", "1.0e-4"), ("fast", "1.0e-2")):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "spec.yaml").write_text(SPEC.replace("lr: 1.0e-2", f"lr: {rate}"))
        rows = [{"stage": "align", "step": i, "loss": 3.0 / i, "time": float(i)} for i in range(1, 61)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Workspace.current()


def shown(at: AppTest) -> AppTest:
    assert not at.exception, [x.value for x in at.exception]
    return at


def test_several_runs_are_drawn_in_one_plot(workspace: Workspace) -> None:
    at = AppTest.from_function(train_page, default_timeout=60)
    at.query_params["run"] = "fast"
    shown(at.run())
    assert curves(at) == {"fast": 60}
    shown(at.multiselect(key="compared").set_value(["slow"]).run())
    assert curves(at) == {"fast": 60, "slow": 60}


def curves(at: AppTest) -> dict[str, int]:
    """How many points of each run the plot has."""
    import io

    import pyarrow

    (chart,) = at.get("vega_lite_chart")
    proto = chart.proto
    data = proto.datasets[0].data.data if proto.datasets else proto.data.data
    table = pyarrow.ipc.open_stream(io.BytesIO(data)).read_pandas()
    return {str(name): int(count) for name, count in table["run"].value_counts().items()}


def test_two_specs_differ_in_a_line(workspace: Workspace) -> None:
    at = shown(AppTest.from_function(runs_page, default_timeout=60).run())
    (code,) = at.code
    changed = [line for line in code.value.splitlines() if line[0] in "+-" and line[:3] not in ("+++", "---")]
    assert len(changed) == 2 and all("align" in line for line in changed)
    both = [box for box in at.selectbox if box.label in ("From", "To")]
    shown(both[0].set_value(both[1].value).run())
    assert at.code[0].value == "They are the same."


def test_a_click_on_delete_only_asks(workspace: Workspace) -> None:
    at = shown(AppTest.from_function(runs_page, default_timeout=60).run())
    shown(at.button(key="delete-slow").click().run())
    assert at.button(key="confirm-delete").label == "Delete" and (workspace.runs / "slow").is_dir()


def test_precisions_are_the_engines_own() -> None:
    from typing import get_args

    from assembler.bundle.manifest import Precision

    assert get_args(Precision) == PRECISIONS and "int8_dynamic" in PRECISIONS
