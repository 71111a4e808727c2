"""Whisper's weights in the three layouts they are shipped in, brought to transformers' names.

A folder of transformers, a checkpoint of openai-whisper (`.pt`: `dims` and `model_state_dict`), or a folder that
CTranslate2 reads, as faster-whisper ships it (`model.bin`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assembler import ctranslate2
from assembler.configs import read_config
from assembler.errors import AssemblerError
from assembler.weights import load_archive, load_state

if TYPE_CHECKING:
    from torch import Tensor

SHARED = {"activation_function": "gelu", "scale_embedding": False}
DIMS = {
    "num_mel_bins": "n_mels",
    "vocab_size": "n_vocab",
    "max_source_positions": "n_audio_ctx",
    "d_model": "n_audio_state",
    "encoder_attention_heads": "n_audio_head",
    "encoder_layers": "n_audio_layer",
    "max_target_positions": "n_text_ctx",
    "decoder_attention_heads": "n_text_head",
    "decoder_layers": "n_text_layer",
}
"""transformers' names of the sizes that openai-whisper keeps in `dims`."""
OPENAI = (
    (r"\.blocks\.(\d+)\.", r".layers.\1."),
    (r"\.cross_attn_ln\.", ".encoder_attn_layer_norm."),
    (r"\.attn_ln\.", ".self_attn_layer_norm."),
    (r"\.mlp_ln\.", ".final_layer_norm."),
    (r"\.cross_attn\.", ".encoder_attn."),
    (r"\.attn\.", ".self_attn."),
    (r"\.query\.", ".q_proj."),
    (r"\.key\.", ".k_proj."),
    (r"\.value\.", ".v_proj."),
    (r"\.out\.", ".out_proj."),
    (r"\.mlp\.0\.", ".fc1."),
    (r"\.mlp\.2\.", ".fc2."),
    (r"\.ln_post\.|(?<=^decoder)\.ln\.", ".layer_norm."),
    (r"\.positional_embedding$", ".embed_positions.weight"),
    (r"\.token_embedding\.", ".embed_tokens."),
)
"""Patterns of openai-whisper's names and what takes their place, in this order."""
NORMS = {"self_attention": "self_attn_layer_norm", "attention": "encoder_attn_layer_norm", "ffn": "final_layer_norm"}
ATTENTIONS = {"self_attention": ("self_attn", ("qkv", "o")), "attention": ("encoder_attn", ("q", "kv", "o"))}
PROJECTIONS = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}


def whisper_config(path: Path) -> dict[str, Any]:
    """The sizes of the Whisper at `path`, whatever its layout, as transformers' WhisperConfig names them.

    Raises:
        AssemblerError: there is no Whisper there.
    """
    path = _folder(path)
    if path.is_file():
        return _openai_config(path, path.stat().st_mtime_ns)
    return _ctranslate2_config(_index(path)) if ctranslate2.holds_model(path) else read_config(path)


def whisper_state(path: Path) -> dict[str, Tensor]:
    """The tensors of the Whisper at `path` by transformers' names, `encoder.…` and `decoder.…`, as float32 or as kept.

    Raises:
        AssemblerError: they cannot be read.
    """
    path = _folder(path)
    if path.is_file() and "dims" in (content := load_archive(path)):
        return {_openai_name(key): tensor for key, tensor in content["model_state_dict"].items()}
    if path.is_dir() and ctranslate2.holds_model(path):
        return _ctranslate2_state(_index(path))
    state = load_state(path)
    return {key.removeprefix("model."): tensor for key, tensor in state.items()}


def _folder(path: Path) -> Path:
    """The folder of a model.bin of CTranslate2; any other path as it is."""
    bare = path.name == ctranslate2.FILE and path.is_file() and ctranslate2.holds_model(path.parent)
    return path.parent if bare else path


