"""The mixture of task adapters of ALTER."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from assembler.part import NumberedPart
from assembler.registry import register
from components.adapters._examples import LAYERS, VIT_WIDTH, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class MixtureOfTaskAdapters(NumberedPart):
    """FFN(x) + sum_k g_k U_k f(D_k x) beside every MLP, x [B, T, d], g = softmax(W_g x + b_g) over N tasks' adapters.

    D_k [m, d] is Kaiming-uniform, U_k [d, m] and the biases are zero, so that the start is the identity (arXiv
    2309.11042). Two stages: first `task: k` has every row take adapter k alone, on that task's data, so that the
    adapters specialise; then without `task` the gate mixes them on all tasks' data. Rows of several tasks in a batch
    are told apart by the column `rows: {ids: COLUMN}`, or by numbers laid on the wire by hand,
    `book.wires(name)["ids"].lay(numbers)`; -1 is the gate's choice. With `top_k` only the largest gates count,
    renormalised.
    Parameters: layers * (N * (2 * d * m + m + d) + N * d + N).
    """

    type = "adapter.mixture_of_task_adapters"
    numbers: ClassVar[tuple[str, ...]] = ("ids",)
    families: ClassVar[tuple[str, ...] | None] = ("llama", "gpt2", "bert", "t5", "vit", "timm")

    tasks: int = Field(8, ge=1, le=1024, description="N, adapters")
    size: int = Field(64, ge=1, le=65_536, description="m, the inner width")
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field("gelu", description="f")
    task: int | None = Field(None, ge=0, le=1023, description="the adapter that every row takes; by default the gate's")
    top_k: int | None = Field(None, ge=1, le=1024, description="gates that count; by default all")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        def count(layers: int, width: int) -> int:
            return layers * (3 * (2 * width * 4 + 4 + width) + 3 * width + 3)

        return [
            on_llama(cls.type, count(LAYERS, WIDTH), tasks=3, size=4),
            on_vit(cls.type, count(2, VIT_WIDTH), tasks=3, size=4, top_k=2, every=2),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"tasks": 3, "size": 4}

    @model_validator(mode="after")
    def _within(self) -> MixtureOfTaskAdapters:
        for name, limit in (("task", self.tasks - 1), ("top_k", self.tasks)):
            value = getattr(self, name)
            if value is not None and value > limit:
                raise ValueError(f"`{name}` is {value}, and there are {self.tasks} `tasks`")
        return self

    def inject(self, on: Host) -> None:
        import torch

        from components.adapters._mixture_of_task_adapters import Mixture

        ids = on.wire("ids", torch.tensor([-1 if self.task is None else self.task]))
        for layer in on.layers():
            width = layer.width("mlp.in")
            module = Mixture(width, self.size, self.tasks, self.activation, self.top_k, ids)
            layer.branch(module, "mlp.out", ["mlp.in"])
