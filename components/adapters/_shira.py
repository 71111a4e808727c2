"""SHiRA's sparse change of a weight, the ways to choose its entries, and switching between merged ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from assembler.adapters.book import Book
from assembler.adapters.prepare import Trial
from assembler.adapters.tap import Insert, is_conv1d
from assembler.errors import AssemblerError
from components.adapters._lora import LowRank, Weight


class Masked(nn.Module, ABC):
    """W + s S, where S [out, in] is zero but at the flat places `indices` [n]; a subclass says what it is there.

    Attributes:
        limits: how many entries W has.
        structure: number and step of the rows, where the entries are rows and the diagonal.
        run: how many neighbouring entries stand together, from a multiple of it on.
        probe: while the entries are chosen, a dense change whose gradient is that of W.
    """

    indices: Tensor

    def __init__(
        self,
        indices: Tensor,
        shape: tuple[int, int],
        scale: float,
        structure: tuple[int, int] | None = None,
        run: int = 1,
    ) -> None:
        super().__init__()
        self.structure, self.run = structure, run
        self.register_buffer("indices", indices)
        self.shape, self.scale = shape, scale
        self.limits = {"indices": shape[0] * shape[1]}
        self.probe: Tensor | None = None

    @abstractmethod
    def change(self, weight: Tensor) -> Tensor:
        """S at its places, for W [out, in]: [n]."""

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.probe is not None:
            return weight + self.probe, bias
        turned = weight.T.is_contiguous() and not weight.is_contiguous()  # kept so, for the same bits come out
        places = (
            self.indices % self.shape[1] * self.shape[0] + self.indices // self.shape[1] if turned else self.indices
        )
        own = weight.T if turned else weight
        flat = own.reshape(-1)  # [out * in]
        changed = flat.scatter(0, places, flat[places] + self.scale * self.change(weight)).view(own.shape)
        return changed.T if turned else changed, bias

    fold = forward


class Sparse(Masked):
    """Learned `values` [n], from zero."""

    def __init__(self, indices: Tensor, *options: Any) -> None:
        super().__init__(indices, *options)
        self.values = nn.Parameter(torch.zeros(len(indices)))

    def change(self, weight: Tensor) -> Tensor:
        return self.values


class SparseDora(Masked):
    """What DoRA would make of W there: (m / |W + B A| - 1) W + m / |W + B A| B A, from zero, with the norm of each row.

    A [r, in], B [out, r] and m [out] learn; the norm takes no gradient.
    """

    def __init__(self, indices: Tensor, weight: Tensor, rank: int, *options: Any) -> None:
        outputs, inputs = weight.shape
        super().__init__(indices, (outputs, inputs), *options)
        self.low = LowRank(inputs, outputs, rank, 1.0)
        self.magnitude = nn.Parameter(torch.linalg.norm(weight.detach(), dim=1).clone())

    def change(self, weight: Tensor) -> Tensor:
        delta = self.low.delta()
        gain = self.magnitude / torch.linalg.norm((weight + delta).detach(), dim=1)  # [out]
        return ((gain - 1)[:, None] * weight + gain[:, None] * delta).reshape(-1)[self.indices]


def random_entries(shape: tuple[int, int], count: int, seed: int | None, run: int = 1) -> Tensor:
    """`count` places drawn under a seed, the same for every weight of this shape, in order.

    With a `run` they are drawn as runs of so many neighbours, as many as fit.
    """
    source = torch.Generator()
    if seed is not None:
        source.manual_seed(seed)
    drawn = torch.randperm(shape[0] * shape[1] // run, generator=source, device="cpu")[: count // run].sort().values
    return drawn if run == 1 else (drawn[:, None] * run + torch.arange(run, device="cpu")).flatten()


def structure(shape: tuple[int, int], count: int) -> tuple[int, int]:
    """How many whole rows fit into `count` entries beside the diagonal, and the step from one to the next."""
    rows = (count - min(shape)) // shape[1]
    if rows < 1:
        raise AssemblerError(f"{count:,} entries hold no row beside the diagonal of {list(shape)}; raise `rank`")
    return rows, shape[0] // rows


def structured_entries(shape: tuple[int, int], count: int) -> Tensor:
    """Whole rows, evenly spaced, and the diagonal, at most `count` entries in all."""
    mask = torch.zeros(shape, dtype=torch.bool, device="cpu")
    for view in structured_views(mask, *structure(shape, count)):
        view.fill_(True)
    return mask.flatten().nonzero()[:, 0]


def structured_views(matrix: Tensor, rows: int, step: int) -> list[Tensor]:
    """The rows and the diagonal of a matrix, in its own memory."""
    return [matrix[::step][:rows], matrix.diagonal()]


def largest_entries(scores: Tensor, count: int) -> Tensor:
    """The places of the `count` largest scores, in order."""
    return scores.flatten().topk(count).indices.sort().values


def choose(trial: Trial, by_weight: bool) -> None:
    """Let every insert take the entries whose gradient on the trial's rows, or that times the weight, is largest."""
    modules = {insert.at: cast(Masked, insert.module) for insert in trial.inserts.values()}
    for module in modules.values():
        module.probe = torch.zeros(module.shape, device=module.indices.device, requires_grad=True)
    trial.backward()
    for site, module in modules.items():
        probe, module.probe = module.probe, None
        assert probe is not None
        if probe.grad is None or not probe.grad.any():
            raise AssemblerError(f"no gradient reaches {site}, so that no entry of it is better than another")
        scores = probe.grad * Weight(trial.on, site)()[0] if by_weight else probe.grad
        module.indices.copy_(largest_entries(scores.abs(), len(module.indices)))


