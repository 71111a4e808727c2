"""What a bundle brings beside its graphs, a precision a graph, and what a failed export leaves."""

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from assembler.bundle.decoding import PAST, PLAIN_ATTENTION, InPlace, attention
from assembler.bundle.precisions import Precisions, read_precisions
from assembler.bundle.runtime import Bundle
from assembler.check import check
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.evaluate import TorchAnswers
from assembler.export import export
from assembler.files import clear_drafts, room
from assembler.peaks import reach_of
from assembler.serving.engine import Engine
from assembler.serving.slots import Slots
from assembler.spec import parse

SPEC = """\
assembler: 1
nodes:
  photo: {type: input.image, size: [16, 16]}
  eyes:
    type: encoder.hf_vision
    config: {model_type: vit, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, image_size: 16,
             patch_size: 8, intermediate_size: 16}
  bridge: {type: projector.linear}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 300, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 2}
    max_new_tokens: 5
    prompt: "See {photo}: {question} {answer}"
edges: [photo -> eyes, eyes -> bridge, bridge -> talk.photo]
"""
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8))
ROW = {"photo": PICTURE, "question": "what?", "answer": "abc"}
BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "assembler", "components", "PIL", "pydantic"):
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


pytestmark = pytest.mark.usefixtures("traces")


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return check(parse(SPEC, tmp_path_factory.mktemp("variants") / "spec.yaml")).require()


@pytest.fixture(scope="module")
def bundle(graph, tmp_path_factory):
    """(folder, its parity report) in fp32."""
    folder = tmp_path_factory.mktemp("bundles") / "plain"
    return folder, export(graph, compile_graph(graph), folder, "fp32", [ROW])


def run_alone(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """The bundle's own run_bundle.py, where nothing of this project and no torch can be imported."""
    code = f"import sys; sys.argv = {[str(folder / 'run_bundle.py'), *arguments]!r}; exec({BLOCKED!r})"
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)


def test_a_bundles_own_script_answers_the_same_by_itself(bundle, tmp_path):
    folder, _ = bundle
    np.save(tmp_path / "photo.npy", np.asarray(PICTURE))
    done = run_alone(folder, "--input", f"photo={tmp_path / 'photo.npy'}", "--text", "question=what?")
    assert done.stdout.removesuffix("\n") == Bundle(folder).generate([ROW])[0] and not done.stderr, done.stderr
    assert len((folder / "run_bundle.py").read_text().splitlines()) < 150


def test_a_bundles_page_shows_its_figures_and_fetches_nothing(bundle):
    folder, report = bundle
    page = (folder / "parity.html").read_text()
    assert f"{report['drift']['kl']:.1e}" in page and f"{report['graphs'][0]['max_abs']:.1e}" in page
    assert not any(word in page for word in ("http", "src=", "<script", "url("))
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert {"parity.html", "run_bundle.py", "genai_config.json", "decoder.genai.onnx"} <= set(files)


def test_the_config_for_onnxruntime_genai_names_what_the_graph_has(bundle):
    model = json.loads((bundle[0] / "genai_config.json").read_text())["model"]
    decoder = model["decoder"]
    session = onnxruntime.InferenceSession(str(bundle[0] / decoder["filename"]), providers=["CPUExecutionProvider"])
    for side, found in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        layers = range(decoder["num_hidden_layers"])
        names = {name % i if "%" in name else name for name in decoder[side].values() for i in layers}
        assert names == {x.name for x in found}
    assert next(x for x in session.get_outputs() if x.name == "logits").shape[1] == 1


def test_half_precision_a_graph_stays_near_and_is_smaller(bundle, graph, tmp_path):
    chosen = Precisions("fp16", {"photo": "fp16"})
    report = export(graph, compile_graph(graph), tmp_path / "half", chosen, [ROW])
    assert report["precision"] == "fp16, photo fp16" and report["graphs"][0]["relative"] <= 1e-2
    assert 0 < report["drift"]["kl"] < 1e-4 and report["speed"]["decode"] > 0 and report["load_seconds"] > 0
    sizes = [(folder / "weights.data").stat().st_size for folder in (tmp_path / "half", bundle[0])]
    assert sizes[0] < 0.7 * sizes[1]


def test_bf16_is_compared_as_its_weights_and_runs_on_cuda_alone(bundle, graph, tmp_path):
    report = export(graph, compile_graph(graph), tmp_path / "bf16", "bf16", [ROW])
    assert 0 < report["drift"]["kl"] < 1e-2 and "float32" in report["note"]
    sizes = [(folder / "weights.data").stat().st_size for folder in (tmp_path / "bf16", bundle[0])]
    assert sizes[0] < 0.7 * sizes[1] and [path.name for path in tmp_path.iterdir()] == ["bf16"]
    with pytest.raises(AssemblerError, match="bf16, which onnxruntime computes on CUDA alone"):
        Bundle(tmp_path / "bf16")


