"""The command line: machines get JSON, people get tables, mistakes get a sentence and the right exit code."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from assembler.cli import app
from assembler.registry import parts

GALLERY = Path(__file__).parents[2] / "exports" / "gallery"
GIANTS = str(GALLERY / "siglip-whisper-llama3.yaml")
COMMANDS = ["validate", "schema", "parts", "fetch", "summary", "sites", "train", "eval", "export", "ask"]


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    done = run(command, "--help")
    assert done.exit_code == 0 and f"Example: assembler {command}" in done.output


def test_usage_that_is_wrong_exits_with_2():
    assert run("train", GIANTS).exit_code == 2
    assert run("export", "run", "--out", "x", "--precision", "int3").exit_code == 2
    assert run("nothing").exit_code == 2


def test_validate_speaks_json(tmp_path):
    good = json.loads(run("validate", GIANTS, "--json").output)
    assert good["ok"] and good["wires"]["eyes -> see"] == "tokens [batch, 729, 1152]"
    bad = tmp_path / "bad.yaml"
    bad.write_text("assembler: 1\nnodes:\n  a: {type: input.imag}\n")
    done = run("validate", str(bad), "--json")
    (problem,) = json.loads(done.output)["problems"]
    assert done.exit_code == 1 and problem["place"] == {"line": 3, "column": 7}


def test_validate_fix_saves_the_mended_spec_and_says_what_it_did(tmp_path):
    path = tmp_path / "broken.yaml"
    text = (
        Path(GIANTS)
        .read_text()
        .replace("  - eyes -> see\n", "")
        .replace("  - see -> talk.photo", "  - eyes -> talk.photo")
    )
    path.write_text(text.replace("  see: {type: projector.mlp, depth: 2}\n", ""))
    assert run("validate", str(path)).exit_code == 1
    done = run("validate", str(path), "--fix")
    assert done.exit_code == 0 and "fixed: insert a projector 1152 -> 4096" in done.output
    assert run("validate", str(path)).exit_code == 0


def test_schema_knows_every_part():
    assert set(parts()) <= set(json.loads(run("schema").output)["$defs"])


def test_parts_are_listed_by_family():
    listed = json.loads(run("parts", "--family", "projector", "--json").output)
    assert set(listed) == {name for name in parts() if name.startswith("projector.")}
    assert run("parts", "--family", "none").exit_code == 1


def test_summary_speaks_json_and_tables():
    report = json.loads(run("summary", GIANTS, "--json").output)
    assert report["nodes"]["talk"]["parameters"] == 8_030_261_248
    assert "8,030,261,248" in run("summary", GIANTS).output


def test_sites_lists_where_adapters_go():
    found = json.loads(run("sites", GIANTS, "talk", "--json").output)
    assert found["layers.31.attn.k"]["weight"] == [1024, 4096]
    tree = run("sites", GIANTS, "talk").output
    assert "layers.[0-31]" in tree and "[1024, 4096]" in tree
    done = run("sites", GIANTS, "tlak")
    assert done.exit_code == 1 and "did you mean talk" in done.output


def test_a_whole_run_from_the_command_line(spec, tmp_path):
    folder = tmp_path / "run"
    short = ["--set", "stages.align.steps=2", "--set", "stages.tune.steps=2"]
    assert run("train", str(spec.path), "--run", str(folder), *short).exit_code == 0
    scores = json.loads(run("eval", str(folder), "--json", "--limit", "8").output)
    assert scores["n"] == 8 and 0 <= scores["exact_match"] <= 1 and len(scores["samples"]) == 8
    done = run("export", str(folder), "--out", str(tmp_path / "bundle"))
    assert done.exit_code == 0 and "greedy answers equal" in done.output
    served = json.loads(run("eval", str(folder), "--json", "--limit", "8", "--bundle", str(tmp_path / "bundle")).output)
    assert served == scores
    assert run("export", str(folder), "--out", str(tmp_path / "bundle")).exit_code == 1


def test_what_the_disk_refuses_is_a_sentence_and_leaves_no_draft(spec, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    done = run("train", str(spec.path), "--run", str(tmp_path / "file" / "run"))
    assert done.exit_code == 1 and "Not a directory; check the path" in done.output

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    spec.path.write_text(spec.dump().replace("bridge -> talk.photo", "bridge -> talk"))
    before = sorted(tmp_path.iterdir())
    done = run("validate", "--fix", str(spec.path))
    assert done.exit_code == 1 and done.output.startswith("No space left on device; check")
    assert sorted(tmp_path.iterdir()) == before


def test_a_mistake_in_the_spec_is_no_traceback(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "assembler: 1\nnodes: {a: {type: input.image}, a2: {type: encoder.timm, model: nope}}\nedges: [a -> a2]\n"
    )
    for command in (["summary", str(path)], ["train", str(path), "--run", str(tmp_path / "r")], ["fetch", str(path)]):
        done = run(*command)
        assert done.exit_code == 1 and "bad.yaml:2" in done.output.replace("\n", "") and not (tmp_path / "r").exists()
