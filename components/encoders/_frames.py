"""The torch side of what image encoders share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from assembler.ragged import Ragged, paired, parted


class PictureTower(nn.Module, ABC):
    """Reads pictures one by one: those of an image [B, C, H, W] or the frames of a video [B, F, C, H, W]."""

    @abstractmethod
    def encode(self, image: Tensor) -> Tensor:
        """[N, C, H, W] -> tokens [N, T, D] or embeddings [N, D]."""

    def forward(self, pictures: Tensor | Ragged) -> Tensor | Ragged:
        pixels, mask = parted(pictures)
        if pixels.dim() == 4:
            return self.encode(pixels)
        if mask is not None:
            pixels = torch.where(mask.view(*mask.shape, 1, 1, 1), pixels, 0)
        out = self.encode(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])  # [B, F, T, D] or [B, F, D]
        if out.dim() == 3:
            return paired(out, mask)
        if mask is not None:
            mask = mask.unsqueeze(-1).expand(-1, -1, out.shape[2]).flatten(1)  # [B, F * T]
        return paired(out.flatten(1, 2), mask)  # [B, F * T, D]
