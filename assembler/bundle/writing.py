"""ONNX graphs written node by node, their weights in one file that all graphs of a bundle share."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from assembler.bundle.manifest import WEIGHTS

INLINE, PAGE = 1024, 4096
"""Below INLINE bytes a tensor stays in its graph; larger ones begin at a page, so that they can be mapped."""
OPSET, IR = 21, 10
MOST = 2**30
"""A graph with more bytes than this has its weights in a file of its own."""
ORT = "com.microsoft"


class WeightFile:
    """The weights of a bundle, each written once however many graphs name it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / WEIGHTS
        self._file = self.path.open("wb")
        self._places: dict[bytes, tuple[int, int]] = {}

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def tensor(self, name: str, array: np.ndarray) -> TensorProto:
        """The array as an initializer, here or in the file."""
        array = np.ascontiguousarray(array)
        if array.nbytes < INLINE:
            return numpy_helper.from_array(array, name)
        data = array.reshape(-1).view(np.uint8).data
        digest = hashlib.sha256(data).digest()  # which processors have an instruction for
        if digest not in self._places:
            self._file.write(b"\0" * (-self._file.tell() % PAGE))
            self._places[digest] = (self._file.tell(), array.nbytes)
            self._file.write(data)
        offset, length = self._places[digest]
        tensor = TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
        tensor.data_location = TensorProto.EXTERNAL
        for key, item in (("location", WEIGHTS), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(item))
        return tensor


FOUR = helper.make_attribute("bits", 4)
"""What a product with 4-bit weights has."""


class GraphWriter:
    """One graph as it is written. Nodes come in the order in which they run; a constant is named once.

    Numbers that are not whole are of the type `real`: float32, float16 or bfloat16. Those that come from outside and go
    there are too, or float32 where numpy has no such type.
    """

    def __init__(self, name: str, weights: WeightFile, real: Any = np.float32) -> None:
        self.name, self.weights, self.real = name, weights, real
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[str, TensorProto] = {}
        self._count = 0
        self.outer: Any = np.float32 if real == ml_dtypes.bfloat16 else real

    def input(self, name: str, kind: Any, shape: list[int | str]) -> str:
        """A new input of the graph."""
        self.inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape))
        return name

    def optional(self, name: str, default: np.ndarray, shape: list[int | str]) -> str:
        """A new input of the graph that is `default` unless it is given."""
        self.input(name, self.real, shape)
        return self.constant(name, default)

    def output(self, value: str, name: str, kind: Any, shape: list[int | str]) -> None:
        """Make a value an output of the graph, under `name`."""
        if value != name:
            self.nodes.append(helper.make_node("Identity", [value], [name]))
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def constant(self, name: str, array: Any, dtype: Any = None) -> str:
        """A constant of the graph; the first array under a name is the one that counts."""
        if name not in self._constants:
            array = np.asarray(array, dtype)
            array = array.astype(self.real) if array.dtype == np.float32 else array
            self._constants[name] = self.weights.tensor(name, array)
        return name

    def ints(self, *values: int) -> str:
        """A constant vector of integers."""
        return self.constant("ints_" + "_".join(map(str, values)), values, np.int64)

    def cast(self, x: str, kind: Any, known: Any = None) -> str:
        """x as another type; itself where it is `known` to be of that."""
        return x if known == kind else self.op("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def op(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """A node's output, or the list of its outputs where there are several; "" is an input left out."""
        self._count += 1
        names = [f"{kind}_{self._count}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs)]
        self.add(kind, list(inputs), names, domain, **attributes)
        return names[0] if outputs == 1 else names

    def add(self, kind: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any) -> None:
        """A node with outputs of these names."""
        name = outputs[0] or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=name, domain=domain, **attributes))

    def for_prompts(self) -> bool:
        """Make the products with 4-bit weights, where there are any, those that a CPU is faster with in a prompt.

        These widen the weights and do not round what they are multiplied with: from 128 positions at once on they take
        two thirds of the time, at 32 as much, and for one 2.5 times as much. With 8 bits they are never faster.
        """
        found = [node for node in self.nodes if node.op_type == "MatMulNBits" and FOUR in node.attribute]
        for node in found:
            (level,) = (attribute for attribute in node.attribute if attribute.name == "accuracy_level")
            level.i = 1
        return bool(found)

    def save(self, path: Path) -> None:
        """Write the graph, after a look at whether it is well formed."""
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, list(self._constants.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ORT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR, producer_name="assembler")
        path.write_bytes(model.SerializeToString())


def widen(source: Path, target: Path) -> None:
    """A graph in bfloat16 as one in float32 of the same numbers, its weights within it."""
    model = onnx.load(str(source))
    graph, half, whole = model.graph, TensorProto.BFLOAT16, TensorProto.FLOAT
    for tensor in graph.initializer:
        if tensor.data_type == half:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for value in [*graph.input, *graph.output]:
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = whole
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == half:
                attribute.i = whole
    large = model.ByteSize() >= MOST
    onnx.save(model, str(target), save_as_external_data=large, location=f"{target.name}.data" if large else None)
