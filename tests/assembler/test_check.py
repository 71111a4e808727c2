"""Check: every kind of mistake is found at its place, said in a sentence, and mended where it can be."""

import subprocess
import sys
from pathlib import Path

import pytest

from assembler.check import RESERVED, check
from assembler.fixes import apply_fixes
from assembler.spec import override, parse, read

ROOT = Path(__file__).parents[2]
GALLERY = sorted((ROOT / "exports" / "gallery").glob("*.yaml"))
GOOD = """\
# A comment at the top.
assembler: 1
nodes:
  photo: {type: input.image, size: [32, 32]}
  eyes: {type: encoder.timm, model: test_efficientnet, freeze: true}
  bridge: {type: projector.mlp, depth: 2}   # widths follow
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 300, hidden_size: 64, num_attention_heads: 4, num_hidden_layers: 2, intermediate_size: 96}
    prompt: "{photo} {question} {answer}"
edges:
  - photo -> eyes
  - eyes -> bridge
  - bridge -> talk.photo
adapters:
  tune: {type: adapter.lora, host: talk, rank: 4}
data: {type: dataset.digits, columns: {photo: image, answer: word}}
stages:
  - {name: align, train: [bridge], steps: 2}
  - {name: tune, train: [bridge, tune], steps: 2}
"""


def graph_of(text: str):
    return check(parse(text, Path("spec.yaml")))


