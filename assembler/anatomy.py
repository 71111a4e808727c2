"""Sites: canonical names for the places inside a host, so that an adapter never needs to know the model.

An `Anatomy` is a table from canonical site names (`embed`, `layers.{i}.attn.q`, `final`, ...) to dotted module paths.
The tables live with the components; this module finds the one that fits a host and resolves patterns over it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from rapidfuzz import process

from assembler.errors import AssemblerError

if TYPE_CHECKING:
    from torch import nn

INDEX = "{i}"
BRACES = re.compile(r"\{([^{}]*)\}")
NUMBER = re.compile(r"(?<=layers\.)\d+")
RANGE = re.compile(r"\[(\d+)-(\d+)\]")
MOST = 1000
"""The longest pattern, and the most patterns that one may stand for."""
_anatomies: dict[str, Anatomy] = {}


@dataclass(frozen=True)
class Slice:
    """Part `index` of `of` equal parts of the output of the module at `path`; by default the whole module."""

    path: str
    index: int = 0
    of: int = 1

    @property
    def whole(self) -> bool:
        """Whether the place is the module itself and not a slice of a fused projection."""
        return self.of == 1

    def under(self, prefix: str, index: str = INDEX) -> Slice:
        """The same place with its path moved below `prefix` and `{i}` set to `index`."""
        return Slice(joined(prefix, self.path.replace(INDEX, index)), self.index, self.of)


Place = str | Slice | tuple[str | Slice, ...]


@dataclass(frozen=True)
class Anatomy:
    """Where the canonical sites of one family of hosts are.

    Attributes:
        name: unique name of the table.
        matches: class names of the hosts it describes (bare, or with their module as `package.module.Class`;
            subclasses match too), or a predicate on the module.
        sites: canonical site, at most one `{i}` -> module path, a `Slice` of a fused projection, or a tuple of
            candidates of which the first that a host has counts. A site that a host lacks is left out for that host,
            and so is one that is an `nn.Identity` there.
        points: where the values are that adapters read and change, for those that do not follow from the sites:
            `layers.{i}.attn.out` and the like -> module path and `in` or `out`, and `layers.{i}.attn.core` -> the
            module that calls the attention function. See `assembler.adapters.host`.
    """

    name: str
    matches: Callable[[nn.Module], bool] | tuple[str, ...]
    sites: Mapping[str, Place]
    points: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def fits(self, module: nn.Module) -> bool:
        """Whether this table describes `module`."""
        if callable(self.matches):
            return self.matches(module)
        return any(name in self.matches for name in class_names(module))

    def flow(self, name: str) -> tuple[str, str] | None:
        """The module path and side that the table gives for a point such as `layers.0.attn.out`, or None."""
        index = NUMBER.search(name)
        row = self.points.get(NUMBER.sub(INDEX, name, count=1))
        return None if row is None else (row[0].replace(INDEX, index[0] if index else INDEX), row[1])


def joined(prefix: str, path: str) -> str:
    """`prefix.path`, where either may be empty."""
    return ".".join(filter(None, (prefix, path)))


def class_names(module: nn.Module) -> Iterator[str]:
    """Names of the module's class and of its bases, bare and with their modules, the most derived first."""
    for cls in type(module).__mro__:
        yield cls.__name__
        yield f"{cls.__module__}.{cls.__qualname__}"


def register_anatomy(anatomy: Anatomy) -> Anatomy:
    """Make a table known.

    Raises:
        AssemblerError: another table has the name, or a site has more than one `{i}`.
    """
    known = _anatomies.get(anatomy.name)
    if known is not None and known != anatomy:
        raise AssemblerError(f"anatomy {anatomy.name!r} is already registered with other sites; pick another name")
    deep = [site for site in anatomy.sites if site.count(INDEX) > 1]
    if deep:
        raise AssemblerError(f"anatomy {anatomy.name!r}: {deep[0]} has more than one {INDEX}; a site takes at most one")
    _anatomies[anatomy.name] = anatomy
    return anatomy


