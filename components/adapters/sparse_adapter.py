"""SparseAdapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.registry import register
from components.adapters._examples import LAYERS, WIDTH, on_llama, on_vit
from components.adapters._wrapped import WrappingPart

if TYPE_CHECKING:
    from assembler.adapters.host import Host
    from assembler.adapters.prepare import Trial

HOULSBY = {"type": "adapter.houlsby", "size": 64, "norms": False, "init": "bert"}


@register
class SparseAdapter(WrappingPart):
    """Another adapter with W * m for each of its matrices, m fixed before training (arXiv 2210.04284).

    m keeps the share `density` of the entries of all matrices together, those with the largest score: random, |W|,
    |W dL/dW| (`snip`), W H dL/dW with the Hessian H (`grasp`), or `synflow`, the share in 1' |U| |D| 1. `snip` and
    `grasp` are found on data by `assembler adapters prepare`, and say nothing where one of two matrices starts at zero.
    Biases and norms are not masked. Large-Sparse is a wider adapter of a lower density: k * size and 1 / k.
    Parameters: those of the adapter inside, of which round(density * entries of its matrices) and the rest are live.
    """

    type = "adapter.sparse_adapter"
    identity: ClassVar[bool] = False

    adapter: dict[str, Any] = Field(HOULSBY, validate_default=False, description="`type` and options of the one inside")
    density: float = Field(0.2, gt=0, le=1, description="share of the entries that is kept")
    score: Literal["random", "magnitude", "snip", "grasp", "synflow"] = Field("snip", description="what is kept")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        houlsby = {**HOULSBY, "size": 4}
        lora = {"type": "adapter.lora", "rank": 2, "sites": "layers.*.attn.o"}
        return [
            on_llama(cls.type, LAYERS * 2 * (2 * WIDTH * 4 + 4 + WIDTH), adapter=houlsby, score="synflow"),
            on_vit(cls.type, 2 * 2 * 64 * 2, adapter=lora, density=0.5, score="magnitude", layers=[0, 1]),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"adapter": {**HOULSBY, "size": 4}, "density": 0.5, "score": "random"}

    def over(self, on: Host) -> None:
        import torch
        from torch.nn.utils.parametrize import register_parametrization

        from components.adapters._sparse_adapter import Mask, Masked, keep, synflow
        from components.adapters._wrapped import matrices

        masked = []
        for module, owner, name in matrices(on):
            weight = owner.get_parameter(name)
            register_parametrization(owner, name, mask := Mask(weight), unsafe=True)
            masked.append(Masked(weight, mask, module))  # type: ignore[arg-type]
        if on.parameter.is_meta or self.unprepared():
            return
        if self.score == "synflow":
            scores = synflow(masked)
        else:
            scores = [torch.rand_like(w) if self.score == "random" else w.detach().abs() for w, _, _ in masked]
        keep(masked, scores, self.density)

    def unprepared(self) -> str:
        return f"`score: {self.score}` is found on data" if self.score in ("snip", "grasp") else ""

    def prepare(self, trial: Trial) -> None:
        from components.adapters._sparse_adapter import Mask, Masked, by_gradient, keep

        if not self.unprepared():
            super().prepare(trial)
        lists = [m for m in trial.book.modules[trial.name].modules() if type(m).__name__ == "ParametrizationList"]
        masked = [Masked(m.original, m[0], m) for m in lists if isinstance(m[0], Mask)]  # type: ignore[index,arg-type]
        keep(masked, by_gradient(trial, masked, curvature=self.score == "grasp"), self.density)