def broken(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_a_good_spec_has_no_problems_and_every_wire_its_shape():
    graph = graph_of(GOOD)
    assert graph.problems == []
    assert str(graph.values["eyes"]) == "tokens [batch, 1, 256]"
    assert str(graph.values["bridge"]) == "tokens [batch, 1, 64]"


CASES = {
    # what is changed: (old, new, line, column, node, port, words of the sentence, has a fix)
    "width": ("edges:\n  - photo -> eyes\n  - eyes -> bridge\n  - bridge -> talk.photo",
              "edges:\n  - photo -> eyes\n  - photo -> bridge\n  - eyes -> talk.photo",
              15, 5, "talk", "photo", "eyes gives width 256, and talk needs 64", True),
    "kind": ("eyes -> bridge", "photo -> bridge", 14, 5, "bridge", "in", "takes tokens or embedding", False),
    "port": ("bridge -> talk.photo", "bridge -> talk.picture", 15, 5, "talk", "picture", "has no input picture", True),
    "unnamed port": ("bridge -> talk.photo", "bridge -> talk", 15, 5, "talk", "in", "has no input in", True),
    "edge": ("eyes -> bridge", "eyes => bridge", 14, 5, None, None, "not of the form", False),
    "node": ("eyes -> bridge", "eyse -> bridge", 14, 5, None, None, "no node eyse; did you mean eyes?", False),
    "twice": ("- eyes -> bridge", "- eyes -> bridge\n  - eyes -> bridge", 15, 5, "bridge", None, "already fed", False),
    "part": ("projector.mlp", "projector.mpl", 6, 12, None, None, "did you mean projector.mlp?", False),
    "key": ("depth: 2}", "dept: 2}", 6, 33, None, None, "did you mean depth?", False),
    "value": ("depth: 2}", "depth: two}", 6, 33, None, None, "depth", False),
    "top key": ("adapters:", "adapter:", 16, 1, None, None, "did you mean adapters?", False),
    "missing input": ("  - photo -> eyes\n", "", 5, 3, "eyes", "in", "nothing is wired to `in`", False),
    "host": ("host: talk", "host: talc", 17, 30, "talc", None, "did you mean talk?", False),
    "sites": ("rank: 4", "sites: 'layers.[3'", 17, 42, "talk", None, "malformed", False),
    "stage": ("train: [bridge], ", "train: [brigde], ", 20, 27, None, None, "did you mean bridge?", False),
    "frozen": ("train: [bridge], ", "train: [eyes], ", 20, 27, "eyes", None, "freeze: true", True),
    "nothing to train": ("train: [bridge], ", "train: [photo], ", 20, 27, "photo", None, "nothing to train", False),
    "stage name": ("name: tune", "name: align", 21, 6, None, None, "used twice", False),
    "dataset": ("dataset.digits", "dataset.digit", 18, 8, None, None, "did you mean dataset.digits?", False),
    "column": ("answer: word", "answer: words", 18, 54, "talk", None, "the column words, which is not there", False),
    "column kind": ("photo: image", "photo: word", 18, 40, "photo", None, "reads image", True),
    "column nobody reads": ("answer: word", "answer: word, x: word", 18, 68, None, None, "nothing reads x", False),
    "prompt": ("{question} {answer}", "{question {answer}", 11, 5, None, None, "braces do not pair", False),
    "weights": ("model: test_efficientnet", "model: test_efficentnet", 5, 3, "eyes", "in", "test_efficientnet", False),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_found_at_its_place(case):
    old, new, line, column, node, port, words, has_fix = CASES[case]
    problems = graph_of(broken(old, new)).problems
    found = [p for p in problems if words in p.message]
    assert found, [p.render("spec.yaml") for p in problems]
    first = found[0]
    assert (first.place.line, first.place.column) == (line, column)
    assert first.node == node and (port is None or first.port == port)
    assert (first.fix is not None) == has_fix


def test_every_problem_is_told_at_once():
    text = broken("projector.mlp", "projector.mpl").replace("host: talk", "host: talc").replace("eyes =>", "eyes ->")
    text = text.replace("dataset.digits", "dataset.digit")
    messages = " ".join(problem.message for problem in graph_of(text).problems)
    assert "projector.mpl" in messages and "talc" in messages and "dataset.digit" in messages


def test_a_broken_node_is_told_and_not_what_its_neighbours_lack_for_it():
    (problem,) = graph_of(broken("test_efficientnet, freeze", "test_efficientnet, freezed")).problems
    assert (problem.place.line, problem.place.column) == (5, 56) and "did you mean freeze" in problem.message


def test_a_circle_is_named():
    text = broken("  - photo -> eyes\n", "").replace("eyes -> bridge", "talk -> bridge")
    text = text.replace("  - bridge -> talk.photo", "  - bridge -> talk.photo\n  - photo -> eyes")
    (problem,) = [p for p in graph_of(text).problems if "circle" in p.message]
    assert problem.place.line in (13, 14) and "bridge" in problem.message and "talk" in problem.message


def test_a_half_built_graph_gives_what_can_be_known():
    text = "assembler: 1\nnodes:\n  photo: {type: input.image, size: [32, 32]}\n"
    text += "  eyes: {type: encoder.timm, model: test_efficientnet}\n  bridge: {type: projector.linear}\n"
    text += "  later: {type: projector.mlp}\nedges: [photo -> eyes, eyes -> bridge]\n"
    graph = graph_of(text)
    assert str(graph.values["eyes"]) == "tokens [batch, 1, 256]"
    assert str(graph.values["bridge"]) == "tokens [batch, 1, ?]"
    assert graph.values["later"] is None


def test_weights_that_are_not_here_yet_leave_the_width_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSEMBLER_CACHE", str(tmp_path))
    spec = override(read(ROOT / "exports" / "gallery" / "digits.yaml"), "nodes.talk.weights=pypi:none==1.0/x.gguf")
    graph = check(spec)
    assert graph.problems == [] and graph.values["bridge"]["width"] is None


def test_fixes_mend_what_is_broken_and_keep_comments_and_order():
    text = broken("  - bridge -> talk.photo", "  - eyes -> talk").replace("  - eyes -> bridge\n", "")
    text = text.replace('"{photo} {question} {answer}"', '"{question} {answer}"').replace("photo: image, ", "")
    text = "\n".join(line for line in text.splitlines() if "bridge:" not in line).replace("[bridge]", "[bridge]") + "\n"
    assert len(graph_of(text).problems) >= 2
    mended, done = apply_fixes(parse(text, Path("spec.yaml")))
    assert check(mended).problems == []
    assert any("256 -> 64" in title for title in done) and mended.dump().startswith("# A comment at the top.")
    assert mended.document.nodes["bridge"] == {"type": "projector.linear"}


@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_a_gallery_spec_is_good_and_is_saved_as_it_was(path):
    spec = read(path)
    assert check(spec).problems == []
    assert spec.dump() == path.read_text(encoding="utf-8")


def test_checking_imports_no_torch():
    code = (
        "import sys; from pathlib import Path; import assembler.cli; from assembler.check import check;"
        f"check(Path({str(GALLERY[0])!r})); print([m for m in ('torch', 'transformers', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("stages.align.steps", "write it like"),
        ("stages.aling.steps=5", "did you mean align"),
        ("nodes.talc.rank=5", "did you mean talk"),
        ("name.x=1", "no name in"),
        ("stages.align.steps=[", "not a YAML value"),
    ],
)
def test_a_setting_that_names_no_place_is_refused(setting, sentence):
    from assembler.errors import AssemblerError

    with pytest.raises(AssemblerError, match=sentence):
        override(parse(GOOD, Path("spec.yaml")), setting)


def test_a_setting_changes_its_value_alone():
    spec = override(parse(GOOD, Path("spec.yaml")), "stages.align.steps=7")
    assert [stage.steps for stage in spec.document.stages] == [7, 2]


SOUND = """\
assembler: 1
nodes:
  sound: {type: input.audio, seconds: 1, rate: 8000}
  ears: {type: encoder.whisper, config: {d_model: 16, encoder_layers: 1, encoder_attention_heads: 2}}
edges: [sound -> ears]
"""
TWO_EYES = """\
assembler: 1
nodes:
  photo: {type: input.image, size: [32, 32]}
  one: {type: encoder.timm, model: test_resnet}
  two: {type: encoder.timm, model: test_resnet, mean: [0.1], std: [0.2]}
edges: [photo -> one, photo -> two]
"""


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (SOUND, 3, "hears 16,000 samples a second"),
        (TWO_EYES, 3, "one and two scale it differently"),
        (TWO_EYES.replace("[0.1]", "[0.1, 0.2]"), 5, "`mean` has 2 numbers; give one, or 3"),
        (TWO_EYES.replace("std: [0.2]", "std: [0]"), 5, "greater than 0"),
        (TWO_EYES.replace("[0.1]", "[.nan]"), 5, "finite"),
        (SOUND.replace("d_model: 16", "max_source_positions: x"), 4, "max_source_positions"),
        (GOOD.replace("hidden_size: 64", "text_config: 5"), 7, "text_config"),
        (GOOD.replace("{question}", "\\x02photo\\x03"), 11, "control character"),
        (GOOD.replace("bridge", "talk_labels"), 6, "is what the batch calls a tensor of talk"),
        (GOOD.replace("bridge", "register_buffer"), 6, "no name for a node"),
    ],
)
def test_what_would_break_later_is_a_problem_now(text, line, words):
    found = [(problem.place.line, problem.message) for problem in graph_of(text).problems if words in problem.message]
    assert found and found[0][0] == line, [p.render("spec.yaml") for p in graph_of(text).problems]


def test_no_node_takes_a_name_that_torchs_modules_have():
    from torch import nn

    names = {name for name in dir(nn.ModuleDict()) if name.isidentifier() and not name.startswith("_")}
    assert names <= RESERVED