def test_a_cache_of_8_bits_is_near_and_each_row_of_it_is_by_itself(graph, tmp_path):
    rows = [ROW, {**ROW, "question": "what is it then?"}]
    report = export(graph, compile_graph(graph), tmp_path / "held", Precisions("fp32", cache="int8"), rows)
    assert report["precision"] == "fp32, cache int8" and 0 < report["drift"]["kl"] < 1e-2
    bundle = Bundle(tmp_path / "held")
    assert {x.type for x in bundle.decoder.get_inputs() if x.name.startswith(PAST)} == {"tensor(int8)"}
    assert not (tmp_path / "held" / "genai_config.json").exists()
    together, (embeds, lengths) = Slots(bundle.decoder, "cpu", 2, 40), bundle.encode(rows)
    for i, row in enumerate(rows):
        alone = bundle.logits([row])[0]
        assert (together.prefill(i, embeds[i : i + 1, : lengths[i]], list(range(lengths[i])), 0) == alone).all()
    token = bundle.embed(np.array([[7], [9]]), None)
    stepped = together.step(token, [0, 1], [7, 9])
    for i, row in enumerate(rows):
        decoding = bundle.decoding()
        decoding.start(*bundle.encode([row]), room=1)
        np.testing.assert_allclose(stepped[i], decoding.step(token[i : i + 1])[0], atol=1e-5)
    np.save(tmp_path / "photo.npy", np.asarray(PICTURE))
    done = run_alone(tmp_path / "held", "--input", f"photo={tmp_path / 'photo.npy'}", "--text", "question=what?")
    assert done.stdout.removesuffix("\n") == bundle.generate([ROW])[0] and not done.stderr, done.stderr


def test_long_prompts_have_a_graph_of_their_own_where_weights_have_4_bits(bundle, graph, tmp_path):
    long = [{**ROW, "question": "what is it then? " * 5}, {**ROW, "question": "what? " * 60}]
    report = export(graph, compile_graph(graph), tmp_path / "int4", "int4", [ROW])
    rows = {row["graph"]: row for row in report["graphs"]}
    assert 0 < rows["prompts.onnx"]["relative"] != rows["end to end"]["relative"] and rows["prompts.onnx"]["ok"]
    small = Bundle(tmp_path / "int4")
    sizes = {name: (small.folder / name).stat().st_size for name in ("prompts.onnx", "decoder.onnx")}
    assert 0.9 < sizes["prompts.onnx"] / sizes["decoder.onnx"] < 1.1  # its weights are those that are there
    small.logits([ROW])
    assert small._reading is None  # a short prompt needs no other session
    given = small.logits(long)
    assert small._reading is not None
    embeds, lengths = small.encode(long)
    plain = InPlace(small.decoder, "cpu").start(embeds, lengths, 0)
    whole = InPlace(small.reader(), "cpu").start(embeds, lengths, 0)
    assert np.abs(given - whole).max() < 1e-5 < np.abs(given - plain).max() < 0.1
    slots = Slots(small.decoder, "cpu", 2, 500, small.reader)
    for i, length in enumerate(lengths):
        assert (slots.prefill(i, embeds[i : i + 1, :length], list(range(length)), 0) == given[i]).all()
    assert Bundle(bundle[0]).reader is None and not (bundle[0] / "prompts.onnx").exists()
    serving, idle = Bundle(small.folder), Bundle(small.folder)
    with contextlib.closing(Engine(serving, rows=1, context=600)):
        assert serving._reading is not None  # a server needs its folder no more
    (small.folder / "prompts.onnx").write_bytes(b"")
    for late in (lambda: Bundle(small.folder), lambda: idle.logits(long)):
        with pytest.raises(AssemblerError, match=r"prompts.onnx is not the file that was exported"):
            late()
    assert (serving.logits(long) == given).all()


def test_a_prompt_longer_than_the_model_reads_is_said_and_an_answer_ends_where_it_does(bundle):
    folder, bundle = bundle[0], Bundle(bundle[0])
    assert bundle.manifest.positions == 2048
    assert bundle.room(np.array([2000])) == 5 and bundle.room(np.array([2046]), 50) == 3
    long = {**ROW, "question": "?" * 2048}
    with pytest.raises(AssemblerError, match=r"the prompt has 2\d+ tokens, and the model reads 2048; make it shorter"):
        bundle.generate([long])
    with contextlib.closing(Engine(bundle, rows=1, context=4000)) as engine:
        assert engine.context == 2048
    np.save(folder.parent / "photo.npy", np.asarray(PICTURE))
    given = ["--input", f"photo={folder.parent / 'photo.npy'}", "--text", f"question={'?' * 2048}"]
    done = run_alone(folder, *given)
    assert done.returncode == 1 and "more than the model reads" in done.stderr and "Traceback" not in done.stderr


