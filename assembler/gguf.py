"""A GGUF file as a Hugging Face config, state dict and tokenizer.

The header is read here, from a memory map and with arrays left alone until they are asked for: the `gguf` package's
reader makes several numpy views of every string of the vocabulary, seconds for a small model. Tensors are dequantised
by that package.
"""

import math
import mmap
import re
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from assembler.errors import AssemblerError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

ARCHITECTURES = ("llama", "qwen2", "qwen3")

_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TENSOR = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<part>\w+)\.(?P<kind>weight|bias)")


@dataclass(frozen=True)
class TensorInfo:
    """One tensor's place: `shape` is torch's (GGUF's reversed), `offset` is from the start of the file."""

    shape: tuple[int, ...]
    kind: int
    offset: int


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Say of which file, and of what in it, the bytes are not what GGUF promises."""
    damage = (OSError, ValueError, TypeError, LookupError, ArithmeticError, NotImplementedError, RecursionError)
    try:
        yield
    except (*damage, struct.error) as error:
        raise AssemblerError(f"{what} could not be read as GGUF ({error}).") from error


class Header:
    """A GGUF file's metadata (`get`) and the places of its tensors (`tensors`).

    Raises AssemblerError if the file is not little-endian GGUF of version 2 or 3, or ends within its header.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lock = Lock()  # threads that dequantise tensors read fields too
        with reading(str(path)):
            with self.path.open("rb") as file:
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._parse()

    def _parse(self) -> None:
        magic, version, tensor_count, field_count = struct.unpack_from("<4sIQQ", self.data)
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError("it does not begin as little-endian GGUF version 2 or 3 does")
        self._at = struct.calcsize("<4sIQQ")
        self._fields: dict[str, tuple[int, int]] = {}
        for _ in range(field_count):
            name, kind = self._string(), self._scalar("I")
            self._fields[name] = (kind, self._at)
            self._skip(kind)
        places = [self._tensor_info() for _ in range(tensor_count)]
        end, alignment = self._at, self.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"its alignment is {alignment}")
        start = -(-end // alignment) * alignment
        self.tensors = {name: TensorInfo(shape, kind, start + at) for name, shape, kind, at in places}

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self._at)
        self._at += struct.calcsize("<" + code)
        return value

    def _string(self) -> str:
        end = self._scalar("Q") + self._at
        if end > len(self.data):
            raise ValueError("it ends within its header")
        text, self._at = self.data[self._at : end], end
        return text.decode("utf-8")

    def _skip(self, kind: int) -> None:
        """Moves past one value; past an array of strings by its lengths alone."""
        if kind in _SCALARS:
            self._at += struct.calcsize("<" + _SCALARS[kind])
        elif kind == _STRING:
            self._at += 8 + struct.unpack_from("<Q", self.data, self._at)[0]
        elif kind == _ARRAY:
            item, count = self._scalar("I"), self._scalar("Q")
            if item in _SCALARS:
                self._at += count * struct.calcsize("<" + _SCALARS[item])
            else:
                for _ in range(count):
                    self._skip(item)
        else:
            raise ValueError(f"a field has the unknown type {kind}")

    def _tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dimensions = self._string(), self._scalar("I")
        shape = tuple(self._scalar("Q") for _ in range(dimensions))[::-1]
        return name, shape, self._scalar("I"), self._scalar("Q")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            item, count = self._scalar("I"), self._scalar("Q")
            return [self._value(item) for _ in range(count)]
        return self._scalar(_SCALARS[kind])

    def get(self, name: str, default: Any = None) -> Any:
        """The metadata field `name`, an array as a list; `default` if the file has no such field."""
        if name not in self._fields:
            return default
        with self._lock, reading(f"{self.path}: the field '{name}'"):
            kind, self._at = self._fields[name]
            return self._value(kind)

    def need(self, name: str) -> Any:
        """The metadata field `name`. Raises AssemblerError if the file has no such field."""
        if name not in self._fields:
            raise AssemblerError(f"{self.path} has no '{name}' in its metadata. Convert the model to GGUF again.")
        return self.get(name)


def _architecture(header: Header) -> str:
    name = header.need("general.architecture")
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise AssemblerError(
            f"{header.path} is of the architecture '{name}'. GGUF is read for {known} (Mistral is written as llama)."
        )
    if header.get(f"{name}.expert_count", 0):
        raise AssemblerError(f"{header.path} is a mixture of experts, which is not read from GGUF. Give safetensors.")
    return name


def read_config(path: Path) -> dict[str, Any]:
    """The model's config under Hugging Face's names, from the header alone and without torch.

    Raises AssemblerError for an architecture, or a scaling of the rotary embedding, that is not read.
    """
    return config_of(Header(path))


def config_of(header: Header) -> dict[str, Any]:
    """The config of an opened file; see `read_config`."""
    with reading(str(header.path)):
        return _config(header)


