"""LoRA on the linears of any host: h = W x + (alpha / r) B A x, with A [r, in] and B [out, r] (arXiv 2106.09685).

The layers are PEFT's (`peft.inject_adapter_in_model`), put in place by canonical site names, so that adapters saved by
PEFT fit here and these fit there. B starts at zero: an untrained adapter leaves the host's output bit-exact.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

import components.anatomies  # noqa: F401  (registers the tables that sites are resolved with)
from assembler.anatomy import Slice, alternatives, places_of, resolve_places
from assembler.errors import AssemblerError

INITS: dict[str, bool | str] = {"kaiming": True, "gaussian": "gaussian"}
TARGETS = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, LoraLayer)


def lora_parameters(shapes: Iterable[tuple[int, int]], rank: int) -> int:
    """Number of weights that LoRA adds to linears of the given (in, out) shapes: sum of r * (in + out)."""
    return sum(rank * (inputs + outputs) for inputs, outputs in shapes)


def inject_lora(
    host: nn.Module,
    sites: str,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    name: str = "default",
    rslora: bool = False,
    dora: bool = False,
    init: str = "kaiming",
    seed: int | None = None,
) -> list[str]:
    """Put a named LoRA on the sites of a host, in place, and return the names of its new parameters.

    The new parameters require gradients; every other parameter keeps the flag it had. Adapters of other names stay
    active beside it. On a host on the meta device the new parameters are on the meta device too.

    Args:
        host: a model with a known anatomy, or a module that wraps one.
        sites: pattern over canonical sites, such as `layers.*.attn.{q,v}`.
        rank: r, the inner width.
        alpha: the update is scaled by alpha / r, or by alpha / sqrt(r) with `rslora` (arXiv 2312.03732).
        dropout: rate on the input of A, in training.
        name: name of the adapter, unique on the host.
        rslora: see `alpha`.
        dora: learn the norm of each output apart from its direction (arXiv 2402.09353).
        init: how A is drawn, `kaiming` (uniform) or `gaussian` (deviation 1 / r); B is zero.
        seed: seed of that draw, which leaves the global generator alone; None draws from the global generator.

    Raises:
        AssemblerError: a knob is out of its range, the name is taken, or the sites take no LoRA.
    """
    _check_knobs(host, rank, dropout, name, init)
    paths = _target_paths(host, sites)
    before = [(parameter, parameter.requires_grad) for parameter in host.parameters()]
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT says int and only divides it
        lora_dropout=dropout,
        target_modules=paths,
        fan_in_fan_out=any(_is_conv1d(host.get_submodule(path)) for path in paths),
        use_rslora=rslora,
        use_dora=dora,
        init_lora_weights=INITS[init],  # type: ignore[arg-type]
    )
    on_meta = any(p.is_meta for path in paths for p in host.get_submodule(path).parameters())
    with _seeded(seed), _quiet_about_others():
        inject_adapter_in_model(config, host, adapter_name=name, low_cpu_mem_usage=on_meta)
    _check_hit(host, name, paths)
    _activate_all(host)
    return _restore_flags(host, before)


def merge_lora(host: nn.Module, *names: str) -> None:
    """Add the named adapters (none named: all) into the host's weights, W <- W + (alpha / r) B A, reversibly.

    Raises:
        AssemblerError: no such adapter, or a layer also has an adapter that would stay unmerged: PEFT's merged layers
            compute with their base weights alone.
    """
    chosen = set(names) or set(lora_names(host))
    _check_known(host, chosen)
    for path, layer in _layers(host):
        here = _names(layer)
        if chosen & here and here - chosen - set(layer.merged_adapters):
            left = ", ".join(sorted(here - chosen))
            raise AssemblerError(f"{path} also has the unmerged adapter {left}; merge both in one call")
    for _, layer in _layers(host):
        todo = [name for name in layer.active_adapters if name in chosen and name not in layer.merged_adapters]
        if todo:
            layer.merge(adapter_names=todo)


def unmerge_lora(host: nn.Module) -> None:
    """Take all merged adapters out of the host's weights again; exact up to the rounding of the subtraction."""
    for _, layer in _layers(host):
        if layer.merged:
            layer.unmerge()


def remove_lora(host: nn.Module, keep_merged: bool = False) -> None:
    """Take every adapter off, so that the host is made of its own modules again, bit-exactly as before.

    Args:
        host: a host on which `inject_lora` was used; without adapters nothing happens.
        keep_merged: leave merged adapters in the weights for good, as for an export.

    Raises:
        AssemblerError: an adapter is merged and `keep_merged` is not set.
    """
    layers = list(_layers(host))
    if not keep_merged:
        _check_unmerged(layers, "call unmerge_lora first, or pass keep_merged=True to keep it in the weights")
    for path, layer in layers:
        parent, _, child = path.rpartition(".")
        setattr(host.get_submodule(parent), child, layer.get_base_layer())
    if hasattr(host, "peft_config"):
        del host.peft_config