PLACE = re.compile(r"([\w.{}]+?)(?:\[(\d+)/(\d+)\])?(?::(in|out))?")
OWN = "_anatomy"


def described(name: str, rows: Mapping[str, str]) -> Anatomy:
    """The anatomy that a spec writes: canonical site -> module path, or `path[0/3]`, a slice of a fused projection.

    A row whose place ends with `:in` or `:out` is a point instead, such as `layers.{i}.attn.out: blocks.{i}.drop:out`.

    Raises:
        AssemblerError: a row is malformed.
    """
    sites: dict[str, Place] = {}
    points: dict[str, tuple[str, str]] = {}
    for site, text in rows.items():
        found = PLACE.fullmatch(text)
        if found is None or site.count(INDEX) > 1 or int(found[2] or 0) >= int(found[3] or 1):
            raise AssemblerError(f"anatomy: {site}: {text[:80]!r} is no place; write a module path, or path[0/3]")
        if found[4]:
            points[site] = (found[1], found[4])
        else:
            sites[site] = Slice(found[1], int(found[2] or 0), int(found[3] or 1))
    return Anatomy(name, lambda module: True, sites, points)


def describe(module: nn.Module, anatomy: Anatomy) -> None:
    """Let `anatomy` be that of this very module, whatever tables fit it.

    Raises:
        AssemblerError: one of its rows names no module.
    """
    module.__dict__[OWN] = anatomy
    places = places_of(module)
    for site in anatomy.sites:
        pattern = re.compile(re.escape(site).replace(re.escape(INDEX), r"\d+"))
        if not any(map(pattern.fullmatch, places)):
            del module.__dict__[OWN]
            raise AssemblerError(f"anatomy: {site}: {anatomy.sites[site]} is no module of {type(module).__name__}")


def anatomy_of(module: nn.Module) -> tuple[Anatomy, str]:
    """The table that fits the module or, nearest first, something inside it, and the dotted prefix of that host.

    Raises:
        AssemblerError: no table fits, or several hosts lie equally near.
    """
    if OWN in module.__dict__:
        return module.__dict__[OWN], ""
    level = [("", module)]
    while level:
        found = [(anatomy, prefix) for prefix, m in level for anatomy in _fitting(m)]
        if len(found) == 1:
            return found[0]
        if found:
            hosts = ", ".join(f"{prefix or 'the module itself'} ({a.name})" for a, prefix in found)
            raise AssemblerError(f"{type(module).__name__} holds several hosts: {hosts}; pass one of them")
        level = [(joined(prefix, name), child) for prefix, m in level for name, child in m.named_children()]
    raise AssemblerError(
        f"no anatomy fits {type(module).__name__}; describe it with `anatomy:` on its node, or register_anatomy "
        f"(known: {', '.join(sorted(_anatomies)) or 'none'})"
    )


def _fitting(module: nn.Module) -> list[Anatomy]:
    return [anatomy for anatomy in _anatomies.values() if anatomy.fits(module)]


def places_of(module: nn.Module) -> dict[str, Slice]:
    """Every site that this host has, with its place relative to `module`; fused projections give slices."""
    anatomy, prefix = anatomy_of(module)
    present = {
        path for path, m in module.named_modules(remove_duplicate=False) if path and type(m).__name__ != "Identity"
    }
    places: dict[str, Slice] = {}
    for site, place in anatomy.sites.items():
        for candidate in place if isinstance(place, tuple) else (place,):
            found = _concrete(site, candidate if isinstance(candidate, Slice) else Slice(candidate), prefix, present)
            places.update({name: where for name, where in found.items() if name not in places})
    return places


def _concrete(site: str, place: Slice, prefix: str, present: set[str]) -> dict[str, Slice]:
    """The sites that one row stands for: one per index whose module exists."""
    pattern = re.escape(joined(prefix, place.path)).replace(re.escape(INDEX), r"(\d+)")
    if INDEX not in site:
        return {site: place.under(prefix)} if joined(prefix, place.path) in present else {}
    indices = sorted((found[1] for path in present if (found := re.fullmatch(pattern, path))), key=int)
    return {site.replace(INDEX, i): place.under(prefix, i) for i in indices}


