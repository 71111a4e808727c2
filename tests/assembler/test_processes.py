"""A process is found again by its number and its start, and a dead one is not taken for alive."""

import subprocess
import sys
import time

from assembler.processes import Process, noted


def test_this_process_is_alive_and_found_again(tmp_path):
    Process.this().write(tmp_path / "process.json")
    found = noted(tmp_path / "process.json")
    assert found == Process.this() and found.alive()


def test_one_that_has_ended_is_not_alive_though_its_parent_has_not_looked():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.of(child.pid, ["python"])
    assert process.alive()
    assert child.stdin is not None
    child.stdin.close()
    for _ in range(200):
        if not process.alive():
            break
        time.sleep(0.02)
    assert not process.alive()  # a zombie still
    child.wait()
    assert not process.alive()


def test_a_later_process_with_the_same_number_is_another():
    now = Process.this()
    assert not now.model_copy(update={"started": now.started - 60}).alive()


def test_no_note_and_a_damaged_one_are_no_process(tmp_path):
    assert noted(tmp_path / "none.json") is None
    (tmp_path / "half.json").write_text('{"pid": 1')
    assert noted(tmp_path / "half.json") is None