def test_keys_reach_as_far_as_what_is_real(graph):
    """Rows of different lengths beside each other reach as far as the farther of each by itself."""
    answers = TorchAnswers(graph, compile_graph(graph))
    rows = [ROW, {**ROW, "question": "what is it then, in this picture?"}]
    together, alone = reach_of(answers, rows, True), [reach_of(answers, [row], True) for row in rows]
    for layer, both in enumerate(together):
        for part in (0, 1):
            farther = np.maximum(alone[0][layer][part], alone[1][layer][part])
            np.testing.assert_allclose(both[part], farther, rtol=1e-4)


@pytest.mark.parametrize(("held", "plain"), [(None, "1"), ("int8", "0")])
def test_a_session_asks_for_the_attention_of_its_cache_unless_one_was_chosen(held, plain, monkeypatch):
    monkeypatch.delenv(PLAIN_ATTENTION, raising=False)
    with attention(held):
        assert os.environ[PLAIN_ATTENTION] == plain
    assert PLAIN_ATTENTION not in os.environ
    monkeypatch.setenv(PLAIN_ATTENTION, "chosen")
    with attention(held):
        assert os.environ[PLAIN_ATTENTION] == "chosen"
    assert os.environ[PLAIN_ATTENTION] == "chosen"


def test_a_cache_of_8_bits_is_refused_beside_halves(graph, tmp_path):
    with pytest.raises(AssemblerError, match="talk: a cache of 8 bits is for decoders that compute in float32, not fp"):
        export(graph, compile_graph(graph), tmp_path / "half", Precisions("fp16", cache="int8"), [ROW])
    assert not list(tmp_path.iterdir())


def test_a_cache_of_8_bits_is_refused_where_there_are_no_keys(tmp_path):
    mamba = "arch: mamba\n    config: {vocab_size: 300, hidden_size: 32, state_size: 4, num_hidden_layers: 1}"
    start, end = SPEC.index("arch: llama"), SPEC.index("\n    max_new_tokens")
    graph = check(parse(SPEC[:start] + mamba + SPEC[end:], tmp_path / "spec.yaml")).require()
    with pytest.raises(AssemblerError, match="talk: "):
        export(graph, compile_graph(graph), tmp_path / "out", Precisions("fp32", cache="int8"), [ROW])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "decoder", "slots", "cache"),
    [
        ("int4", "int4", {}, None),
        ("talk=int8, photo=fp16", "int8", {"photo": "fp16"}, None),
        ("photo=int4", "fp32", {"photo": "int4"}, None),
        ("int4,cache=int8", "int4", {}, "int8"),
    ],
)
def test_a_precision_is_of_the_decoder_or_of_a_graph(text, decoder, slots, cache):
    assert read_precisions(text, "talk", ["photo"]) == Precisions(decoder, slots, cache)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("int5", "is one of fp32"),
        ("eyes=int4", "no graph eyes; there are talk, photo"),
        ("photo=int8_dynamic", "one of"),
        ("cache=int4", "a cache is kept in int8"),
    ],
)
def test_a_precision_that_is_none_is_said(text, sentence):
    with pytest.raises(AssemblerError, match=sentence):
        read_precisions(text, "talk", ["photo"])


@pytest.mark.parametrize("size", [2_000, 20_000, 60_000], ids=lambda size: f"{size} bytes")
def test_a_full_disk_is_said_and_nothing_is_left(size, graph, tmp_path):
    """Files of more than `size` bytes cannot be written: the first graph, the weights or the tokenizer comes short."""

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        with pytest.raises(AssemblerError, match=r"the disk of .*out is full; make room"):
            export(graph, compile_graph(graph), tmp_path / "out", "fp32", [ROW])

    assert in_a_child(full).wait() == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["graph of photo", "decoder and embedding", "manifest and tokenizer", "parity"])
def test_a_kill_while_it_exports_leaves_no_half_bundle_and_the_next_export_sweeps_up(step, graph, tmp_path):
    told, say = os.pipe()

    def speak(text: str) -> None:
        if text == step:
            os.write(say, b"!")

    child = in_a_child(lambda: export(graph, compile_graph(graph), tmp_path / "out", "fp32", [ROW], speak))
    os.read(told, 1)
    time.sleep(random.Random(step).uniform(0, 0.05))
    child.kill()
    left = [path.name for path in tmp_path.iterdir()]
    assert left in ([], [f".out.{child.pid}"]), "killed too late" if left == ["out"] else left
    with room(tmp_path / "out"):
        clear_drafts(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class Child:
    """A process that was forked off."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        """End it at once, whatever it does."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def in_a_child(work) -> Child:
    """Do some work in a process of its own, with what is loaded here."""
    pid = os.fork()
    if pid:
        return Child(pid)
    code = 1
    with contextlib.suppress(BaseException):
        torch.set_num_threads(1)  # OpenMP's other threads are not forked, and it would wait for them
        work()
        code = 0
    os._exit(code)


def test_what_a_killed_export_left_is_swept_up_and_what_a_living_one_writes_is_not(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for pid in (dead.pid, os.getpid()):
        (tmp_path / f".out.{pid}").mkdir()
    clear_drafts(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [f".out.{os.getpid()}"]
