"""The module of `encoder.clipseg`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

from assembler.errors import told
from assembler.ragged import Ragged


class ClipSegTower(nn.Module):
    """transformers' CLIPSeg, whose own forward lets no gradient into its towers, read step by step."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        with told("transformers cannot make a CLIPSeg of this config"):
            made = CLIPSegConfig(
                **{key: item for key, item in config.items() if key not in ("model_type", "architectures")}
            )
            made._attn_implementation = "sdpa"
            self.model: Any = CLIPSegForImageSegmentation(made)

    def forward(self, image: Tensor, text: Ragged) -> Tensor:
        condition = self._condition(text)
        return self.model.decoder(self._states(image), condition).logits.unsqueeze(1)  # [B, 1, H, W]

    def _states(self, image: Tensor) -> list[Tensor]:
        """What the blocks of the vision tower that the decoder reads put out: [B, 1 + N, D] each."""
        tower = self.model.clip.vision_model
        x = tower.pre_layrnorm(tower.embeddings(image, interpolate_pos_encoding=True))
        states = []
        for block in tower.encoder.layers[: max(self.model.extract_layers) + 1]:
            out = block(x, attention_mask=None)
            x = out[0] if isinstance(out, tuple) else out
            states.append(x)
        return [states[i] for i in self.model.extract_layers]

    def _condition(self, text: Ragged) -> Tensor:
        """The projected state of the last real token, which ends the text: [B, D]."""
        ids, mask = text
        places = torch.arange(mask.shape[1], device=mask.device)
        attended = mask | (places == 0)  # an empty text still has a row
        out = self.model.clip.text_model(input_ids=ids, attention_mask=attended.long()).last_hidden_state
        last = (attended * places).argmax(1)
        return self.model.clip.text_projection(out.gather(1, last[:, None, None].expand(-1, 1, out.shape[-1]))[:, 0])
