"""Work on adapters' files that needs no host."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assembler.adapters.files import CONFIG, TENSORS, AdapterFile, read_adapter, save_adapter
from assembler.errors import AssemblerError, told
from assembler.files import aside, write_text
from assembler.suggest import nearest

KNOBS = ("r", "lora_alpha", "use_rslora", "use_dora", "num_virtual_tokens", "adapter_len", "target_modules")
"""What of a PEFT config says what the adapter computes."""


def method(file: AdapterFile) -> str:
    """The part's name, or PEFT's name of the method."""
    return str(file.config.get("part") or file.config.get("peft_type"))


def options(file: AdapterFile) -> dict[str, Any]:
    """The options of an adapter as its file has them."""
    if file.own:
        return dict(file.config.get("options") or {})
    return {key: file.config[key] for key in KNOBS if file.config.get(key) is not None}


def listed(place: Path) -> list[dict[str, Any]]:
    """The adapters below a folder, or of a run: name, method, parameters.

    Raises:
        AssemblerError: there are none.
    """
    from assembler.runs import Run, graph_of

    if Run(place).spec_path.is_file():
        from assembler.compile import compile_graph

        graph = graph_of(place)
        assembly = compile_graph(graph, device="meta")
        sizes = {key: parameter.numel() for key, parameter in assembly.named_parameters()}
        counts = {name: sum(sizes[key] for key in assembly.of(name)) for name in graph.adapters}
        rows = [{"name": n, "method": p.type, "parameters": counts[n]} for n, p in graph.adapters.items()]
    else:
        files = [read_adapter(path.parent) for path in sorted(place.glob(f"**/{CONFIG}"))]
        rows = [
            {
                "name": str(file.folder),
                "method": method(file),
                "parameters": sum(x.numel() for x in file.tensors.values()),
            }
            for file in files
        ]
    if not rows:
        raise AssemblerError(f"{place} holds no adapters; name a folder above some, or a run whose spec has some")
    return rows


def _count(file: AdapterFile) -> int:
    return sum(tensor.numel() for tensor in file.tensors.values())


def shown(folder: Path) -> dict[str, Any]:
    """An adapter's method, host, options and tensors."""
    file = read_adapter(folder)
    host = (file.config.get("host") or {}).get("class") if file.own else file.config.get("base_model_name_or_path")
    tensors = [
        {"tensor": key, "shape": list(x.shape), "rms": float(x.float().pow(2).mean().sqrt())}
        for key, x in file.tensors.items()
    ]
    about = {"method": method(file), "parameters": _count(file), "host": host or "not said"}
    return {**about, "options": options(file), "tensors": tensors}


def extracted(run: Path, name: str, out: Path) -> None:
    """Write an adapter of a trained run as a file.

    Raises:
        AssemblerError: the run's spec has no such adapter, or `out` exists.
    """
    from assembler.runs import load_run

    graph, assembly = load_run(run)
    if name not in graph.adapters:
        raise AssemblerError(f"{run}: its spec has no adapter {name}{nearest(name, graph.adapters)}")
    save_adapter(assembly.nodes[graph.adapters[name].host], name, out)


def merged(folders: Sequence[Path], weights: Sequence[float], out: Path) -> None:
    """Write sum_i w_i adapter_i. LoRAs are joined so that their changes B A are what is summed: the ranks add up.

    Raises:
        AssemblerError: they are of different methods or shapes, or `out` exists.
    """
    if out.exists():
        raise AssemblerError(f"{out} exists already; choose another folder or remove it")
    files = [read_adapter(folder) for folder in folders]
    first = files[0]
    for file in files[1:]:
        if method(file) != method(first):
            raise AssemblerError(
                f"{file.folder} is {method(file)} and {first.folder} is {method(first)}; merge of a kind"
            )
        odd = set(file.tensors) ^ set(first.tensors)
        if odd:
            raise AssemblerError(
                f"{sorted(odd)[0]} is not in both {first.folder} and {file.folder}; merge adapters of one host"
            )
    lora = method(first) in ("LORA", "adapter.lora")
    config, tensors = _joined(files, weights) if lora else (first.config, _mean(files, weights))
    _write(config, tensors, out)


def _mean(files: Sequence[AdapterFile], weights: Sequence[float]) -> dict[str, Tensor]:
    for file in files[1:]:
        for key, tensor in file.tensors.items():
            if tensor.shape != files[0].tensors[key].shape:
                shapes = f"{list(tensor.shape)} in {file.folder} and {list(files[0].tensors[key].shape)}"
                raise AssemblerError(f"{key} is {shapes} in {files[0].folder}; merge adapters of one size")
    return {
        key: torch.stack([w * file.tensors[key].float() for file, w in zip(files, weights, strict=True)])
        .sum(0)
        .to(tensor.dtype)
        for key, tensor in files[0].tensors.items()
    }


