"""The module of `encoder.open_clip`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower, resize_pos_embed
from torch import Tensor

from assembler.errors import told
from components.encoders._frames import PictureTower
from components.encoders._states import LayerMix, place_exactly
from components.encoders.open_clip import Tower


class OpenClipTower(PictureTower):
    """An image tower of open_clip, read as tokens or as the embedding that it compares with text."""

    def __init__(
        self,
        config: dict[str, Any],
        tower: Tower,
        size: tuple[int, int],
        layer: int | None,
        mix: bool,
        pooled: bool,
        prefix: bool,
    ) -> None:
        super().__init__()
        knobs = {key: item for key, item in config["vision_cfg"].items() if key != "timm_model_pretrained"}
        if tower.stretches:
            knobs["image_size"] = size
        with told("open_clip cannot make an image tower of this config"):
            made = CLIPVisionCfg(**{**knobs, "output_tokens": False})
            self.visual: Any = _build_vision_tower(config["embed_dim"], made, config.get("quick_gelu", False))
        self.own, self.layer, self.pooled, self.prefix = tower.stretches, layer, pooled, prefix
        self.front, self.trunk = tower.prefix, bool(tower.trunk)
        self.mix = LayerMix(len(tower.levels) + 1) if mix else None

    def encode(self, image: Tensor) -> Tensor:
        if self.mix is not None:
            tokens = self._own(self.mix(self._states(image)))
            return tokens.mean(1) if self.pooled else tokens
        if self.pooled:
            return self.visual(image)
        if self.layer is not None:
            return self._layer(image)
        if self.own:
            return self._own(self._states(image)[-1])
        if self.trunk:
            return self._trunk(image)
        return self._layer(image, last=True)

    def _states(self, image: Tensor) -> list[Tensor]:
        """The embeddings and what each block puts out, the last after the final norm unless that is for the pool."""
        visual = self.visual
        x = visual._embeds(image)  # [N, 1 + T, D]
        end, blocks = visual.transformer.forward_intermediates(x)
        return [x, *blocks[:-1], end if visual.final_ln_after_pool else visual.ln_post(end)]

    def _own(self, x: Tensor) -> Tensor:
        return x if self.prefix else x[:, self.front :]

    def _layer(self, image: Tensor, last: bool = False) -> Tensor:
        """Tokens [N, T, D] after one block or stage."""
        indices = 1 if last else [self.layer]
        fronts: dict[str, Any] = {"output_extra_tokens": True} if self.prefix and self.front else {}
        found = self.visual.forward_intermediates(image, indices=indices, intermediates_only=True, **fronts)
        tokens = found["image_intermediates"][-1].flatten(2).transpose(1, 2)
        return torch.cat([found["image_intermediates_prefix"][-1], tokens], dim=1) if fronts else tokens

    def _trunk(self, image: Tensor) -> Tensor:
        x = self.visual.trunk.forward_features(image)  # [N, T, D] or [N, D, h, w]
        return self._own(x) if x.dim() == 3 else x.flatten(2).transpose(1, 2)


def place_tower(module: OpenClipTower, state: dict[str, Tensor], name: str) -> None:
    """Put the image tower of a file of open_clip into the module, its positions resized to the module's pictures."""
    plain = {key.removeprefix("module."): x for key, x in state.items()}
    resize_pos_embed(plain, SimpleNamespace(visual=module.visual))
    place_exactly(module.visual, plain, ("visual.",), name)