def lora_names(host: nn.Module) -> list[str]:
    """Names of the LoRA adapters on a host, sorted."""
    return sorted({name for _, layer in _layers(host) for name in _names(layer)})


def _layers(host: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    return ((path, module) for path, module in host.named_modules() if isinstance(module, LoraLayer))


def _names(layer: LoraLayer) -> set[str]:
    return {*layer.lora_A, *layer.lora_embedding_A}


def _is_conv1d(module: nn.Module) -> bool:
    """Whether the layer is GPT-2's linear, whose weight is stored as [in, out]."""
    base = module.get_base_layer() if isinstance(module, LoraLayer) else module
    return type(base).__name__ == "Conv1D"


def _check_knobs(host: nn.Module, rank: int, dropout: float, name: str, init: str) -> None:
    if rank < 1:
        raise AssemblerError(f"adapter {name!r}: rank is {rank}; it must be at least 1")
    if not (math.isfinite(dropout) and 0 <= dropout < 1):
        raise AssemblerError(f"adapter {name!r}: dropout is {dropout}; it must be at least 0 and below 1")
    if init not in INITS:
        raise AssemblerError(f"adapter {name!r}: no init {init!r}; use one of {', '.join(INITS)}")
    if not name.isidentifier() or "lora_" in name:
        raise AssemblerError(f"adapter name {name!r} does not do; use letters, digits and _, without 'lora_'")
    if name in lora_names(host):
        raise AssemblerError(f"the host already has an adapter {name!r}; pick another name or call remove_lora")
    _check_unmerged(list(_layers(host)), f"call unmerge_lora before adding {name!r}")


def _check_unmerged(layers: list[tuple[str, LoraLayer]], way_out: str) -> None:
    merged = next((f"{', '.join(layer.merged_adapters)} is merged into {p}" for p, layer in layers if layer.merged), "")
    if merged:
        raise AssemblerError(f"adapter {merged}; {way_out}")


def _check_known(host: nn.Module, names: set[str]) -> None:
    known = lora_names(host)
    missing = sorted(names - set(known)) or (["default"] if not known else [])
    if missing:
        raise AssemblerError(f"the host has no adapter {missing[0]!r}; it has {', '.join(known) or 'none'}")


def _target_paths(host: nn.Module, sites: str) -> list[str]:
    """Paths of the layers that a pattern names, each a whole layer that can take LoRA."""
    found = resolve_places(host, sites)
    if any(not place.whole for _, place in found):
        raise AssemblerError(_fused(host, sites))
    for site, place in found:
        module = host.get_submodule(place.path)
        if not isinstance(module, TARGETS) and not _is_conv1d(module):
            raise AssemblerError(
                f"site {site} is a {type(module).__name__} ({place.path}); LoRA takes linears, embeddings and "
                "convolutions, such as layers.*.attn.{q,v}"
            )
    return list(dict.fromkeys(place.path for _, place in found))


def _fused(host: nn.Module, sites: str) -> str:
    """The sentence that says which fused sites to name instead of their slices."""
    whole = {place: site for site, place in places_of(host).items() if place.whole}
    instead: dict[str, None] = {}
    for pattern in alternatives(sites):
        _, place = resolve_places(host, pattern)[0]
        last = whole[Slice(place.path)].rpartition(".")[2]
        instead[pattern if place.whole else f"{pattern.rpartition('.')[0]}.{last}"] = None
    text = next(iter(instead)) if len(instead) == 1 else "{" + ",".join(instead) + "}"
    return f"{sites} names slices of a fused projection, and LoRA takes only whole layers here: use {text} instead"


def _check_hit(host: nn.Module, name: str, paths: list[str]) -> None:
    """Guard against PEFT's matching by suffix, which could adapt a module of the same ending elsewhere."""
    hit = {path for path, layer in _layers(host) if name in _names(layer)}
    if hit != set(paths):
        odd = ", ".join(sorted(hit ^ set(paths))[:3])
        raise AssemblerError(f"adapter {name!r} did not land exactly on its sites ({odd}); pass the host alone")


def _activate_all(host: nn.Module) -> None:
    """Make every adapter on every layer active, each in the training mode of the layer it sits on."""
    for module in host.modules():
        if isinstance(module, LoraLayer):
            module.set_adapter(sorted(_names(module)))
            module.train(module.get_base_layer().training)


def _restore_flags(host: nn.Module, before: list[tuple[nn.Parameter, bool]]) -> list[str]:
    """Give old parameters their `requires_grad` back, set it on the new ones, and name the new ones."""
    old = {id(parameter) for parameter, _ in before}
    for parameter, flag in before:
        parameter.requires_grad_(flag)
    new = {name: parameter for name, parameter in host.named_parameters() if id(parameter) not in old}
    for parameter in new.values():
        parameter.requires_grad_(True)
    return list(new)


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Draw from a seed within the block and leave the CPU generator as it was; None changes nothing."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield


@contextmanager
def _quiet_about_others() -> Iterator[None]:
    """Adapters side by side are meant here, so PEFT need not warn about a second one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        yield
