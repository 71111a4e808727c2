"""A linear layer in an ONNX graph, at each precision: y = x W^T, with W [out, in]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from assembler.bundle.writing import ORT, GraphWriter

BLOCK = 32


@dataclass(frozen=True)
class Blocks:
    """A matrix [out, in] in blocks of 32 inputs, each q * scale + offset, as a 4- or 8-bit GGUF file holds it.

    Attributes:
        bits: 4 or 8.
        q: uint8 [out, in / 32, 32], the integers, from 0 to 2^bits - 1.
        scale: float32 [out, in / 32].
        offset: float32 [out, in / 32].
    """

    bits: int
    q: np.ndarray
    scale: np.ndarray
    offset: np.ndarray

    @property
    def zero(self) -> int:
        """The integer that onnxruntime takes for zero."""
        return 1 << (self.bits - 1)

    @property
    def packed(self) -> np.ndarray:
        """The integers as MatMulNBits wants them: two to a byte, the first in the low half, where they have 4 bits."""
        return self.q if self.bits == 8 else self.q[..., 0::2] | (self.q[..., 1::2] << 4)

    @property
    def residue(self) -> np.ndarray | None:
        """What a block's offset is beyond `-zero * scale`: float32 [in / 32, out], or None where that is all."""
        rest = self.offset + self.zero * self.scale
        return np.ascontiguousarray(rest.T) if rest.any() else None

    def dense(self) -> np.ndarray:
        """The matrix float32 [out, in]."""
        dense = self.q * self.scale[..., None] + self.offset[..., None]
        return dense.astype(np.float32).reshape(len(self.q), -1)


def stacked(parts: list[Blocks]) -> Blocks | None:
    """Matrices that read the same input as one, or None where their bits differ."""
    if len({part.bits for part in parts}) > 1:
        return None
    fields = ([getattr(part, name) for part in parts] for name in ("q", "scale", "offset"))
    return Blocks(parts[0].bits, *[np.concatenate(field) for field in fields])


def nearest(weight: np.ndarray, bits: int) -> Blocks:
    """W in symmetric blocks of 8 bits, or asymmetric ones of 4, each integer the nearest."""
    blocks = weight.reshape(len(weight), -1, BLOCK)
    top = (1 << bits) - 1
    if bits == 8:
        scale = np.abs(blocks).max(-1) / 127
        low = -128 * scale
    else:
        low = np.minimum(blocks.min(-1), 0)
        scale = (np.maximum(blocks.max(-1), 0) - low) / top
    safe = np.where(scale > 0, scale, 1)[..., None]
    q = np.clip(np.rint((blocks - low[..., None]) / safe), 0, top).astype(np.uint8)
    return Blocks(bits, q, scale.astype(np.float32), low.astype(np.float32))


def dense(graph: GraphWriter, x: str, name: str, weight: np.ndarray) -> str:
    """y in the precision of the weight."""
    return graph.op("MatMul", x, graph.constant(name, weight.T))


def blockwise(graph: GraphWriter, x: str, name: str, blocks: Blocks) -> str:
    """y from integers; where a block's offset is not that of onnxruntime, the sums of x's blocks times the rest."""
    outputs, inputs = len(blocks.q), blocks.q.shape[1] * BLOCK
    packed = graph.constant(f"{name}.q", blocks.packed)
    scale = graph.constant(f"{name}.scale", blocks.scale.reshape(-1))
    size = {"K": inputs, "N": outputs, "bits": blocks.bits, "block_size": BLOCK, "accuracy_level": 4}
    y = graph.op("MatMulNBits", x, packed, scale, domain=ORT, **size)
    if (rest := blocks.residue) is None:
        return y
    return graph.op("Add", y, graph.op("MatMul", sums(graph, x, inputs), graph.constant(f"{name}.rest", rest)))


def sums(graph: GraphWriter, x: str, inputs: int) -> str:
    """The sums of x's blocks of 32 [..., in / 32]; made once for all that reads x."""
    made = f"{x}.sums"
    if not any(made in node.output for node in graph.nodes):
        shape = graph.op("Reshape", x, graph.ints(0, 0, inputs // BLOCK, BLOCK))
        graph.add("ReduceSum", [shape, graph.ints(-1)], [made], keepdims=0)
    return made


def dynamic(graph: GraphWriter, x: str, name: str, weight: np.ndarray) -> str:
    """y from 8-bit weights, a scale an output, and x rounded to 8 bits as it comes."""
    scale = np.abs(weight).max(-1) / 127
    q = np.rint(weight / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8)
    matrix, factor = graph.constant(f"{name}.q", q.T), graph.constant(f"{name}.scale", scale, np.float32)
    return graph.op("DynamicQuantizeMatMul", x, matrix, factor, domain=ORT)
