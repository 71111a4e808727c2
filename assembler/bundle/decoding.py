"""The decoder's loop over one batch: prompts in, then a token a row a step, with the cache where the graph wants it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import onnxruntime

from assembler.bundle.manifest import Held
from assembler.errors import told

PLAIN_ATTENTION = "ORT_GQA_DISABLE_FLASH_ATTENTION"
"""What onnxruntime asks the environment when a session is made."""
CHUNK = 256
"""Positions of a prompt that a CPU takes at once."""
LONG = 64
"""Positions, of all rows together, from which a CPU has a graph of its own for them, where the bundle has one."""
DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
    "tensor(bfloat16)": 16,  # ONNX's number: numpy has no such type
}
PAST, PRESENT = "past_key_values.", "present."
Reader = Callable[[], onnxruntime.InferenceSession]
"""Gives the session of the decoder's graph for many positions at once."""
Matrices = Mapping[str, onnxruntime.OrtValue]
"""A LoRA's, by the names of the decoder's inputs."""


class Decoding(ABC):
    """One batch in decoding. `start` takes the prompts, `step` one more token of every row; both give logits [B, V].

    `left` tells on which side of its row a shorter prompt is padded; `adapter` holds the matrices of a LoRA by the
    names of the graph's inputs.
    """

    left: ClassVar[bool]
    inputs: ClassVar[set[str]]
    """The inputs that the graph must have."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        device: str,
        adapter: Mapping[str, onnxruntime.OrtValue] | None = None,
        reader: Reader | None = None,
    ) -> None:
        self.session, self.device, self.adapter, self.reader = session, device, adapter or {}, reader
        self.past = [x for x in session.get_inputs() if x.name.startswith(PAST)]
        self.names = [x.name for x in session.get_outputs()]
        self.total = 0
        self.lengths = np.zeros(0, np.int64)

    def start(self, embeds: np.ndarray, lengths: np.ndarray, room: int) -> np.ndarray:
        """Prompts [B, T, D] of `lengths` [B], to be followed by at most `room` tokens."""
        self.lengths, self.total = lengths.astype(np.int64), embeds.shape[1]
        self._reserve(len(embeds), self.total + room)
        return self._run(embeds)

    def step(self, embeds: np.ndarray) -> np.ndarray:
        """The embeddings [B, 1, D] of the tokens that follow."""
        self.lengths, self.total = self.lengths + 1, self.total + 1
        return self._run(embeds)

    @abstractmethod
    def _reserve(self, batch: int, length: int) -> None:
        """Make the cache of a new batch, for at most `length` tokens."""

    @abstractmethod
    def _run(self, embeds: np.ndarray) -> np.ndarray:
        """Logits [B, V] after the embeddings [B, T, D] of the newest positions."""

    def _cache(self, batch: int, length: int) -> dict[str, onnxruntime.OrtValue]:
        """A cache with room for `length` tokens, by the name of its input, on the decoder's device."""
        return {x.name: unwritten((batch, x.shape[1], length, x.shape[3]), x.type, self.device) for x in self.past}

    def _bind(self, binding: Any, **arrays: np.ndarray) -> None:
        for name, array in arrays.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))

    def _mask(self) -> np.ndarray:
        """[B, total], ones where a row is real, by this decoding's side of padding."""
        place = np.arange(self.total)
        if self.left:
            return (place >= (self.total - self.lengths)[:, None]).astype(np.int64)
        return (place < self.lengths[:, None]).astype(np.int64)


@contextmanager
def attention(held: Held | None) -> Iterator[None]:
    """Sessions made meanwhile have the attention that a CPU is faster with, unless the environment has chosen.

    That is the plain one for a cache of floats, where the tiled one takes three times as long, and the tiled one for a
    cache of 8 bits, which is then read as it is.
    """
    chosen = PLAIN_ATTENTION in os.environ
    if not chosen:
        os.environ[PLAIN_ATTENTION] = "0" if held else "1"
    try:
        yield
    finally:
        if not chosen:
            os.environ.pop(PLAIN_ATTENTION, None)  # another thread may have been here


class Growing(Decoding):
    """A decoder that is given its cache and gives a longer one back; the cache never leaves the device."""

    left = True
    inputs = {"inputs_embeds", "attention_mask", "position_ids"}

    def _reserve(self, batch: int, length: int) -> None:
        self.cache = self._cache(batch, 0)

    def _run(self, embeds: np.ndarray) -> np.ndarray:
        mask = self._mask()
        positions = np.maximum(mask.cumsum(1) - 1, 0)[:, -embeds.shape[1] :]
        binding = self.session.io_binding()
        self._bind(binding, inputs_embeds=embeds, attention_mask=mask, position_ids=positions)
        for name, value in self.cache.items():
            binding.bind_ortvalue_input(name, value)
        for name in self.names:
            binding.bind_output(name, "cpu" if name == "logits" else self.device)
        with told("the bundle's decoder does not run; export again"):
            self.session.run_with_iobinding(binding)
        values = dict(zip(self.names, binding.get_outputs(), strict=True))
        self.cache = {name: values[name.replace(PAST, PRESENT)] for name in self.cache}
        return values["logits"].numpy()


