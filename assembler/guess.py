"""Introspection: the anatomy of a host that no table describes, guessed from names and shapes, and what was guessed."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assembler.anatomy import INDEX, Anatomy, Place, Slice, joined
from assembler.errors import AssemblerError

if TYPE_CHECKING:
    from torch import nn

WORDS = {
    "q": r"q|query|q_proj|q_lin|wq|to_q|query_proj|linear_q|q_linear",
    "k": r"k|key|k_proj|k_lin|wk|to_k|key_proj|linear_k|k_linear",
    "v": r"v|value|v_proj|v_lin|wv|to_v|value_proj|linear_v|v_linear",
    "o": r"o|o_proj|out_proj|out_lin|wo|to_out(\.0)?|proj|c_proj|dense|output\.dense|linear_out|out",
    "qkv": r"qkv|qkv_proj|c_attn|wqkv|query_key_value|in_proj|to_qkv",
}
ATTENTION = re.compile(r"attn|attention|self_attn|mha", re.IGNORECASE)
GATE = re.compile(r"gate|wi_0|w1$|fc1_g", re.IGNORECASE)


@dataclass(frozen=True)
class Guess:
    """An anatomy, and a line for each thing that was taken for something."""

    anatomy: Anatomy
    report: tuple[str, ...]


def guessed(host: nn.Module) -> Guess:
    """The anatomy of a host, from the names and shapes of its modules.

    Raises:
        AssemblerError: it has no stack of equal layers.
    """
    path, layers = _stack(host)
    layer, lines = layers[0], [f"layers: {path} ({len(layers)} of {type(layers[0]).__name__})"]
    width = _width(layer)
    sites: dict[str, Place] = {"layers.{i}": f"{path}.{INDEX}"}
    for name, place in _inside(layer, width, lines).items():
        whole = place if isinstance(place, Slice) else Slice(place)
        sites[f"layers.{{i}}.{name}"] = Slice(joined(f"{path}.{INDEX}", whole.path), whole.index, whole.of)
    sites.update(_outside(host, path, width, lines))
    lines.append(f"width of the stream: {width}")
    lines.append("norms are taken to stand before the sub-layers; give `anatomy` by hand where they come after")
    return Guess(Anatomy(f"guessed from {type(host).__name__}", lambda module: True, sites), tuple(lines))


def _stack(host: nn.Module) -> tuple[str, list[nn.Module]]:
    """The list of equal layers that holds the most weights."""
    found: list[tuple[int, str, list[nn.Module]]] = []
    for path, module in host.named_modules():
        children = list(module.children())
        listed = type(module).__name__ in ("ModuleList", "Sequential")
        if listed and path and len(children) > 1 and len({type(child) for child in children}) == 1:
            weights = sum(parameter.numel() for parameter in module.parameters())
            if any(_is_linear(inner) for inner in children[0].modules()):
                found.append((weights, path, children))
    if not found:
        raise AssemblerError(f"{type(host).__name__} has no stack of equal layers, so that no sites can be guessed")
    _, path, children = max(found, key=lambda item: item[0])
    return path, children


def _is_linear(module: nn.Module) -> bool:
    return hasattr(module, "in_features") or type(module).__name__ == "Conv1D"


def _sizes(module: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear."""
    if type(module).__name__ == "Conv1D":
        inputs, outputs = module.weight.shape  # type: ignore[union-attr,misc]
        return inputs, outputs
    return module.in_features, module.out_features  # type: ignore[return-value]


def _width(layer: nn.Module) -> int:
    """The width that most of a layer's linears read or give."""
    counts = Counter(size for module in layer.modules() if _is_linear(module) for size in _sizes(module))
    return counts.most_common(1)[0][0]


def _inside(layer: nn.Module, width: int, lines: list[str]) -> dict[str, str | Slice]:
    """The sites of one layer, relative to it."""
    linears = {path: module for path, module in layer.named_modules() if _is_linear(module)}
    sites: dict[str, str | Slice] = {}
    attention = next((p for p, m in layer.named_modules() if ATTENTION.search(p) and list(m.children())), None)
    if attention is not None:
        sites["attn"] = attention
        lines.append(f"attn: {attention} ({type(layer.get_submodule(attention)).__name__})")
        below = {path.removeprefix(attention + "."): path for path in linears if path.startswith(attention + ".")}
        for name, words in WORDS.items():
            # The name counts from its end: `self.query` is a query.
            pattern = re.compile(rf"(?:.*\.)?(?:{words})", re.IGNORECASE)
            hit = next((path for tail, path in below.items() if pattern.fullmatch(tail)), None)
            if hit is not None and (name != "o" or hit not in sites.values()):
                sites[f"attn.{name}"] = hit
                lines.append(f"attn.{name}: {hit} {list(_sizes(linears[hit]))}")
        fused = sites.get("attn.qkv")
        if isinstance(fused, str) and _sizes(linears[fused])[1] == 3 * width:
            sites |= {f"attn.{name}": Slice(fused, index, 3) for index, name in enumerate("qkv")}
            lines.append(f"attn.q, attn.k, attn.v: thirds of {fused}, in this order")
    rest = {p: m for p, m in linears.items() if attention is None or not p.startswith(attention + ".")}
    sites |= _mlp(rest, width, lines)
    norms = [path for path, module in layer.named_modules() if "norm" in type(module).__name__.lower()]
    outer = [path for path in norms if "." not in path] or norms
    for number, path in enumerate(outer[:2], 1):
        sites[f"norm{number}"] = path
        lines.append(f"norm{number}: {path}")
    return sites


def _mlp(linears: dict[str, nn.Module], width: int, lines: list[str]) -> dict[str, str | Slice]:
    up = [path for path, m in linears.items() if _sizes(m)[0] == width and _sizes(m)[1] != width]
    down = [path for path, m in linears.items() if _sizes(m)[1] == width and _sizes(m)[0] != width]
    gates = [path for path in up if GATE.search(path)] if len(up) > 1 else []
    plain = [path for path in up if path not in gates]
    sites: dict[str, str | Slice] = {}
    parents = {path.rpartition(".")[0] for path in (*plain[:1], *down[:1])}
    if len(parents) == 1 and (parent := parents.pop()):
        sites["mlp"] = parent
        lines.append(f"mlp: {parent}")
    for name, paths in (("mlp.gate", gates), ("mlp.up", plain), ("mlp.down", down)):
        if paths:
            sites[name] = paths[0]
            lines.append(f"{name}: {paths[0]} {list(_sizes(linears[paths[0]]))}")
    return sites


def _outside(host: nn.Module, path: str, width: int, lines: list[str]) -> dict[str, Place]:
    """The embedding before the stack, the norm and the head after it, by the order in which the host was built."""
    sites: dict[str, Place] = {}
    named = [(name, module) for name, module in host.named_modules() if not list(module.children())]
    places = [name.startswith(path + ".") for name, _ in named]
    start, stop = places.index(True), len(places) - places[::-1].index(True)
    for name, module in named[:start]:
        if getattr(module, "embedding_dim", getattr(module, "out_channels", None)) == width and "embed" not in sites:
            sites["embed"] = name
    for name, module in named[stop:]:
        weight = getattr(module, "weight", None)
        kind = type(module).__name__.lower()
        if "norm" in kind and weight is not None and weight.numel() == width and "final" not in sites:
            sites["final"] = name
        elif _is_linear(module) and _sizes(module)[0] == width and "pool" not in name and "head" not in sites:
            sites["head"] = name
    lines.extend(f"{site}: {name}" for site, name in sites.items())
    return sites