def sites_of(module: nn.Module) -> dict[str, str]:
    """Every site that this host has -> the path, relative to `module`, of the module it is (a slice: is part of)."""
    return {site: place.path for site, place in places_of(module).items()}


def resolve(module: nn.Module, pattern: str) -> list[tuple[str, str]]:
    """Sites that a pattern names, with their module paths; see `resolve_places`."""
    return [(site, place.path) for site, place in resolve_places(module, pattern)]


def resolve_places(module: nn.Module, pattern: str) -> list[tuple[str, Slice]]:
    """Sites that a pattern names, with their places, in the order of the pattern and then of the host's layers.

    In a pattern `*` stands for any one index, `[3-7]` for the indices 3 to 7, `{q,v}` for either word. Each
    alternative and each index must be there: what is asked for is never left out in silence.

    Raises:
        AssemblerError: the pattern is malformed, or some of it names no site; the nearest sites are listed.
    """
    places = places_of(module)
    found: dict[str, Slice] = {}
    for plain in expanded(pattern):
        shape = re.compile(re.escape(plain).replace(r"\*", r"\d+"))
        named = {site: place for site, place in places.items() if shape.fullmatch(site)}
        if not named:
            raise AssemblerError(_no_site(module, pattern, plain, list(places)))
        found.update(named)
    return list(found.items())


def expanded(pattern: str) -> list[str]:
    """The patterns with neither braces nor ranges that a pattern stands for.

    Raises:
        AssemblerError: the pattern is malformed, or stands for more than MOST patterns.
    """
    return list(chain.from_iterable(_numbered(one) for one in alternatives(pattern)))


def alternatives(pattern: str) -> list[str]:
    """The brace-free patterns that a pattern stands for.

    >>> alternatives("layers.*.attn.{q,v}")
    ['layers.*.attn.q', 'layers.*.attn.v']
    """
    count = math.prod(len(words.split(",")) for words in BRACES.findall(pattern))
    if count > MOST or len(pattern) > MOST:
        raise AssemblerError(f"site pattern {pattern[:80]!r} stands for too many patterns; write at most {MOST}")
    choice = BRACES.search(pattern)
    if choice is None:
        if not pattern or set(pattern) & set("{}, "):
            raise AssemblerError(f"site pattern {pattern!r} is malformed; write it like layers.*.attn.{{q,v}}")
        return [pattern]
    before, after = pattern[: choice.start()], pattern[choice.end() :]
    return [one for word in choice[1].split(",") for one in alternatives(before + word.strip() + after)]


def _numbered(pattern: str) -> Iterator[str]:
    """The patterns with the first range, then the others, replaced by each of its indices."""
    bounds = RANGE.search(pattern)
    if bounds is None:
        if set(pattern) & set("[]"):
            raise AssemblerError(f"site pattern {pattern!r} has a malformed range; write it like layers.[3-7]")
        yield pattern
        return
    first, last = int(bounds[1]), int(bounds[2])
    if first > last:
        raise AssemblerError(f"site pattern {pattern!r}: the range [{first}-{last}] is empty; put the lower end first")
    if last - first >= MOST:
        raise AssemblerError(f"site pattern {pattern!r}: the range [{first}-{last}] is too long; use at most {MOST}")
    for i in range(first, last + 1):
        yield from _numbered(pattern[: bounds.start()] + str(i) + pattern[bounds.end() :])


def _no_site(module: nn.Module, pattern: str, plain: str, sites: list[str]) -> str:
    """The sentence for a pattern that names nothing, with the nearest sites that exist."""
    near = [name for name, _, _ in process.extract(plain.replace("*", "0")[:100], sites, limit=4)]
    part = "" if plain == pattern else f" of {pattern!r}"
    anatomy, _ = anatomy_of(module)
    return f"no site {plain!r}{part} in {type(module).__name__} ({anatomy.name}); nearest: {', '.join(near) or 'none'}"
