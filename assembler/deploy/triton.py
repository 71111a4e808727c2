"""A bundle as a model repository of Triton Inference Server: its graphs, and a model that leads a request through them.

Clients send to the model of the bundle's name a string `text_NAME` for each text of the prompt, and for each input
the bytes of a file as `NAME`, with `suffix_NAME` (such as .ply) where a reader needs it; they get the string `answer`,
piece by piece. The leading model holds no weights; it needs this package, and no torch, in Triton's Python.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import onnx

from assembler.bundle.manifest import MANIFEST, Manifest
from assembler.bundle.runtime import Bundle
from assembler.deploy.led import GRAPHS, SUFFIX, TEXT
from assembler.errors import AssemblerError
from assembler.files import aside, write_text

LEADER = Path(__file__).with_name("triton_model.py")
BUNDLE = "bundle"
"""The folder, within the leading model's, of what it reads itself: manifest, tokenizer, vocabularies."""
KINDS: dict[int, tuple[str, str]] = {
    onnx.TensorProto.FLOAT: ("TYPE_FP32", "float"),
    onnx.TensorProto.FLOAT16: ("TYPE_FP16", "float16"),
    onnx.TensorProto.INT64: ("TYPE_INT64", "int64"),
    onnx.TensorProto.INT8: ("TYPE_INT8", "int8"),
    onnx.TensorProto.BOOL: ("TYPE_BOOL", "bool"),
}
"""What Triton and onnxruntime call the numbers of a tensor."""


def write_repository(folder: Path, out: Path) -> list[str]:
    """Write the repository of the bundle at `folder` to `out`; the names of its models, the leading one first.

    Raises:
        AssemblerError: the bundle is not whole, or `out` exists.
    """
    if out.exists():
        raise AssemblerError(f"{out} exists already; choose another folder or remove it")
    manifest = Bundle(folder).manifest  # every hash is looked at
    out.parent.mkdir(parents=True, exist_ok=True)
    with aside(out) as draft:
        names = model_names(manifest)
        facts = {file: _graph(folder, file, draft / name, name) for file, name in names.items()}
        _leader(folder, manifest, draft / called(manifest), facts)
    return [called(manifest), *names.values()]


def called(manifest: Manifest) -> str:
    """What the leading model is called: the bundle's name, without spaces."""
    return manifest.name.replace(" ", "_")


def model_names(manifest: Manifest) -> dict[str, str]:
    """What each graph's model is called: file -> name."""
    return {file: f"{called(manifest)}_{Path(file).stem}" for file in manifest.graphs}


def _graph(folder: Path, file: str, target: Path, name: str) -> dict[str, Any]:
    """Write one graph as a model of the onnxruntime backend, and tell what it takes and gives; its weights are linked
    where the disk can, else copied."""
    (target / "1").mkdir(parents=True)
    model = onnx.load(folder / file, load_external_data=False)
    shutil.copyfile(folder / file, target / "1" / "model.onnx")
    for data in sorted(_external(model)):
        try:
            os.link(folder / data, target / "1" / data)
        except OSError:
            shutil.copyfile(folder / data, target / "1" / data)
    inputs = "".join(_tensor("input", x) for x in model.graph.input)
    outputs = "".join(_tensor("output", x) for x in model.graph.output)
    write_text(target / "config.pbtxt", f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: 0\n{inputs}{outputs}')
    taken = [[x.name, f"tensor({KINDS[x.type.tensor_type.elem_type][1]})", _sizes(x)] for x in model.graph.input]
    return {"model": name, "inputs": taken, "outputs": [x.name for x in model.graph.output]}


def _external(model: onnx.ModelProto) -> set[str]:
    """The files beside the graph that hold its weights."""
    found = {e.value for tensor in model.graph.initializer for e in tensor.external_data if e.key == "location"}
    for name in found:
        if Path(name).name != name:
            raise AssemblerError(f"a graph keeps weights at {name}, outside the bundle; export again")
    return found


def _sizes(value: onnx.ValueInfoProto) -> list[int]:
    """The shape; -1 where a size is not fixed."""
    return [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim]


def _tensor(kind: str, value: onnx.ValueInfoProto) -> str:
    """`input { name: ... }` of a value."""
    number = value.type.tensor_type.elem_type
    if number not in KINDS:
        raise AssemblerError(f"{value.name}: Triton has no name for its numbers' type {number}")
    dims = ", ".join(map(str, _sizes(value)))
    return f'{kind} {{ name: "{value.name}" data_type: {KINDS[number][0]} dims: [ {dims} ] }}\n'


def _leader(folder: Path, manifest: Manifest, target: Path, facts: dict[str, Any]) -> None:
    """The leading model: its code, what it reads, and a string a text, file and suffix."""
    (target / "1" / BUNDLE).mkdir(parents=True)
    shutil.copyfile(LEADER, target / "1" / "model.py")
    for file in dict.fromkeys((MANIFEST, manifest.tokenizer, *manifest.companions)):
        place = target / "1" / BUNDLE / file
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / file, place)
    write_text(target / "1" / BUNDLE / GRAPHS, json.dumps(facts, indent=1) + "\n")
    texts = [f"{TEXT}{part.column}" for part in manifest.prompt if part.column is not None]
    needed = "".join(
        f'input {{ name: "{name}" data_type: TYPE_STRING dims: [ 1 ] }}\n' for name in [*manifest.inputs, *texts]
    )
    extra = "".join(
        f'input {{ name: "{name}" data_type: {kind} dims: [ 1 ] optional: true }}\n'
        for name, kind in [
            *((f"{SUFFIX}{x}", "TYPE_STRING") for x in manifest.inputs),
            ("max_new_tokens", "TYPE_INT32"),
        ]
    )
    head = f'name: "{target.name}"\nbackend: "python"\nmax_batch_size: 0\n'
    head += "model_transaction_policy { decoupled: true }\n"
    answer = 'output { name: "answer" data_type: TYPE_STRING dims: [ 1 ] }\n'
    write_text(target / "config.pbtxt", head + needed + extra + answer)
