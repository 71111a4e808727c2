"""A run killed at any step goes on as if nothing had happened: the same losses and weights, to the bit."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from safetensors.torch import load_file

from assembler.cli import app
from assembler.runs import Run, lines_of
from assembler.train import COMPLETE, train

ROOT = Path(__file__).parents[2]


SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.assembler.warm"])


def alone(words: list[str], errors: Connection, blocks: int | None) -> None:
    """`assembler WORDS` in a process of its own, its errors in a pipe; no file becomes larger than `blocks` KiB."""
    os.dup2(errors.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if blocks is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (blocks * 1024,) * 2)
    app(words)


def started(spec, folder: Path, blocks: int | None = None) -> tuple[ForkServerProcess, Connection]:
    """A run in a process that has imported everything, and where its errors can be read."""
    errors, theirs = SERVER.Pipe(duplex=False)
    process = SERVER.Process(target=alone, args=(["train", str(spec.path), "--run", str(folder)], theirs, blocks))
    process.start()
    theirs.close()
    return process, errors


def said(errors: Connection) -> str:
    """All that an ended process has written."""
    with os.fdopen(os.dup(errors.fileno()), "rb") as stream:
        return stream.read().decode()


def reached(folder: Path, stage: str, step: int, running: Callable[[], bool]) -> bool:
    """Wait until the step is in the run's metrics, or the process has ended."""
    wanted, path = f'"stage": "{stage}", "step": {step},', Run(folder).metrics_path
    while running():
        if path.is_file() and wanted in path.read_text():
            return True
        time.sleep(0.002)
    return False


def killed_at(spec, folder: Path, stage: str, step: int) -> Run:
    """A run killed with no warning."""
    process, errors = started(spec, folder)
    reached(folder, stage, step, process.is_alive)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, said(errors)
    return Run(folder)


def assert_equal(run: Run, unbroken: Run) -> None:
    """The loss curves and the learned weights are the same."""
    curves = [[{**line, "time": 0} for line in lines_of(one.metrics_path)] for one in (run, unbroken)]
    assert curves[0] == curves[1]
    for stage in ("align", "tune"):
        ours, theirs = load_file(run.learned(stage)), load_file(unbroken.learned(stage))
        assert ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in ours)


@pytest.mark.parametrize(("stage", "step"), [("align", 1), ("align", 3), ("align", 6), ("tune", 2), ("tune", 5)])
def test_a_killed_run_resumes_to_the_same_losses_and_weights(stage, step, spec, unbroken, tmp_path):
    run = killed_at(spec, tmp_path / "run", stage, step)
    train(spec, run.folder, resume=True)
    assert_equal(run, unbroken)


def test_a_run_that_is_asked_to_stop_keeps_its_last_step_and_resumes_from_its_own_spec(spec, unbroken, tmp_path):
    run = Run(tmp_path / "run")
    command = [sys.executable, "-m", "assembler.cli", "train", str(spec.path), "--run", str(run.folder), "--watch", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    if reached(run.folder, "align", 1, lambda: process.poll() is None):
        process.terminate()
    _, errors = process.communicate()
    assert process.returncode == 1 and "stopped at step" in errors and "--resume" in errors
    step = lines_of(run.metrics_path)[-1]["step"]
    assert (run.stage("align") / f"checkpoint-{step}" / COMPLETE).is_file()
    command = ["train", str(run.spec_path), "--run", str(run.folder), "--resume", "--watch", "2"]
    app(command, standalone_mode=False)
    assert_equal(run, unbroken)
    looks = [(line["stage"], line["step"]) for line in lines_of(run.answers_path)]
    assert looks == [(stage, step) for stage in ("align", "tune") for step in (2, 4, 6)]
    rows = json.loads((run.answers_path.parent / "rows.json").read_text())
    assert len(rows) == 4 and all((run.answers_path.parent / row["images"]["image"]).is_file() for row in rows)


def test_a_checkpoint_that_was_half_written_is_not_used(spec, unbroken, tmp_path):
    run = killed_at(spec, tmp_path / "run", "tune", 5)
    folder = run.stage("tune")
    whole = folder / "checkpoint-4"
    assert (whole / COMPLETE).is_file()
    shutil.copytree(whole, folder / "checkpoint-5")
    (folder / "checkpoint-5" / COMPLETE).unlink()
    (folder / "checkpoint-5" / "learned.safetensors").write_bytes(b"half")
    with run.metrics_path.open("a") as file:
        file.write('{"stage": "tune", "ste')
    train(spec, run.folder, resume=True)
    assert_equal(run, unbroken)


@pytest.mark.parametrize("blocks", [8, 40])
def test_a_run_that_fills_the_disk_says_so_and_goes_on_from_its_last_checkpoint(blocks, spec, unbroken, tmp_path):
    """A limit on the size of files stands for the disk: checkpoints hit it at `blocks` KiB."""
    process, errors = started(spec, tmp_path / "run", blocks)
    told = said(errors)
    process.join()
    assert process.exitcode == 1 and "could not be written" in told and "Traceback" not in told
    train(spec, tmp_path / "run", resume=True)
    assert_equal(Run(tmp_path / "run"), unbroken)


def test_resuming_a_finished_run_changes_nothing(unbroken):
    before = {path: path.read_bytes() for path in (unbroken.metrics_path, unbroken.learned("tune"))}
    train(unbroken.spec(), unbroken.folder, resume=True)
    assert all(path.read_bytes() == content for path, content in before.items())
