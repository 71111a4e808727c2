"""Our adapters in PEFT's words: its configs, and its names of the tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from assembler.adapters.files import pattern_of, site_of
from assembler.adapters.host import Host
from assembler.adapters.tap import Insert
from assembler.errors import AssemblerError

if TYPE_CHECKING:
    from components.adapters.lora import Lora
    from components.adapters.shira import Shira

ROOT = "base_model.model."
LINEAR = {"lora_A.weight": "lora_A.weight", "lora_B.weight": "lora_B.weight", "magnitude": "lora_magnitude_vector"}
EMBEDDING = {"lora_A.weight": "lora_embedding_A", "lora_B.weight": "lora_embedding_B"}
UNSUPPORTED = (
    "rank_pattern", "alpha_pattern", "modules_to_save", "layer_replication", "use_qalora", "use_bdlora", "lora_bias",
    "alora_invocation_tokens", "arrow_config", "trainable_token_indices", "target_parameters",
)  # fmt: skip
"""Knobs of PEFT's LoRA with which the adapter computes something else."""


def lora_config(part: Lora, inserts: Mapping[str, Insert]) -> dict[str, Any] | None:
    """LoRA as PEFT's config; None where a slice of a fused projection is changed, which PEFT cannot name."""
    if any(insert.point.of > 1 for insert in inserts.values()):
        return None
    return {
        "peft_type": "LORA",
        "r": part.rank,
        "lora_alpha": part.alpha,
        "lora_dropout": part.dropout,
        "use_rslora": part.rslora,
        "use_dora": part.dora,
        "init_lora_weights": True if part.init == "kaiming" else part.init,
        "bias": "none",
        "target_modules": [insert.point.path for insert in inserts.values()],
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def lora_names(inserts: Mapping[str, Insert]) -> dict[str, str]:
    """Our name of every tensor -> PEFT's."""
    found = {}
    for key, insert in inserts.items():
        words = EMBEDDING if type(insert.module).__name__ == "LowRankEmbedding" else LINEAR
        for name, _ in insert.module.named_parameters():
            found[f"{key}.{name}"] = f"{ROOT}{insert.point.path}.{words[name]}"
    return found


def lora_options(config: Mapping[str, Any], keys: Sequence[str], on: Host) -> dict[str, Any]:
    """The fields of `adapter.lora` for a file of PEFT's."""
    odd = next((name for name in UNSUPPORTED if config.get(name)), None)
    if odd is not None or config.get("bias", "none") != "none":
        raise AssemblerError(f"its `{odd or 'bias'}` is not taken here; save the adapter without it")
    paths = dict.fromkeys(key.removeprefix(ROOT).partition(".lora_")[0] for key in keys if ".lora_" in key)
    return {
        **pattern_of([site_of(on, path) for path in paths]),
        "rank": config.get("r"),
        "alpha": config.get("lora_alpha"),
        "dropout": config.get("lora_dropout", 0.0),
        "rslora": bool(config.get("use_rslora")),
        "dora": bool(config.get("use_dora")),
    }


def ours(names: Mapping[str, str], tensors: Mapping[str, Tensor], inserts: Mapping[str, Insert]) -> dict[str, Tensor]:
    """PEFT's tensors under our names and in our shapes; names that we do not have are kept as they are.

    The weights of the host itself, which PEFT writes for embeddings, are left out.
    """
    shapes = {f"{key}.{n}": p.shape for key, insert in inserts.items() for n, p in insert.module.named_parameters()}
    found, used = {}, set()
    for own, theirs in names.items():
        tail = theirs.removeprefix(ROOT)
        key = next((k for k in tensors if k == theirs or k.endswith(f".{tail}")), None)
        if key is not None:
            used.add(key)
            same = tensors[key].numel() == shapes[own].numel()
            found[own] = tensors[key].reshape(shapes[own]) if same else tensors[key]
    rest = {key: x for key, x in tensors.items() if key not in used and ".base_layer." not in key}
    return {**found, **rest}


def ia3_config(inserts: Mapping[str, Insert]) -> dict[str, Any] | None:
    """(IA)3 as PEFT's config; None where a slice of a fused projection is scaled."""
    if any(insert.point.of > 1 for insert in inserts.values()):
        return None
    return {
        "peft_type": "IA3",
        "target_modules": [insert.point.path for insert in inserts.values()],
        "feedforward_modules": [insert.point.path for insert in inserts.values() if insert.point.side == "in"],
        "fan_in_fan_out": False,
        "init_ia3_weights": True,
        "inference_mode": True,
    }


def ia3_names(inserts: Mapping[str, Insert]) -> dict[str, str]:
    """Our name of every tensor -> PEFT's."""
    return {f"{key}.ia3_l": f"{ROOT}{insert.point.path}.ia3_l" for key, insert in inserts.items()}


def ia3_options(config: Mapping[str, Any], keys: Sequence[str], on: Host) -> dict[str, Any]:
    """The fields of `adapter.ia3` for a file of PEFT's."""
    if config.get("modules_to_save"):
        raise AssemblerError("its `modules_to_save` is not taken here; save the adapter without it")
    paths = dict.fromkeys(key.removeprefix(ROOT).removesuffix(".ia3_l") for key in keys if key.endswith(".ia3_l"))
    inner = config.get("feedforward_modules") or []
    named = [inner] if isinstance(inner, str) else list(inner)
    inside = [path for path in paths if any(path == one or path.endswith(f".{one}") for one in named)]
    sites = {path: site_of(on, path) for path in paths}
    outputs = pattern_of([sites[path] for path in paths if path not in inside])
    found = {"outputs": outputs.pop("sites"), "inputs": "", **outputs}
    if inside:
        inputs = pattern_of([sites[path] for path in inside])
        if inputs.get("layers") != outputs.get("layers"):
            raise AssemblerError("the adapter scales other layers' outputs than inputs; load it as several")
        found["inputs"] = inputs["sites"]
    return found


def shira_config(part: Shira, inserts: Mapping[str, Insert]) -> dict[str, Any] | None:
    """SHiRA as PEFT's config; None where a slice is changed, not as many entries as LoRA has, or a DoRA masked."""
    if (
        part.mask == "struct"
        or part.run > 1
        or part.dora
        or part.scale != 1
        or any(insert.point.of > 1 for insert in inserts.values())
    ):
        return None
    return {
        "peft_type": "SHIRA",
        "r": part.rank,
        "mask_type": "random",
        "random_seed": part.seed,
        "target_modules": [insert.point.path for insert in inserts.values()],
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def to_shira(inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values by PEFT's names, and the rows and columns of their entries: [2, n]."""
    found = {}
    for key, insert in inserts.items():
        module: Any = insert.module
        flat, path = tensors[f"{key}.indices"], f"{ROOT}{insert.point.path}"
        found[f"{path}.shira_weight"] = tensors[f"{key}.values"]
        found[f"{path}.shira_indices"] = torch.stack([flat // module.shape[1], flat % module.shape[1]]).int()
    return found


def from_shira(inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same back; without entries, as older files are, those that the seed draws."""
    rest, found = dict(tensors), dict[str, Tensor]()
    for key, insert in inserts.items():
        module: Any = insert.module
        path = f"{ROOT}{insert.point.path}"
        own = {f"{path}.shira_weight": f"{key}.values", f"{path}.shira_indices": f"{key}.indices"}
        found |= {ours: rest.pop(theirs) for theirs, ours in own.items() if theirs in rest}
        entries = found.get(f"{key}.indices", module.indices)
        found[f"{key}.indices"] = (
            entries[0].long() * module.shape[1] + entries[1].long() if entries.dim() == 2 else entries
        )
    return {**found, **rest}


def shira_options(config: Mapping[str, Any], keys: Sequence[str], on: Host) -> dict[str, Any]:
    """The fields of `adapter.shira` for a file of PEFT's."""
    if config.get("modules_to_save"):
        raise AssemblerError("its `modules_to_save` is not taken here; save the adapter without it")
    paths = dict.fromkeys(key.removeprefix(ROOT).removesuffix(".shira_weight") for key in keys if "shira_weight" in key)
    sites = pattern_of([site_of(on, path) for path in paths])
    return {**sites, "rank": config.get("r"), "seed": config.get("random_seed")}


def prefix_config(length: int, inserts: Mapping[str, Insert]) -> dict[str, Any]:
    """Prefix tuning as PEFT's config."""
    heads: Any = next(iter(inserts.values())).module.heads
    return {
        "peft_type": "PREFIX_TUNING",
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": length,
        "num_layers": len(inserts),
        "num_attention_heads": heads.kv,
        "token_dim": heads.kv * heads.size,
        "num_transformer_submodules": 1,
        "prefix_projection": False,
        "inference_mode": True,
    }


def prefix_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `adapter.prefix` for a file of PEFT's, which holds the keys and values of every layer."""
    return {"length": config.get("num_virtual_tokens")}


def prefix_tensors(inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The one table [P, layers * 2 d_kv] cut by layers."""
    rest = {key: tensor for key, tensor in tensors.items() if key != "prompt_embeddings"}
    table = tensors.get("prompt_embeddings")
    if table is None or table.dim() != 2 or table.shape[1] % len(inserts):
        return rest
    return {**{f"{k}.table": part for k, part in zip(inserts, table.chunk(len(inserts), 1), strict=True)}, **rest}


def adaption_config(length: int, inserts: Mapping[str, Insert]) -> dict[str, Any]:
    """LLaMA-Adapter with a plain gate a layer as PEFT's config."""
    return {
        "peft_type": "ADAPTION_PROMPT",
        "task_type": "CAUSAL_LM",
        "adapter_len": length,
        "adapter_layers": len(inserts),
        "target_modules": next(iter(inserts.values())).point.path.rpartition(".")[2],
        "inference_mode": True,
    }


def adaption_names(inserts: Mapping[str, Insert]) -> dict[str, str]:
    """Our name of every tensor -> PEFT's."""
    words = {"prompts": "adaption_prompt", "gate": "adaption_gate"}
    paths = {key: insert.point.path for key, insert in inserts.items()}
    return {f"{key}.{own}": f"{ROOT}{path}.{theirs}" for key, path in paths.items() for own, theirs in words.items()}
