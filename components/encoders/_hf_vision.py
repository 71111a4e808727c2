"""The module of `encoder.hf_vision`."""

from __future__ import annotations

from typing import Any

import transformers
from torch import Tensor

from assembler.errors import told
from components.encoders._frames import PictureTower
from components.encoders._states import LayerMix, drop
from components.encoders.hf_vision import Family, sides


class HfVisionTower(PictureTower):
    """A vision model of transformers, read block by block."""

    def __init__(
        self,
        family: Family,
        config: dict[str, Any],
        size: tuple[int, int],
        layer: int | None,
        mix: bool,
        pooled: bool,
        front: int,
        prefix: bool,
    ) -> None:
        super().__init__()
        knobs = {key: item for key, item in config.items() if key not in ("model_type", "architectures", "auto_map")}
        with told(f"transformers cannot make a {family.model} of this config"):
            made = getattr(transformers, family.config)(**knobs)
            made._attn_implementation = "sdpa"
            self.model: Any = getattr(transformers, family.model)(made, **dict(family.options))
        own = sides(config, "image_size", 224)
        self.family, self.layer, self.pooled, self.front, self.keep = family, layer, pooled, front, prefix
        self.stretched = {} if family.any_size or size == own else {"interpolate_pos_encoding": True}
        self.mix = LayerMix(made.num_hidden_layers + 1) if mix else None
        drop(self.model, family.unread(layer, pooled and not mix))

    def encode(self, image: Tensor) -> Tensor:
        states = self._states(image)
        if self.mix is not None:
            tokens = self._own(self.mix(states))
            return tokens.mean(1) if self.pooled else tokens
        return self._pooled(states[-1]) if self.pooled else self._own(states[-1])

    def _states(self, image: Tensor) -> list[Tensor]:
        """The embeddings and what each block puts out, up to `layer`; the last as the model gives it."""
        x = self.model.embeddings(image, **self.stretched)  # [N, front + T, D]
        states = [self.model.get_submodule(self.family.before)(x) if self.family.before else x]
        layers: Any = self.model.get_submodule(self.family.layers)
        for block in layers[: None if self.layer is None else self.layer + 1]:
            out = block(states[-1], attention_mask=None)
            states.append(out[0] if isinstance(out, tuple) else out)
        if self.layer is None and self.family.after:
            states[-1] = self.model.get_submodule(self.family.after)(states[-1])
        return states

    def _own(self, x: Tensor) -> Tensor:
        return x if self.keep else x[:, self.front :]

    def _pooled(self, x: Tensor) -> Tensor:
        x = x[:, 0] if self.family.prefix else x
        return self.model.get_submodule(self.family.head)(x) if self.family.head else x
