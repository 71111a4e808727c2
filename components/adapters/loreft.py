"""LoReFT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import BERT_WIDTH, VIT_LAYERS, VIT_WIDTH, on_bert, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class Loreft(AdapterPart):
    """h + R' (W h + b - R h) on the stream after each layer, for the first and the last tokens (arXiv 2404.03592).

    R [r, d] has rows of length one at right angles, W is [r, d], b [r]. `prefix` and `suffix` say how many real tokens
    at either end of a row are changed, each end by an R, W and b of its own or, `tied`, by one for both. W is drawn as
    a linear's, or with `init: identity` as R, with b zero. In a host that decodes word by word the last tokens of a row
    are not there yet, so that it is for encoders.
    Parameters: layers * ends * (2 * r * d + r), with two ends, or one where `tied` or where the other has no tokens.
    """

    type = "adapter.loreft"
    identity: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...] | None] = ("bert", "vit", "timm", "whisper", "ast")

    rank: int = Field(1, ge=1, le=256, description="r")
    prefix: int = Field(3, ge=0, le=100_000, description="tokens at the beginning")
    suffix: int = Field(3, ge=0, le=100_000, description="tokens at the end")
    tied: bool = Field(False, description="one R, W and b for both ends")
    init: Literal["default", "identity"] = Field("default", description="how W starts")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            on_bert(cls.type, 2 * 2 * (2 * 2 * BERT_WIDTH + 2), rank=2, prefix=1, suffix=2),
            on_vit(cls.type, VIT_LAYERS * (2 * 3 * VIT_WIDTH + 3), rank=3, tied=True, init="identity"),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"rank": 2, "tied": True}

    @model_validator(mode="after")
    def _somewhere(self) -> Loreft:
        if not self.prefix and not self.suffix:
            raise ValueError("`prefix` and `suffix` are 0, so that no token is changed")
        return self

    def inject(self, on: Host) -> None:
        from assembler.adapters.host import Borrowed
        from components.adapters._loreft import Ends
        from components.adapters._masks import keep_mask

        mask = Borrowed(keep_mask(on))
        for layer in on.layers():
            width, same = layer.width("out"), self.init == "identity"
            layer.branch(Ends(width, self.rank, self.prefix, self.suffix, self.tied, same, mask), "out")
