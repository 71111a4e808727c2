"""A trained run exports to a bundle that answers as torch does, or is refused with node and reason."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from assembler.batches import split
from assembler.bundle.graphs import ExportRefused
from assembler.bundle.runtime import Bundle
from assembler.cli import app
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.evaluate import BundleAnswers, TorchAnswers, evaluate
from assembler.export import export
from assembler.parity import samples
from assembler.runs import load_run

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("traces")


@pytest.fixture(scope="module")
def bundle(unbroken, tmp_path_factory):
    """(folder of the fp32 bundle, its parity report)."""
    graph, assembly = load_run(unbroken.folder)
    folder = tmp_path_factory.mktemp("bundles") / "small"
    return folder, export(graph, assembly, folder, "fp32", split(graph)[1])


def test_every_graph_is_within_parity(bundle):
    folder, report = bundle
    assert report["ok"] and {row["graph"] for row in report["graphs"]} == {"photo.onnx", "end to end"}
    assert json.loads((folder / "parity.json").read_text()) == report


def test_fifty_greedy_answers_and_their_logits_equal_torchs(bundle, unbroken):
    graph, assembly = load_run(unbroken.folder)
    rows = split(graph)[1][:50]
    torch_answers, served = TorchAnswers(graph, assembly), Bundle(bundle[0])
    asked = samples(graph, "talk", rows)
    assert served.generate_ids(asked) == torch_answers.ids(rows)
    reference = torch_answers.logits(rows).numpy()
    assert np.abs(served.logits(asked) - reference).max() <= 1e-4 * np.abs(reference).max()


def test_torch_and_bundle_score_the_same(bundle, unbroken):
    graph, assembly = load_run(unbroken.folder)
    learned, held_out = split(graph)
    rows = held_out[:40]
    scores = [
        evaluate(graph, answers(rows), learned, rows)
        for answers in (TorchAnswers(graph, assembly), BundleAnswers(graph, bundle[0]))
    ]
    assert scores[0] == scores[1]


def test_the_adapter_is_in_the_weights_of_the_bundle(bundle, unbroken):
    import onnx

    names = [tensor.name for tensor in onnx.load(str(bundle[0] / "decoder.onnx")).graph.initializer]
    assert names and not any("lora" in name for name in names)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_quantised_bundle_is_smaller_and_tells_how_far_it_drifts(precision, bundle, unbroken, tmp_path):
    graph, assembly = load_run(unbroken.folder)
    report = export(graph, assembly, tmp_path / precision, precision, split(graph)[1])
    assert report["precision"] == precision and report["graphs"][-1]["relative"] > 0
    sizes = [(folder / "decoder.onnx").stat().st_size for folder in (tmp_path / precision, bundle[0])]
    assert sizes[0] < sizes[1] and not (tmp_path / precision / "fp32").exists()


def test_a_graph_without_an_llm_is_refused_by_node_and_reason(spec, tmp_path):
    from assembler.check import check
    from assembler.spec import parse

    text = "assembler: 1\nnodes:\n  photo: {type: input.image, size: [32, 32]}\n"
    text += "  eyes: {type: encoder.timm, model: test_resnet}\n  name: {type: head.classifier, classes: 10}\n"
    text += "edges: [photo -> eyes, eyes -> name]\n"
    text += "data: {type: dataset.digits, columns: {photo: image}}\n"
    graph = check(parse(text, tmp_path / "spec.yaml")).require()
    with pytest.raises(ExportRefused, match=r"name: a bundle answers with one causal LM, and this graph has 0"):
        export(graph, compile_graph(graph), tmp_path / "out", "fp32", split(graph)[1])
    assert not (tmp_path / "out").exists()


def test_a_failed_export_leaves_nothing(unbroken, tmp_path, monkeypatch):
    graph, assembly = load_run(unbroken.folder)
    monkeypatch.setattr("assembler.parity.compare", lambda name, *_: {"graph": name, "relative": 1.0, "ok": False})
    with pytest.raises(AssemblerError, match="nothing was written"):
        export(graph, assembly, tmp_path / "out", "fp32", split(graph)[1])
    assert list(tmp_path.iterdir()) == []


def test_an_export_does_not_overwrite(unbroken, bundle):
    graph, assembly = load_run(unbroken.folder)
    with pytest.raises(AssemblerError, match="exists already"):
        export(graph, assembly, bundle[0], "fp32", split(graph)[1])


def ask(*arguments: str):
    return CliRunner().invoke(app, ["ask", *arguments])


def test_a_bundle_is_asked_from_the_command_line(bundle, unbroken, tmp_path):
    graph, assembly = load_run(unbroken.folder)
    row = split(graph)[1][0]
    row["image"].save(tmp_path / "digit.png")
    done = ask(str(bundle[0]), "--image", str(tmp_path / "digit.png"), "--prompt", "?")
    assert done.exit_code == 0 and done.output.strip() == TorchAnswers(graph, assembly)([row])[0].strip()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "also wants --image photo="),
        (["--image", "none.png", "--prompt", "?"], "none.png is not there"),
        (["--image", __file__, "--prompt", "?"], "is no picture"),
        (["--image", "a.png", "--image", "b.png", "--prompt", "?"], "the bundle takes 1 of these (photo)"),
        (["--image", "a.png"], "also wants --prompt question="),
        (["--image", "a.png", "--audio", "a.wav", "--prompt", "?"], "--audio a.wav: the bundle takes none"),
    ],
)
def test_a_bad_question_is_answered_with_a_sentence(bundle, arguments, sentence):
    done = ask(str(bundle[0]), *arguments)
    assert done.exit_code == 1 and sentence in done.output


def test_asking_needs_no_torch(bundle, unbroken, tmp_path):
    graph, _ = load_run(unbroken.folder)
    split(graph)[1][0]["image"].save(tmp_path / "digit.png")
    code = (
        "import sys; from pathlib import Path; from assembler.asking import ask;"
        f"ask(Path({str(bundle[0])!r}), {{'image': [{str(tmp_path / 'digit.png')!r}]}}, ['?']);"
        "print([m for m in ('torch', 'transformers', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