def _joined(files: Sequence[AdapterFile], weights: Sequence[float]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """LoRAs as one of the summed rank, whose alpha is its rank."""
    scales = [_scale(file) * weight for file, weight in zip(files, weights, strict=True)]
    tensors = {}
    for key in files[0].tensors:
        if "magnitude" in key:
            raise AssemblerError(f"{files[0].folder} is DoRA, whose changes do not add up; merge plain LoRAs")
        parts = [file.tensors[key] for file in files]
        if "lora_A" in key or "embedding_A" in key:
            tensors[key] = torch.cat(parts, 0)
        else:
            tensors[key] = torch.cat([part * scale for part, scale in zip(parts, scales, strict=True)], 1)
    knobs = [options(file) for file in files]
    total = sum(int(knob.get("r", knob.get("rank", 0))) for knob in knobs)
    config = dict(files[0].config)
    if files[0].own:
        config["options"] = {**config["options"], "rank": total, "alpha": float(total), "rslora": False}
    else:
        config |= {"r": total, "lora_alpha": total, "use_rslora": False}
    return config, tensors


def _scale(file: AdapterFile) -> float:
    knobs = options(file)
    rank = float(knobs.get("r", knobs.get("rank", 1)))
    alpha = float(knobs.get("lora_alpha", knobs.get("alpha", rank)))
    return alpha / (rank**0.5 if knobs.get("use_rslora", knobs.get("rslora")) else rank)


def _write(config: dict[str, Any], tensors: dict[str, Tensor], out: Path) -> None:
    from safetensors.torch import save_file

    out.parent.mkdir(parents=True, exist_ok=True)
    with told(f"{out} could not be written"), aside(out) as draft:
        draft.mkdir()
        write_text(draft / CONFIG, json.dumps(config, indent=2) + "\n")
        save_file({key: x.contiguous() for key, x in tensors.items()}, draft / TENSORS, metadata={"format": "pt"})


def difference(first: Path, second: Path) -> dict[str, Any]:
    """What differs between two adapters: options, tensors that only one has, and |a - b| / |a| of the others."""
    one, two = read_adapter(first), read_adapter(second)
    mine, other = {"method": method(one), **options(one)}, {"method": method(two), **options(two)}
    changed = {k: (mine.get(k), other.get(k)) for k in {**mine, **other} if mine.get(k) != other.get(k)}
    rows, same = [], not changed and set(one.tensors) == set(two.tensors)
    for key in [key for key in one.tensors if key in two.tensors]:
        a, b = one.tensors[key].float(), two.tensors[key].float()
        alike = a.shape == b.shape
        far = float((a - b).norm() / a.norm().clamp(min=1e-12)) if alike else float("inf")
        same &= alike and bool(torch.equal(a, b))
        rows.append({"tensor": key, "shapes": f"{list(a.shape)} {list(b.shape)}", "relative difference": far})
    lone = {"only_first": sorted(set(one.tensors) - set(two.tensors))}
    lone["only_second"] = sorted(set(two.tensors) - set(one.tensors))
    return {"same": same, "options": changed, **lone, "tensors": rows}


def moved(folder: Path, node: str, count: int) -> dict[str, Any]:
    """How far a run has moved the embeddings of a node: the cosine distance to those that it began with.

    It is read off the first `count` held-out rows, without their labels. Where it is large, what the run taught the
    body of the model matters (the probe of First Session Adaptation, arXiv 2303.13199).

    Raises:
        AssemblerError: there is no such node, or it gives no tokens or embedding.
    """
    from assembler.batches import Batches, split
    from assembler.compile import compile_graph, inference
    from assembler.ragged import masked_mean, parted
    from assembler.runs import load_run

    graph, after = load_run(folder)
    value = graph.values.get(node)
    if value is None or value.kind not in ("tokens", "embedding"):
        fits = [name for name, found in graph.values.items() if found and found.kind in ("tokens", "embedding")]
        raise AssemblerError(f"{folder}: {node[:80]} gives no tokens and no embedding; name one of {', '.join(fits)}")
    learn, held = split(graph)
    rows, batches, before = held or learn, Batches(graph), compile_graph(graph)
    needed = before.needed(only=[node])
    inputs, found = [name for name in graph.samples if name in needed], []
    for start in range(0, min(count, len(rows)), 32):
        batch = batches.samples(list(rows[start : min(start + 32, count)]), inputs)
        pooled = []
        for assembly in (before, after):
            with inference(assembly):
                values, mask = parted(assembly.values(batch, only=[node])[node])
            pooled.append(masked_mean(values, mask) if values.dim() == 3 else values)  # [B, d]
        one, other = pooled
        found.append(1 - torch.cosine_similarity(one, other))
    distances = torch.cat(found)
    return {"node": node, "rows": len(distances), "distance": distances.mean().item(), "most": distances.max().item()}
