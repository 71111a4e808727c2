"""SHiRA's sparse change of a weight, the ways to choose its entries, and switching between merged ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from assembler.adapters.book import Book
from assembler.adapters.prepare import Trial
from assembler.adapters.tap import Insert, is_conv1d
from assembler.errors import AssemblerError
from components.adapters._lora import LowRank, Weight


class Masked(nn.Module):
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

    def change(self, weight: Tensor) -> Tensor:
        """S at its places, for W [out, in]: [n]."""
        raise NotImplementedError

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

    The adapters are taken off the host, whose own entries are kept, so that it comes back bit for bit. Entries that are
    whole rows and a diagonal are copied as such, which memory does many times faster than single entries.
    """

    @torch.no_grad()
    def __init__(self, book: Book, names: Sequence[str]) -> None:
        self.changes = {name: [Change(book, insert) for insert in book.inserts(name).values()] for name in names}
        self.now: tuple[str, ...] = ()
        for name in names:
            book.remove(name)

    @torch.no_grad()
    def to(self, *names: str) -> None:
        """Let the host compute with these adapters, added up; with none it is bare."""
        if not (len(names) == len(self.now) == 1 and self._alike(names[0], self.now[0])):
            for name in self.now:
                copied([(at, own) for change in self.changes[name] for at, own, _ in change.parts])
        for place, name in enumerate(names):
            if not place:
                copied([(at, merged) for change in self.changes[name] for at, _, merged in change.parts])
                continue
            for change in self.changes[name]:
                change.flat.index_add_(0, change.indices, change.values)
        self.now = names

    def _alike(self, one: str, two: str) -> bool:
        """Whether two adapters change the same entries, so that one overwrites all of the other."""
        mine, theirs = self.changes[one], self.changes[two]
        return [change.key for change in mine] == [change.key for change in theirs]


At = Tensor | tuple[Tensor, Tensor]
"""Where entries lie: a view of a weight, or a weight in runs [N, run] and the places among them."""


class Change:
    """What one insert of a SHiRA changes in the memory of a weight.

    Attributes:
        parts: where, the host's own values there, and the merged ones.
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
        self.parts: list[tuple[At, Tensor, Tensor]] = []
        if module.structure is None:
            rows = self.flat[: len(self.flat) // module.run * module.run].view(-1, module.run)
            places = self.indices[:: module.run] // module.run
            new = merged.view(-1)[self.indices].view(-1, module.run)
            self.parts.append(((rows, places), rows[places], new))
            return
        for own, new in zip(*(structured_views(x, *module.structure) for x in (weight, merged)), strict=True):
            self.parts.append((own, own.clone(), new.clone()))


def copied(pairs: Sequence[tuple[At, Tensor]]) -> None:
    """Write values to where they belong."""
    views = [(at, values) for at, values in pairs if isinstance(at, Tensor)]
    if views:
        torch._foreach_copy_([at for at, _ in views], [values for _, values in views])
    for at, values in pairs:
        if not isinstance(at, Tensor):
            at[0].index_put_((at[1],), values)  # twice as fast as index_copy_ on single entries
