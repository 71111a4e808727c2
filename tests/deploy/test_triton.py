"""A bundle as Triton's model repository: each graph with its own names and sizes, led to the bundle's own answer."""

import importlib.util
import io
import re
import sys
import types
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from assembler.bundle.runtime import Bundle
from assembler.deploy.triton import KINDS, write_repository
from assembler.errors import AssemblerError
from tests.serving.conftest import folders, picture, sample  # noqa: F401

TYPES = {f"tensor({theirs})": triton for triton, theirs in KINDS.values()}
PORT = re.compile(r'(input|output) \{ name: "([^"]+)" data_type: (\w+) dims: \[ ([^\]]*) \]( optional: true)? \}')


class Tensor:
    """Triton's tensor: a name and an array."""

    def __init__(self, name, array):
        self._name, self._array = name, array

    def name(self):
        return self._name

    def as_numpy(self):
        return self._array


class Server(types.ModuleType):
    """The part of triton_python_backend_utils that a leading model uses, over sessions of onnxruntime."""

    TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    Tensor = Tensor

    def __init__(self, root: Path):
        super().__init__("triton_python_backend_utils")
        self.root = root
        self.calls: list[str] = []
        server = self

        class InferenceRequest:
            def __init__(self, model_name, requested_output_names, inputs):
                self.model, self.wanted, self.inputs = model_name, requested_output_names, inputs

            def exec(self):
                server.calls.append(self.model)
                session = onnxruntime.InferenceSession(str(server.root / self.model / "1" / "model.onnx"))
                feeds = {tensor.name(): tensor.as_numpy() for tensor in self.inputs}
                for name, array in feeds.items():
                    kind, dims = server.ports(self.model)[name]
                    assert kind == TYPES[next(x.type for x in session.get_inputs() if x.name == name)]
                    assert len(dims) == array.ndim
                    assert all(said in (-1, real) for said, real in zip(dims, array.shape, strict=True))
                return Answer([Tensor(n, x) for n, x in zip(self.wanted, session.run(self.wanted, feeds), strict=True)])

        class Answer:
            def __init__(self, output_tensors=(), error=None):
                self.tensors, self._error = output_tensors, error

            def has_error(self):
                return self._error is not None

            def error(self):
                return self._error

        self.InferenceRequest, self.InferenceResponse, self.TritonError = InferenceRequest, Answer, str

    def ports(self, model: str) -> dict[str, tuple[str, list[int]]]:
        """What a model's config says of its inputs."""
        text = (self.root / model / "config.pbtxt").read_text()
        return {
            n: (kind, list(map(int, dims.split(","))))
            for side, n, kind, dims, _ in PORT.findall(text)
            if side == "input"
        }

    @staticmethod
    def get_output_tensor_by_name(answer, name):
        return next(tensor for tensor in answer.tensors if tensor.name() == name)


class Request:
    """One request, and what was sent back."""

    def __init__(self, **given):
        self.tensors = [Tensor(name, np.array([value], dtype=np.object_ if isinstance(value, bytes) else np.int32))
                        for name, value in given.items()]  # fmt: skip
        self.sent: list = []
        self.flags = 0

    def inputs(self):
        return self.tensors

    def get_response_sender(self):
        return self

    def send(self, response=None, flags=0):
        if response is not None:
            self.sent.append(response)
        self.flags |= flags


@pytest.mark.parametrize("cache", ["in_place", "grows"])
def test_the_leading_model_answers_as_the_bundle_does(cache, folders, tmp_path, monkeypatch):  # noqa: F811
    bundle = Bundle(folders[cache])
    leader, *graphs = write_repository(folders[cache], tmp_path / "models")
    server = Server(tmp_path / "models")
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", server)
    place = tmp_path / "models" / leader
    found = importlib.util.spec_from_file_location("leader", place / "1" / "model.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    model = module.TritonPythonModel()
    model.initialize({"model_repository": str(place), "model_version": "1"})
    file = io.BytesIO()
    picture(1).save(file, "png")
    request = Request(photo=file.getvalue(), text_question=sample(1)["question"].encode(), max_new_tokens=9)
    model._answer(request, request.get_response_sender())
    answer = b"".join(part.tensors[0].as_numpy()[0] for part in request.sent).decode()
    assert answer == bundle.generate([sample(1)], 9)[0] and request.flags == 1
    assert set(server.calls) == set(graphs)
    wrong = Request(photo=b"no picture", text_question=b"?")
    model._answer(wrong, wrong.get_response_sender())
    assert "no picture that can be opened" in wrong.sent[0].error() and wrong.flags == 1


def test_no_repository_is_written_over_another_or_of_a_changed_bundle(folders, tmp_path):  # noqa: F811
    with pytest.raises(AssemblerError, match="exists already"):
        write_repository(folders["grows"], tmp_path)
    import shutil

    shutil.copytree(folders["grows"], tmp_path / "copy")
    with (tmp_path / "copy" / "decoder.onnx").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(AssemblerError, match=r"decoder\.onnx is not the file"):
        write_repository(tmp_path / "copy", tmp_path / "out")
    assert not (tmp_path / "out").exists()