def unwritten(shape: tuple[int, ...], kind: str, device: str) -> onnxruntime.OrtValue:
    """A tensor for a cache, of which no position is read before it is written.

    On a CPU it is whatever the memory held. On a GPU, where nobody has looked yet how far its attention reads, it is
    zeros; of bfloat16, which numpy cannot fill, anything there too.
    """
    dtype = DTYPES[kind]
    if device == "cpu" or isinstance(dtype, int):
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, device)
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype), device)


class Rows:
    """Keys and values of `count` rows and `length` positions that stay where they are, and runs on some of the rows."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        device: str,
        buffers: Mapping[str, onnxruntime.OrtValue],
        reader: Reader | None = None,
    ) -> None:
        self.session, self.device, self.buffers, self.reader = session, device, buffers, reader
        self.names = [x.name for x in session.get_outputs()]
        self.types = {x.name: DTYPES[x.type] for x in session.get_inputs() if x.name in buffers}
        self.classes = 0

    def prompt(self, row: int, embeds: np.ndarray, held: int, adapter: Matrices) -> np.ndarray:
        """Logits [V] after `embeds` [T, D], which come behind `held` positions of a row."""
        size = CHUNK if self.device == "cpu" else len(embeds)
        for start in range(0, len(embeds), size):
            piece = embeds[None, start : start + size]
            lengths = np.array([held + start + piece.shape[1]], np.int64)
            logits = self.run(row, row + 1, piece, lengths, adapter)
        return logits[0]

    def run(self, first: int, end: int, embeds: np.ndarray, lengths: np.ndarray, adapter: Matrices) -> np.ndarray:
        """Logits [end - first, V] after `embeds`, with which the rows have `lengths` positions."""
        many = embeds.shape[0] * embeds.shape[1] >= LONG
        session = self.reader() if self.reader is not None and many else self.session
        binding = session.io_binding()
        mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
        binding.bind_cpu_input("inputs_embeds", np.ascontiguousarray(embeds))
        binding.bind_cpu_input("attention_mask", mask)
        out = np.empty((end - first, self.classes), np.float32)
        for name in self.names:
            if name != "logits":
                binding.bind_output(name, *self._view(name.replace(PRESENT, PAST), first, end))
            elif out.size:
                binding.bind_output(name, "cpu", 0, out.dtype, out.shape, out.ctypes.data)
            else:
                binding.bind_output(name, "cpu")
        for name in self.buffers:
            binding.bind_input(name, *self._view(name, first, end))
        for name, value in adapter.items():
            binding.bind_ortvalue_input(name, value)
        with told("the bundle's decoder does not run; export again"):
            session.run_with_iobinding(binding)
        if out.size:
            return out
        found = binding.get_outputs()[self.names.index("logits")].numpy()
        if self.device == "cpu":  # from now on they go where they are read: a list of all outputs takes its time
            self.classes = found.shape[1]
        return found

    def _view(self, name: str, first: int, end: int) -> tuple:
        """A range of rows of a buffer, as onnxruntime binds it."""
        shape, dtype = self.buffers[name].shape(), self.types[name]
        size = 2 if isinstance(dtype, int) else np.dtype(dtype).itemsize
        place = self.buffers[name].data_ptr() + first * int(np.prod(shape[1:])) * size
        return self.device, 0, dtype, (end - first, *shape[1:]), place


class InPlace(Decoding):
    """A decoder that writes into its cache: the buffers are made and bound once, and never copied."""

    left = False
    inputs = {"inputs_embeds", "attention_mask"}

    def start(self, embeds: np.ndarray, lengths: np.ndarray, room: int) -> np.ndarray:
        if self.device != "cpu" or embeds.shape[1] <= (CHUNK if self.reader is None else LONG - 1):
            return super().start(embeds, lengths, room)
        self.lengths, self.total = lengths.astype(np.int64), embeds.shape[1]
        self._reserve(len(embeds), self.total + room)
        rows = Rows(self.session, self.device, self.buffers, self.reader)
        return np.stack([rows.prompt(i, embeds[i, :length], 0, self.adapter) for i, length in enumerate(lengths)])

    def _reserve(self, batch: int, length: int) -> None:
        self.binding = self.session.io_binding()
        self.buffers = self._cache(batch, length)
        for name in self.names:  # in the order of the graph, so that the logits are where it says
            if name == "logits":
                self.binding.bind_output(name, "cpu")
            else:
                self.binding.bind_ortvalue_output(name, self.buffers[name.replace(PRESENT, PAST)])
        for name, value in [*self.buffers.items(), *self.adapter.items()]:
            self.binding.bind_ortvalue_input(name, value)
        self.logits: np.ndarray | None = None

    def _run(self, embeds: np.ndarray) -> np.ndarray:
        self._bind(self.binding, inputs_embeds=embeds, attention_mask=self._mask())
        if self.logits is None:
            self.binding.bind_output("logits", "cpu")
        with told("the bundle's decoder does not run; export again"):
            self.session.run_with_iobinding(self.binding)
        if self.logits is not None:
            return self.logits.copy()
        found = self.binding.get_outputs()[self.names.index("logits")].numpy()
        if self.device == "cpu":  # from now on they go where they are read: a list of all outputs takes its time
            self.logits = np.empty_like(found)
            self.binding.bind_output("logits", "cpu", 0, found.dtype, found.shape, self.logits.ctypes.data)
        return found


CACHES: dict[str, type[Decoding]] = {"grows": Growing, "in_place": InPlace}
"""By the manifest's `cache`."""
