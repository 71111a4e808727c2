"""HyperFormer and HyperFormer++."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import LAYERS, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class Hyperformer(AdapterPart):
    """h + LN_{gamma, beta}(U gelu(D h)) on what attention and the MLP add, all weights emitted by a hypernetwork.

    The condition is I = LN(MLP([z_task; l_layer; p_position])), each of `embedding` t numbers, and linear heads on I
    emit D [m, d], U [d, m], their biases, gamma and beta (arXiv 2106.04489). With `shared` (HyperFormer++) one set of
    heads serves all layers and positions of a stack; without, each place has its own, on z_task alone. The heads are
    drawn from N(0, 0.01), so that the start is near the identity. Each row of the batch has a task: by a wire into
    `task` with its z [B, t], or by numbers laid on the wire `ids` (`book.wires(name)["ids"].lay(numbers)`), until then
    `task`. With `norms` the adapter has its own copies of the host's norms, as in the paper. With
    G = 2 * (t * d * m + d * m) + (t * m + m) + 3 * (t * d + d) and h = `inner`:
    Parameters: tasks * t + stacks * (G + layers * t + 2 * t + (3 * t * h + h) + (h * t + t) + 2 * t), or without
    `shared` tasks * t + layers * 2 * G; and with `norms` those of the norms.
    """

    type = "adapter.hyperformer"
    identity: ClassVar[bool] = False
    accepts: ClassVar[dict[str, tuple[str, ...]]] = {"task": ("embedding",)}
    optional: ClassVar[tuple[str, ...]] = ("task",)

    tasks: int = Field(8, ge=1, le=100_000, description="number of tasks")
    task: int = Field(0, ge=0, le=99_999, description="the task of rows that are told nothing")
    reduction: float = Field(32.0, ge=0.01, le=65_536, description="d / m")
    embedding: int = Field(64, ge=1, le=65_536, description="t, the width of the embeddings")
    inner: int = Field(128, ge=1, le=65_536, description="h, inside the MLP")
    shared: bool = Field(True, description="one set of heads a stack: HyperFormer++")
    norms: bool = Field(True, description="learn the layer norms too")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        t, m, h = 4, 8, 6
        heads = 2 * (t * WIDTH * m + WIDTH * m) + (t * m + m) + 3 * (t * WIDTH + WIDTH)
        plus = 3 * t + heads + LAYERS * t + 2 * t + (3 * t * h + h) + (h * t + t) + 2 * t + (2 * LAYERS + 1) * WIDTH
        vit = 2 * (t * 64 * 4 + 64 * 4) + (t * 4 + 4) + 3 * (t * 64 + 64)
        options: dict[str, Any] = {"tasks": 3, "embedding": t, "inner": h}
        return [
            on_llama(cls.type, plus, reduction=4, **options),
            on_vit(cls.type, 3 * t + 2 * vit, reduction=16, shared=False, norms=False, layers=[-1], **options),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"tasks": 1, "embedding": 4, "inner": 6, "reduction": 4}

    def inject(self, on: Host) -> None:
        import torch

        from assembler.adapters.host import Borrowed, Wire
        from components.adapters._hyper import Condition, Emitted, Emitter, Tasks, bottleneck_shapes

        tasks: Borrowed | Wire
        if "task" in on.inputs:
            tasks = on.wire("task")
        else:
            ids = on.wire("ids", torch.tensor([min(self.task, self.tasks - 1)]))
            tasks = Borrowed(on.share("tasks", Tasks(self.tasks, self.embedding, ids)))
        for layer in on.layers():
            for position, point in enumerate(("attn.out", "mlp.out")):
                width = layer.width(point)
                shapes = bottleneck_shapes(width, max(1, int(width // self.reduction)), norm=True)
                if not self.shared:
                    layer.branch(Emitted(tasks, Emitter(self.embedding, shapes, 0.01), None), point)
                    continue
                stack = layer.site.rpartition(".")[0].replace(".", "_")
                emitter = on.shared.get(f"heads_{stack}") or Emitter(self.embedding, shapes, 0.01)
                condition = on.shared.get(f"condition_{stack}") or Condition(self.embedding, self.inner, layer.depth, 2)
                emitter, condition = on.share(f"heads_{stack}", emitter), on.share(f"condition_{stack}", condition)
                place = (Borrowed(condition), layer.index, position)
                layer.branch(Emitted(tasks, Borrowed(emitter), place), point)
        for site in on.norms() if self.norms else ():
            on.own(site)