class Switch:
    """Merged SHiRAs of one host by turns: a switch overwrites the entries that change, and nothing else.

    The adapters are taken off the host, whose own entries are kept, so that it comes back bit for bit. Whole rows and a
    diagonal are copied as such, a run as one item, and on the CPU each of torch's threads writes to weights of its own.
    What then bounds a switch is the time that memory takes for the lines in which the entries lie: an entry of a
    diagonal has a line of its own, and nearly a page.

    Attributes:
        places: of each adapter the first one with the same entries, whose values it overwrites all.
        now: the adapters that the host computes with.
    """

    @torch.no_grad()
    def __init__(self, book: Book, names: Sequence[str]) -> None:
        self.changes = {name: [Change(book, insert) for insert in book.inserts(name).values()] for name in names}
        first: dict[Any, str] = {}
        self.places = {name: first.setdefault(tuple(c.key for c in self.changes[name]), name) for name in names}
        self.now: tuple[str, ...] = ()
        for name in names:
            book.remove(name)
        on_cpu = all(change.flat.is_cpu for changes in self.changes.values() for change in changes)
        count = torch.get_num_threads() if on_cpu else 1
        self.threads = ThreadPoolExecutor(count, "switch")
        self.own, self.merged = (
            {name: shared([change.parts[which] for change in changes], count) for name, changes in self.changes.items()}
            for which in ("own", "merged")
        )

    @torch.no_grad()
    def to(self, *names: str) -> None:
        """Let the host compute with these adapters, added up; with none it is bare."""
        if not (len(names) == len(self.now) == 1 and self.places[names[0]] == self.places[self.now[0]]):
            for name in self.now:
                self._write(self.own[name])
        if names:
            self._write(self.merged[names[0]])
        for name in names[1:]:
            for change in self.changes[name]:
                change.flat.index_add_(0, change.indices, change.values)
        self.now = names

    def _write(self, shares: Sequence[Writes]) -> None:
        """All shares at once: the first in this thread, the others in threads of their own."""
        others = [self.threads.submit(share.run) for share in shares[1:]]
        shares[0].run()
        for other in others:
            other.result()


class Change:
    """What one insert of a SHiRA changes in the memory of a weight.

    Attributes:
        flat: the weight in one row [out * in].
        indices, values: the places of the entries in it, and what is added there.
        parts: what writes the host's `own` entries there, and the `merged` ones.
        key: equal for changes of the same entries.
    """

    def __init__(self, book: Book, insert: Insert) -> None:
        module, host = insert.module, book.root.get_submodule(insert.point.path)
        if not isinstance(module, Masked) or is_conv1d(host):
            raise AssemblerError(f"{type(module).__name__} at {insert.at} is no SHiRA on a linear; switch those alone")
        weight = host.weight.detach().chunk(insert.point.of, 0)[insert.point.index]  # type: ignore[operator]
        self.flat, self.indices = weight.view(-1), module.indices
        self.values = (module.scale * module.change(weight)).to(weight.dtype)
        self.key = (insert.point, module.structure or hash(module.indices.cpu().numpy().tobytes()))
        merged, _ = module(weight, None)
        self.parts = {"own": Writes.of(weight, weight, module), "merged": Writes.of(weight, merged, module)}


@dataclass
class Writes:
    """Values, and where they go.

    Attributes:
        views, values: views of weights, and what is copied to them.
        entries: a weight in runs [N], the places of some of them [n], and what these become [n].
    """

    views: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    entries: list[tuple[Any, Any, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, weight: Tensor, source: Tensor, module: Masked) -> Writes:
        """The entries of a module are to be in the weight as they are now in the source."""
        if module.structure is None:
            places: Any = module.indices[:: module.run] // module.run
            places = places.numpy() if places.is_cpu else places
            return cls(entries=[(runs(weight, module.run), places, runs(source, module.run)[places])])
        pairs = zip(*(pieces(x, *module.structure) for x in (weight, source)), strict=True)
        views, values = zip(*pairs, strict=True)
        return cls(list(views), [x.clone() for x in values])

    def run(self) -> None:
        if self.views:
            torch._foreach_copy_(self.views, self.values)
        for at, places, values in self.entries:
            at[places] = values


def shared(writes: Sequence[Writes], count: int) -> list[Writes]:
    """At most `count` shares, each of every `count`-th."""
    found = [Writes() for _ in range(min(count, len(writes)))]
    for index, one in enumerate(writes):
        share = found[index % len(found)]
        share.views += one.views
        share.values += one.values
        share.entries += one.entries
    return found


def pieces(matrix: Tensor, rows: int, step: int) -> list[Tensor]:
    """The rows and the diagonal, in views so small that torch does not open threads of its own to copy one."""
    most = max(1, (2**15 - 1) // matrix.shape[1])
    some, diagonal = structured_views(matrix, rows, step)
    return [*some.split(most), *diagonal.split(2**15 - 1)]


def runs(matrix: Tensor, run: int) -> Any:
    """A matrix in runs of neighbours, in its own memory: [N, run], on the CPU [N] items of numpy, which copies each as
    one where torch goes entry by entry."""
    rows = matrix.view(-1)[: matrix.numel() // run * run].view(-1, run)
    return rows.view(torch.uint8).numpy().view(f"V{run * rows.element_size()}")[:, 0] if rows.is_cpu else rows
