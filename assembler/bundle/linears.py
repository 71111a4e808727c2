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


def stacked(parts: list[Blocks]) -> Blocks:
    """Matrices that read the same input as one; where some have 8 bits, all have."""
    if len({part.bits for part in parts}) > 1:
        parts = [widened(part) for part in parts]
    fields = ([getattr(part, name) for part in parts] for name in ("q", "scale", "offset"))
    return Blocks(parts[0].bits, *[np.concatenate(field) for field in fields])


def widened(blocks: Blocks) -> Blocks:
    """The same matrix in integers of 8 bits, which lie as far from their zero as those of 4 did."""
    if blocks.bits == 8:
        return blocks
    apart = 128 - blocks.zero
    return Blocks(8, blocks.q + np.uint8(apart), blocks.scale, blocks.offset - apart * blocks.scale)


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


def blockwise(graph: GraphWriter, x: str, name: str, blocks: Blocks, widths: list[int] | None = None) -> list[str]:
    """y from integers, cut into pieces of these widths, in one product.

    Where a block's offset is more than that of onnxruntime, x is [n, in]: columns of ones in a block and nothing
    elsewhere come after W's and give the sums of x's blocks, which the rest of the offsets is multiplied with. They are
    sums of x as the product rounds it: with those of x itself SmolLM2-135M drifts 3.6e-3 nats, with these 3.2e-3.
    """
    widths, rest = widths or [len(blocks.q)], blocks.residue
    whole = blocks if rest is None else stacked([blocks, summing(blocks)])
    packed = graph.constant(f"{name}.q", whole.packed)
    scale = graph.constant(f"{name}.scale", whole.scale.reshape(-1))
    size = {"K": whole.q.shape[1] * BLOCK, "N": len(whole.q), "bits": whole.bits, "block_size": BLOCK}
    y = graph.op("MatMulNBits", x, packed, scale, domain=ORT, **size, accuracy_level=4)
    if rest is None:
        return [y] if len(widths) == 1 else pieces(graph, y, widths)
    *parts, sums = pieces(graph, y, [*widths, len(whole.q) - len(blocks.q)])
    ends = np.cumsum(widths)
    own = [graph.constant(f"{name}.rest.{i}", rest[:, end - widths[i] : end]) for i, end in enumerate(ends)]
    return [graph.op("Gemm", sums, matrix, part) for matrix, part in zip(own, parts, strict=True)]


def pieces(graph: GraphWriter, y: str, widths: list[int]) -> list[str]:
    """y cut along its last axis."""
    return graph.op("Split", y, graph.ints(*widths), outputs=len(widths), axis=-1)


def summing(blocks: Blocks) -> Blocks:
    """A matrix [in / 32, in] that sums the blocks of what `blocks` reads, in as many bits."""
    count = blocks.q.shape[1]
    q = np.full((count, count, BLOCK), blocks.zero, np.uint8)
    scale = np.eye(count, dtype=np.float32)
    q[np.arange(count), np.arange(count)] += 1
    return Blocks(blocks.bits, q, scale, -blocks.zero * scale)


def dynamic(graph: GraphWriter, x: str, name: str, weight: np.ndarray) -> str:
    """y from 8-bit weights, a scale an output, and x rounded to 8 bits as it comes."""
    scale = np.abs(weight).max(-1) / 127
    q = np.rint(weight / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8)
    matrix, factor = graph.constant(f"{name}.q", q.T), graph.constant(f"{name}.scale", scale, np.float32)
    return graph.op("DynamicQuantizeMatMul", x, matrix, factor, domain=ORT)