@lru_cache(8)
def _openai_config(path: Path, changed: int) -> dict[str, Any]:
    dims = load_archive(path).get("dims")
    if not isinstance(dims, dict) or not all(isinstance(dims.get(key), int) for key in DIMS.values()):
        raise AssemblerError(f"{path} is no checkpoint of openai-whisper (it has no `dims`); name one, or a folder")
    sizes = {name: dims[key] for name, key in DIMS.items()}
    hidden = {f"{side}_ffn_dim": 4 * sizes["d_model"] for side in ("encoder", "decoder")}
    return {**SHARED, **sizes, **hidden}


def _openai_name(name: str) -> str:
    for pattern, new in OPENAI:
        name = re.sub(pattern, new, name)
    return name


def _index(folder: Path) -> ctranslate2.Index:
    index = ctranslate2.read_index(folder)
    if index.spec != "WhisperSpec":
        raise AssemblerError(f"{index.path} holds a {index.spec[:40]}, and a WhisperSpec is wanted; name a Whisper")
    return index


def _ctranslate2_config(index: ctranslate2.Index) -> dict[str, Any]:
    def shape(name: str, rank: int) -> tuple[int, ...]:
        found = index.variables.get(name)
        if found is None or len(found.shape) != rank:
            raise AssemblerError(f"{index.path} has no {name} of {rank} dimensions; give the model.bin of a Whisper")
        return found.shape

    width, mels, _ = shape("encoder/conv1/weight", 3)
    found: dict[str, Any] = {**SHARED, "d_model": width, "num_mel_bins": mels}
    found["max_source_positions"], _ = shape("encoder/position_encodings/encodings", 2)
    found["max_target_positions"], _ = shape("decoder/position_encodings/encodings", 2)
    found["vocab_size"], _ = shape("decoder/embeddings/weight", 2)
    for side in ("encoder", "decoder"):
        numbers = [int(n[1]) for key in index.variables if (n := re.match(rf"{side}/layer_(\d+)/", key))]
        found[f"{side}_layers"] = max(numbers, default=-1) + 1
        found[f"{side}_ffn_dim"], _ = shape(f"{side}/layer_0/ffn/linear_0/weight", 2)
        found[f"{side}_attention_heads"] = int(index.raw(f"{side}/num_heads"))
    return found


def _ctranslate2_state(index: ctranslate2.Index) -> dict[str, Tensor]:
    import torch

    found: dict[str, Tensor] = {}
    for name in index.variables:
        side, _, rest = name.partition("/")
        if side in ("encoder", "decoder") and rest.rpartition("/")[2] in (
            "weight",
            "bias",
            "gamma",
            "beta",
            "encodings",
        ):
            tensor = torch.from_numpy(index.array(name))
            found.update({f"{side}.{key}": part for key, part in _ctranslate2_parts(rest, tensor)})
    return found


def _ctranslate2_parts(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """transformers' names of a variable below `encoder/` or `decoder/`, and its parts: it fuses q, k and v by rows."""
    path, _, leaf = name.rpartition("/")
    kind = {"gamma": "weight", "beta": "bias", "encodings": "weight"}.get(leaf, leaf)
    whole = {"position_encodings": "embed_positions", "embeddings": "embed_tokens"}.get(path, path)
    layer = re.fullmatch(r"layer_(\d+)/(self_attention|attention|ffn)/(layer_norm|linear_(\d))", path)
    if layer is None:
        return [(f"{whole}.{kind}", tensor)]
    number, block, what, index = layer.groups()
    if what == "layer_norm":
        return [(f"layers.{number}.{NORMS[block]}.{kind}", tensor)]
    if block == "ffn":
        return [(f"layers.{number}.fc{int(index) + 1}.{kind}", tensor)]
    attention, linears = ATTENTIONS[block]
    letters = linears[int(index)]
    names = [f"layers.{number}.{attention}.{PROJECTIONS[letter]}.{kind}" for letter in letters]
    parts = zip(names, tensor.chunk(len(letters)), strict=True)
    return [(key, part) for key, part in parts if not key.endswith("k_proj.bias")]  # Whisper's k has none: zeros here
