"""The module of `encoder.timm`, its weights, and the table of facts that shapes are read from.

python -m components.encoders._timm        # writes timm_facts.json again
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from assembler.errors import AssemblerError
from assembler.suggest import nearest
from components.encoders._frames import PictureTower
from components.encoders._states import LayerMix
from components.encoders.torchvision_names import to_timm

COMMON = [
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "convnext_tiny",
    "convnext_small",
    "convnext_base",
    "convnext_large",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
    "vit_base_patch32_224",
    "vit_large_patch16_224",
    "deit3_base_patch16_224",
    "vit_base_patch16_clip_224",
    "vit_base_patch32_clip_224",
    "vit_large_patch14_clip_224",
    "vit_large_patch14_clip_336",
    "vit_base_patch16_siglip_224",
    "vit_large_patch16_siglip_256",
    "vit_so400m_patch14_siglip_224",
    "vit_so400m_patch14_siglip_384",
    "vit_small_patch14_dinov2",
    "vit_base_patch14_dinov2",
    "vit_large_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch14_reg4_dinov2",
    "eva02_base_patch14_224",
    "test_vit",
    "test_resnet",
    "test_efficientnet",
    "test_convnext",
]


class TimmTower(PictureTower):
    """A timm model read as tokens, as timm's pooled features or, where it has `classes`, as its classifier's logits."""

    def __init__(
        self,
        model: str,
        channels: int,
        size: tuple[int, int] | None,
        layer: int | None = None,
        output: str = "tokens",
        prefix: bool = False,
        mixed: int = 0,
        classes: int = 0,
    ) -> None:
        super().__init__()
        sized: dict[str, Any] = {"img_size": size} if size else {}
        self.tower: Any = timm.create_model(model, pretrained=False, num_classes=classes, in_chans=channels, **sized)
        self.layer, self.output, self.prefix = layer, output, prefix
        self.mix = LayerMix(mixed) if mixed else None

    def encode(self, image: Tensor) -> Tensor:
        if self.mix is not None:
            return self._mixed(image)
        if self.layer is not None:
            (tokens,) = self._blocks(image, [self.layer])[1]
            return tokens
        x = self.tower.forward_features(image)  # [B, N, D], [B, D, h, w] or [B, h, w, D]
        if self.output != "tokens":
            return self.tower.forward_head(x, pre_logits=self.output == "pooled")  # [B, D] or [B, classes]
        return self._tokens(x)

    def _tokens(self, x: Tensor) -> Tensor:
        """What the model gives at its end -> [B, T, D]."""
        if x.dim() == 4:
            nhwc = getattr(self.tower, "output_fmt", "NCHW") == "NHWC"
            return x.flatten(1, 2) if nhwc else x.flatten(2).transpose(1, 2)
        return x if self.prefix else x[:, self.tower.num_prefix_tokens :]

    def _mixed(self, image: Tensor) -> Tensor:
        assert self.mix is not None
        end, blocks = self._blocks(image, None)
        tokens = self.mix([*blocks[:-1], self._tokens(end)])  # [B, T, D]
        return tokens.mean(1) if self.output == "pooled" else tokens

    def _blocks(self, image: Tensor, indices: list[int] | None) -> tuple[Any, list[Tensor]]:
        """What the model gives at its end, and the tokens [B, T, D] after each block of `indices`, or after all."""
        wanted = {"return_prefix_tokens": True} if self.prefix and hasattr(self.tower, "num_prefix_tokens") else {}
        only = {"indices": indices, "intermediates_only": True} if indices is not None else {}
        found = self.tower.forward_intermediates(image, output_fmt="NCHW", **only, **wanted)
        end, levels = (None, found) if only else found
        pairs = [level if isinstance(level, tuple) else (level, None) for level in levels]
        tokens = [(grid.flatten(2).transpose(1, 2), front) for grid, front in pairs]  # [B, T, D], [B, prefix, D]
        return end, [x if front is None else torch.cat([front, x], dim=1) for x, front in tokens]


def load_tower(tower: Any, state: dict[str, Tensor], name: str) -> None:
    """Put `state` into the tower, which must fit exactly; a classifier in it is left out where the tower has none."""
    if any(key.startswith("features.") for key in state):
        state = to_timm(state)
    code = sys.modules[type(tower).__module__]
    if hasattr(code, "checkpoint_filter_fn"):
        state = code.checkpoint_filter_fn(state, tower)
    own = tower.state_dict()
    classifier = set(timm_classifier(tower))
    extra = [key for key in state if key not in own and key.rpartition(".")[0] not in classifier]
    missing = [key for key in own if key not in state]
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    for what, keys in (("lacks", missing), ("has the unknown", extra), ("has another shape of", wrong)):
        if keys:
            raise AssemblerError(f"{name}: the file {what} {keys[0]}; give weights of this very model")
    kept = {key: value.to(own[key].dtype) for key, value in state.items() if key in own}
    tower.load_state_dict(kept, assign=True)


def timm_classifier(tower: Any) -> tuple[str, ...]:
    """Names of the classifier's modules, which a tower without classes does not have."""
    names = tower.pretrained_cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


@cache
def facts(model: str) -> dict[str, Any]:
    """Widths, reductions and pixel statistics of a timm model, read off one pass on the meta device."""
    if not timm.is_model(model):
        raise AssemblerError(f"timm has no model {model}{nearest(model, timm.list_models())}")
    with torch.device("meta"):
        tower: Any = timm.create_model(model, pretrained=False, num_classes=0).eval()
        cfg = tower.pretrained_cfg
        _, height, width = cfg["input_size"]
        image = torch.empty(1, 3, height, width)
        prefix = int(getattr(tower, "num_prefix_tokens", 0))
        try:
            levels = tower.forward_intermediates(image, intermediates_only=True, output_fmt="NCHW")
            bare = _bare(tower)
            grid = bare.encode(image)
            fixed = hasattr(tower, "patch_embed") and hasattr(tower, "pos_embed")
            odd = grid if fixed else bare.encode(torch.empty(1, 3, height + 1, width))
        except (AttributeError, RuntimeError, ValueError) as error:
            raise AssemblerError(f"timm's {model} gives no grid of features ({error}); pick another model") from error
    reduction = round((height * width / grid.shape[1]) ** 0.5)
    return {
        "width": grid.shape[2],
        "reduction": reduction,
        "pooled": int(getattr(tower, "head_hidden_size", tower.num_features)),
        "classes": int(cfg.get("num_classes") or 0),
        "layers": [[x.shape[1], height // x.shape[2]] for x in levels],
        "prefix": prefix,
        "fixed": fixed,
        "ceil": odd.shape[1] > grid.shape[1],
        "mean": list(cfg["mean"]),
        "std": list(cfg["std"]),
        "interpolation": cfg.get("interpolation") or "bilinear",
    }


def _bare(tower: torch.nn.Module) -> TimmTower:
    module = TimmTower.__new__(TimmTower)
    torch.nn.Module.__init__(module)
    module.tower, module.layer, module.output, module.prefix, module.mix = tower, None, "tokens", False, None
    return module


if __name__ == "__main__":
    rows = [f'"{name}": {json.dumps(facts(name))}' for name in sorted(COMMON)]
    text = "{\n" + ",\n".join(rows) + "\n}\n"
    (Path(__file__).parent / "timm_facts.json").write_text(text, encoding="utf-8")
