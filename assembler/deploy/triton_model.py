"""Triton's Python backend reads this file: a request's files and texts through the bundle's graphs, to its answer."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import triton_python_backend_utils as triton

from assembler.deploy.led import Led
from assembler.errors import AssemblerError


class TritonPythonModel:
    """The model that leads; the graphs are models of their own, called from here."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read what the bundle says, from beside this file."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self.bundle = Led(folder / "bundle", run)

    def execute(self, requests: list[Any]) -> None:
        """Answer each request in a thread of its own, so that the next are taken meanwhile."""
        for request in requests:
            threading.Thread(target=self._answer, args=(request, request.get_response_sender()), daemon=True).start()

    def _answer(self, request: Any, sender: Any) -> None:
        given = {tensor.name(): tensor.as_numpy().reshape(-1)[0] for tensor in request.inputs()}
        most = given.pop("max_new_tokens", None)
        try:
            for piece in self.bundle.pieces(given, None if most is None else int(most)):
                tensor = triton.Tensor("answer", triton_string(piece))
                sender.send(triton.InferenceResponse(output_tensors=[tensor]))
        except AssemblerError as error:
            sender.send(triton.InferenceResponse(error=triton.TritonError(str(error))))
        finally:
            sender.send(flags=triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def triton_string(text: str) -> Any:
    """A text as Triton takes one."""
    import numpy as np

    return np.array([text.encode("utf-8")], dtype=np.object_)


def run(model: str, feeds: dict[str, Any], wanted: list[str]) -> list[Any]:
    """Call another model of this server."""
    inputs = [triton.Tensor(name, array) for name, array in feeds.items()]
    call = triton.InferenceRequest(model_name=model, requested_output_names=wanted, inputs=inputs)
    answer = call.exec()
    if answer.has_error():
        raise AssemblerError(f"{model}: {answer.error().message()}")
    return [triton.get_output_tensor_by_name(answer, name).as_numpy() for name in wanted]
