"""LLaMA-Adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import HEADS, LAYERS, VIT_WIDTH, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from torch import Tensor

    from assembler.adapters.host import Host
    from assembler.adapters.tap import Insert


@register
class LlamaAdapter(AdapterPart):
    """tanh(g) * softmax(q k_p^T / sqrt(d_h)) v_p + the layer's own attention, with k_p = W_k P and v_p = W_v P.

    arXiv 2303.16199. P [length, d] are learned prompts of each of the `top` last layers, drawn from N(0, 1); W_k and
    W_v are the host's own, frozen, and P takes no positions. The gates g start at zero, so that the start is the
    identity and the first step moves gates alone. The paper's first version has no tanh (`squash: false`) and PEFT's
    one gate a layer (`gates: layer`, no tanh). A wire into `image` adds a projection of that node's mean token to every
    prompt.
    Parameters: layers * (length * d + heads), with `gates: layer` + 1 for heads; with an image (d_s + 1) * d more.
    """

    type = "adapter.llama_adapter"
    trait = "whole"
    peft_type = "ADAPTION_PROMPT"
    accepts: ClassVar[dict[str, tuple[str, ...]]] = {"image": ("tokens", "embedding")}
    optional: ClassVar[tuple[str, ...]] = ("image",)

    length: int = Field(10, ge=1, le=10_000, description="number of prompts")
    top: int = Field(30, ge=1, le=1000, description="how many of the last layers, where `layers` names none")
    gates: Literal["head", "layer"] = Field("head", description="a gate for each head or one a layer")
    squash: bool = Field(True, description="tanh on the gates")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        seeing, _ = on_llama(cls.type, None, length=3)
        vit, _ = on_vit("", None)
        nodes, edges = {**seeing["nodes"], **vit["nodes"]}, [*vit["edges"], "eyes -> part.image"]
        count = LAYERS * (3 * WIDTH + HEADS)
        return [
            on_llama(cls.type, count, length=3),
            on_vit(cls.type, 2 * (3 * VIT_WIDTH + 1), length=3, top=2, gates="layer", squash=False),
            ({**seeing, "nodes": nodes, "edges": edges}, count + (VIT_WIDTH + 1) * WIDTH),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"length": 3}

    def inject(self, on: Host) -> None:
        from torch import nn

        from assembler.adapters.host import Borrowed
        from components.adapters._llama_adapter import Prompts, Seen

        seen = None
        for layer in on.layers():
            if self.layers is None and layer.index < layer.depth - self.top:
                continue
            heads, width = layer.heads(), layer.width("attn.in")
            if "image" in on.inputs and seen is None:
                wire = on.wire("image")
                project = on.share("project", nn.Linear(on.inputs["image"].size("width"), width))
                seen = Seen(wire, Borrowed(project))
            projections = layer.borrow("attn.k"), layer.borrow("attn.v")
            count = heads.query if self.gates == "head" else 1
            layer.attend(Prompts(heads, width, self.length, count, self.squash, projections, seen))

    def peft_config(self, inserts: Mapping[str, Insert]) -> dict[str, Any] | None:
        from components.adapters._peft import adaption_config

        plain = self.gates == "layer" and not self.squash and self.layers is None
        return adaption_config(self.length, inserts) if plain else None

    def to_peft(self, inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from components.adapters._peft import adaption_names

        names = adaption_names(inserts)
        return {names[key]: x.unsqueeze(0) if key.endswith(".prompts") else x for key, x in tensors.items()}

    def from_peft(self, inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from components.adapters._peft import adaption_names, ours

        return ours(adaption_names(inserts), tensors, inserts)

    @classmethod
    def peft_options(cls, config: Mapping[str, Any], keys: Sequence[str], on: Host) -> dict[str, Any]:
        options = {"length": config.get("adapter_len"), "top": config.get("adapter_layers")}
        return {**options, "gates": "layer", "squash": False}