def _config(header: Header) -> dict[str, Any]:
    name = _architecture(header)
    if "token_embd.weight" not in header.tensors:
        raise AssemblerError(f"{header.path} has no token_embd.weight: it holds a vocabulary or an adapter, no model.")
    heads = header.need(f"{name}.attention.head_count")
    config = {
        "model_type": name,
        "hidden_size": header.need(f"{name}.embedding_length"),
        "num_hidden_layers": header.need(f"{name}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": header.get(f"{name}.attention.head_count_kv", heads),
        "intermediate_size": header.need(f"{name}.feed_forward_length"),
        "vocab_size": header.tensors["token_embd.weight"].shape[0],
        "rms_norm_eps": _decimal(header.need(f"{name}.attention.layer_norm_rms_epsilon")),
        "rope_theta": header.get(f"{name}.rope.freq_base", 10000.0),
        "max_position_embeddings": header.need(f"{name}.context_length"),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "head_dim": header.get(f"{name}.attention.key_length"),
        "bos_token_id": header.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": header.get("tokenizer.ggml.eos_token_id"),
        "rope_scaling": _rope_scaling(header, name),
        "attention_bias": True if name == "llama" and "blk.0.attn_q.bias" in header.tensors else None,
    }
    return {key: value for key, value in config.items() if value is not None}


def _decimal(value: float) -> float:
    """The short decimal that a float32 was written from: 9.999999747378752e-06 is 1e-05."""
    return float(f"{value:.7g}")


def _rope_scaling(header: Header, name: str) -> dict[str, Any] | None:
    kind = header.get(f"{name}.rope.scaling.type", "none")
    if "rope_freqs.weight" in header.tensors:
        return _llama3_scaling(header, header.get(f"{name}.rope.freq_base", 10000.0))
    if kind == "none":
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": header.need(f"{name}.rope.scaling.factor")}
    raise AssemblerError(f"{header.path} scales its rotary embedding by '{kind}', which is not read. Give safetensors.")


def _llama3_scaling(header: Header, theta: float) -> dict[str, Any]:
    """Llama 3's scaling, told from the factor of each frequency and checked against all of them.

    With wavelength w = 2 pi theta^(2i/d), the factor is 1 below 8192/4, f above 8192, and between them
    1 / ((1-s)/f + s) with s = (8192/w - 1) / 3.
    """
    info = header.tensors["rope_freqs.weight"]
    found = struct.unpack_from(f"<{info.shape[0]}f", header.data, info.offset)
    factor, context, low, high = max(found), 8192, 1.0, 4.0
    for index, value in enumerate(found):
        wavelength = 2 * math.pi * theta ** (index / len(found))
        smooth = min(max((context / wavelength - low) / (high - low), 0.0), 1.0)
        if not math.isclose(value, 1 / ((1 - smooth) / factor + smooth), rel_tol=1e-3):
            raise AssemblerError(f"{header.path} has rope_freqs that are not Llama 3's. Give safetensors.")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": context,
    }


def load_state(path: Path, dtype: "torch.dtype | None" = None) -> "dict[str, torch.Tensor]":
    """Every tensor, dequantised, under Hugging Face's names; `dtype` is float32 unless given.

    The rows of q and k, which llama.cpp interleaves for its rotary embedding, are put back in order. There is no
    `lm_head.weight` where the output is tied to the embedding. Raises AssemblerError for a tensor that has no place.
    """
    import torch

    header = Header(path)
    _architecture(header)

    def read(item: tuple[str, str, str]) -> "tuple[str, torch.Tensor]":
        source, part, target = item
        return target, torch.from_numpy(array(header, source, part)).to(dtype or torch.float32)

    with ThreadPoolExecutor() as pool:
        return dict(pool.map(read, targets(header)))


def array(header: Header, source: str, part: str) -> Any:
    """A tensor as a float array in Hugging Face's order of rows."""
    with reading(f"{header.path}: the tensor '{source}'"):
        values = _dequantised(header, source)
        order = row_order(header, part, len(values))
        return values if order is None else values[order]


def targets(header: Header) -> Iterator[tuple[str, str, str]]:
    """Of each tensor: its GGUF name, the part of the layer it is, and its Hugging Face name."""
    for source in header.tensors:
        if source == "rope_freqs.weight":
            continue
        match = _TENSOR.fullmatch(source)
        if match is None or match["part"] not in _NAMES:
            raise AssemblerError(f"{header.path} has the tensor '{source}', which has no place in this architecture.")
        layer = "" if match["layer"] is None else f"model.layers.{match['layer']}."
        yield source, match["part"], f"{layer}{_NAMES[match['part']]}.{match['kind']}"


def _dequantised(header: Header, name: str) -> Any:
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    info = header.tensors[name]
    kind = GGMLQuantizationType(info.kind)
    block, size = GGML_QUANT_SIZES[kind]
    count = math.prod(info.shape) // block * size
    raw = np.frombuffer(header.data, np.uint8, count, info.offset).reshape(*info.shape[:-1], -1)
    values = dequantize(raw, kind).reshape(info.shape)
    return values if values.flags.writeable else values.copy()


def row_order(header: Header, part: str, rows: int) -> "Any | None":
    """Which of the file's rows each of Hugging Face's is, where they differ: rotary pairs to halves of a head."""
    import numpy as np

    name = _architecture(header)
    heads = header.need(f"{name}.attention.head_count")
    counts = {"attn_q": heads, "attn_k": header.get(f"{name}.attention.head_count_kv", heads)}
    if name != "llama" or part not in counts:
        return None
    return np.arange(rows).reshape(counts[part], -1, 2).swapaxes(1, 2).reshape(-1)


def load_tokenizer(path: Path) -> "PreTrainedTokenizerFast":
    """The tokenizer in the file, with its chat template. See `assembler.gguf_tokenizer`."""
    from assembler.gguf_tokenizer import build_tokenizer

    return build_tokenizer(Header(path))
