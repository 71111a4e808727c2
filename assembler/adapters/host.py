"""A host as an adapter sees it: layers, widths, heads, and the ways to change what the host computes.

A part's `inject(on)` is given a `Host` and puts its modules in by canonical names; nothing is changed before it ends.
A name is a site (`layers.0.attn.q`, `embed`, ...) followed by `.in` or `.out`, the value that goes into or comes out of
it. In a layer the following always mean the same, whatever the host's order of norms:

    in, out             the residual stream before and after the layer
    attn.in, attn.out   what attention reads, and what it adds to the stream
    mid                 the stream between attention and the MLP (to be written only in post-norm hosts)
    mlp.in, mlp.out     what the MLP reads, and what it adds to the stream
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from assembler.adapters.pieces import Borrowed, Heads, Own, Wire, bare, is_linear, selected, width_of
from assembler.adapters.tap import Insert, Point, foldable
from assembler.anatomy import Anatomy, Slice, anatomy_of, expanded, places_of
from assembler.errors import AssemblerError
from assembler.suggest import nearest
from assembler.values import Value

if TYPE_CHECKING:
    from assembler.part import AdapterPart

LAYER = re.compile(r"((?:.*\.)?layers)\.(\d+)")
CHAINS = {
    "attn.in": ("attn",),
    "attn.out": ("norm1_out", "attn"),
    "cross.in": ("cross",),
    "cross.out": ("cross",),
    "mlp.in": ("mlp", "mlp.up"),
    "mlp.out": ("norm2_out", "mlp", "mlp.down"),
}
"""Flow points of a layer that an anatomy need not spell out: the sites whose input or output they are, best first."""


class Host:
    """See the module's docstring.

    Attributes:
        root: the module that the anatomy describes.
        name: the adapter's name.
        anatomy: the table that fits.
        inputs: the values on the wires into the adapter, by port; their widths are known, their tensors come later.
        mixed: for a mixer, the first insert at each point that its options change.
        options: for a mixer, how many there are.
    """

    def __init__(
        self,
        root: nn.Module,
        name: str,
        part: AdapterPart | None = None,
        inputs: Mapping[str, Value] | None = None,
        mixed: Sequence[Insert] = (),
        options: int = 0,
    ) -> None:
        self.root, self.name, self.part, self.inputs = root, name, part, inputs or {}
        self.mixed, self.options = mixed, options
        self.anatomy: Anatomy = anatomy_of(root)[0]
        self.places = places_of(root)
        self.inserts: dict[str, Insert] = {}
        self.shared: dict[str, nn.Module] = {}
        self.wires: dict[str, Wire] = {}

    # What the host is

    def layers(self) -> list[Layer]:
        """The layers that the part selects, stack after stack."""
        stacks: dict[str, list[int]] = {}
        for site in self.places:
            if found := LAYER.fullmatch(site):
                stacks.setdefault(found[1], []).append(int(found[2]))
        if not stacks:
            raise AssemblerError(f"{type(self.root).__name__} ({self.anatomy.name}) has no layers to adapt")
        return [
            Layer(self, f"{stack}.{i}", i, len(indices))
            for stack, indices in stacks.items()
            for i in selected(sorted(indices), self.part)
        ]

    def matching(self, pattern: str) -> list[str]:
        """The sites that a pattern names, in the layers that the part selects; `layers.*` are those of every stack.

        Raises:
            AssemblerError: some of the pattern names no site; the nearest are listed.
        """
        layered = any(map(LAYER.match, self.places))
        chosen = {layer.site for layer in self.layers()} if layered else set()
        found: dict[str, None] = {}
        for plain in expanded(pattern):
            shape = re.compile(re.escape(plain).replace(r"\*", r"\d+"))
            named = [site for site in self.places if shape.fullmatch(site) or shape.fullmatch(bare(site))]
            if not named:
                raise AssemblerError(self.unknown(plain))
            for site in named:
                layer = LAYER.match(site)
                if layer is None or f"{layer[1]}.{layer[2]}" in chosen:
                    found[site] = None
        if not found:
            raise AssemblerError(f"{pattern} names no site in the layers that `layers` and `every` select")
        return list(found)

    def norms(self) -> list[str]:
        """The host's norms in the layers that the part selects, and those outside of layers."""
        chosen = {layer.site for layer in self.layers()}
        found = {}
        for site, place in self.places.items():
            layer, last = LAYER.match(site), site.rpartition(".")[2]
            if (last.startswith("norm") or last in ("final", "embed_norm")) and (not layer or layer[0] in chosen):
                found[place.path] = site
        return list(found.values())

    def biased(self) -> list[str]:
        """The sites of modules with a bias, in the layers that the part selects and outside of layers; each once."""
        chosen = {layer.site for layer in self.layers()}
        found: dict[str, str] = {}
        for site, place in self.places.items():
            layer = LAYER.match(site)
            module = self.module(site)
            here = (not layer or layer[0] in chosen) and place.whole
            if here and foldable(module) and getattr(module, "bias", None) is not None:
                found.setdefault(place.path, site)
        return list(found.values())

    def linears(self, pattern: str) -> list[str]:
        """The linears that a pattern names or that are inside of what it names; fused ones whole, each once.

        Raises:
            AssemblerError: the pattern names nothing, or something without a linear.
        """
        found: dict[Slice, str] = {}
        for named in self.matching(pattern):
            inside = [named] if is_linear(self.module(named)) else [s for s in self.places if s.startswith(f"{named}.")]
            linears = [s for s in inside if is_linear(self.module(s)) and (s == named or self.places[s].whole)]
            if not linears:
                raise AssemblerError(f"site {named} is a {type(self.module(named)).__name__}; name linears, as attn.q")
            for site in linears:
                found.setdefault(self.places[site], site)
        return list(found.values())

    def has(self, site: str) -> bool:
        """Whether the host has the site."""
        return site in self.places

    def place(self, site: str) -> Slice:
        """Where a site is.

        Raises:
            AssemblerError: the host has no such site.
        """
        if site == "":
            return Slice("")
        if site not in self.places:
            raise AssemblerError(self.unknown(site))
        return self.places[site]

    def unknown(self, site: str) -> str:
        """The sentence for a site that is not there."""
        near = nearest(site.replace("*", "0"), self.places).removeprefix("; ") or "it has none"
        return f"no site {site!r} in {type(self.root).__name__} ({self.anatomy.name}); {near}"

    def module(self, site: str) -> nn.Module:
        """The host's own module at a site."""
        return self.root.get_submodule(self.place(site).path)

    def point(self, name: str) -> Point:
        """The point that a name such as `layers.0.attn.out` means.

        Raises:
            AssemblerError: the host has no such point.
        """
        flow = self.anatomy.flow(name)
        if flow is not None:
            return Point(flow[0], flow[1])  # type: ignore[arg-type]
        site, _, side = name.rpartition(".")
        layer = LAYER.match(name)
        if layer and name == f"{layer[0]}.mid":
            return Point(self.place(f"{layer[0]}.norm2").path, "in")
        if side not in ("in", "out"):
            raise AssemblerError(f"{name!r} is no point; write a site and .in or .out, such as layers.0.attn.out")
        if layer and (rest := name[layer.end() + 1 :]) in CHAINS:
            sites = (f"{layer[0]}.{one}" for one in CHAINS[rest])
            site = next(filter(self.has, sites), site)
        place = self.place(site)
        if side == "in":  # the slices of a fused projection read one and the same
            return Point(place.path, "in")
        return Point(place.path, "out", place.index, place.of)

    def width(self, name: str) -> int:
        """The width of the value at a point: its last axis."""
        point = self.point(name)
        module, out = self.root.get_submodule(point.path), point.side == "out"
        found = width_of(module, out)
        if found is not None:
            return found // point.of
        layer = LAYER.match(name)
        for site in ("attn.q", "attn.qkv", "norm1"):
            if layer and self.has(f"{layer[0]}.{site}"):
                return width_of(self.module(f"{layer[0]}.{site}"), out=False) or 0
        for site in ("final", "embed"):
            if self.has(site) and (found := width_of(self.module(site), out=True)):
                return found
        raise AssemblerError(f"the width at {name} is not known; {type(module).__name__} has no weight")

    def read_width(self, insert: Insert) -> int:
        """The width of the first value that an insert reads."""
        read = insert.reads[0]
        if read == insert.point:
            return self.width(insert.at)
        module = self.root.get_submodule(read.path)
        found = width_of(module, read.side == "out")
        return self.width(insert.at) if found is None else found // read.of

    def shape(self, site: str) -> tuple[int, int]:
        """Inputs and outputs of the linear (embedding, convolution) at a site, or of the slice it is."""
        return self.width(f"{site}.in"), self.width(f"{site}.out")

    @property
    def parameter(self) -> Tensor:
        """Any of the host's weights: new ones are of its dtype, on its device."""
        return next(self.root.parameters())

    # What an adapter does to it

    def branch(self, module: nn.Module, at: str, reads: Sequence[str] = (), replace: bool = False) -> None:
        """Add `module(*reads)` to the value at the point `at`, or put it in its place.

        Args:
            module: called with the values at `reads`; returns a tensor of the shape of the value at `at`.
            at: the point that is changed.
            reads: points that come before it; by default the point itself, and `at` among them is the running value.
            replace: set the value instead of adding to it.
        """
        point = self.point(at)
        if at.endswith(".mid") and point.side == "in":
            raise AssemblerError(f"{at} cannot be written in {self.anatomy.name}: its norm reads a copy of the stream")
        points = tuple(map(self.point, reads)) or (point,)
        self._add(at, Insert("set" if replace else "add", point, module, points))

    def around(self, module: nn.Module, site: str) -> None:
        """Call `module(call, *args, **kwargs)` where the host calls the module at `site`; `call` is that module."""
        self._add(site, Insert("around", Point(self.place(site).path, "in"), module))

    def weight(self, module: nn.Module, site: str) -> None:
        """Let the layer at `site` compute with `module(weight, bias)`; weight is [out, in], in a slice its rows."""
        place = self.place(site)
        self._check_callable(site, place.path)
        self._add(site, Insert("weight", Point(place.path, "out", place.index, place.of), module))

    def attend(self, module: nn.Module, site: str) -> None:
        """Call `module(attend, q, k, v) -> [B, H, T, d]` in place of the attention of the module at `site`."""
        core = self.anatomy.flow(f"{site}.core")
        path = core[0] if core else self.place(site).path
        self._add(site, Insert("attend", Point(path, "in"), module))

    def own(self, site: str) -> nn.Module:
        """Let the adapter have its own, trainable copy of the module at `site`, which starts as the host's."""
        place = self.place(site)
        if not place.whole:
            raise AssemblerError(f"{site} is a slice of {place.path}; an own copy is of a whole module")
        twin = copy.deepcopy(self.module(site))
        twin.__dict__.pop("forward", None)
        self._add(site, Insert("around", Point(place.path, "in"), Own(twin)))
        return twin

    def mixer(self, module: nn.Module, like: Insert) -> None:
        """A fusion's or router's module at the point of `like`, reading what that reads."""
        self._add(like.at, Insert("add", like.point, module, like.reads))

    def share(self, key: str, module: nn.Module) -> nn.Module:
        """Keep a module that several inserts use with the adapter, once."""
        return self.shared.setdefault(key, module)

    def wire(self, port: str, default: Tensor | None = None) -> Wire:
        """What the node wired to `port` of the adapter sends; call it in a module's forward.

        With a `default` nothing need be wired: the value may be laid on the wire by hand, `book.wires(name)[port].lay`.

        Raises:
            AssemblerError: nothing is wired to the port.
        """
        if port not in self.inputs and default is None:
            raise AssemblerError(f"nothing is wired to `{port}`; add an edge, such as `eyes -> {self.name}.{port}`")
        return self.wires.setdefault(port, Wire(port, default))

    def _add(self, place: str, insert: Insert) -> None:
        key, number = place.replace(".", "_") or "host", 1
        while key in self.inserts:
            number += 1
            key = f"{place.replace('.', '_') or 'host'}_{number}"
        insert.at = place
        self.inserts[key] = insert

    def _check_callable(self, site: str, path: str) -> None:
        module = self.root.get_submodule(path)
        if width_of(module, out=True) is None or not foldable(module):
            raise AssemblerError(f"site {site} is a {type(module).__name__} ({path}); name a linear, such as attn.q")


@dataclass(frozen=True)
class Layer:
    """One layer of a host: the same methods, with names that start in the layer.

    Attributes:
        site: the layer's canonical name.
        index: its number in its stack.
        depth: the number of layers in the stack.
    """

    on: Host
    site: str
    index: int
    depth: int

    def name(self, name: str) -> str:
        """The full name of a site or point of this layer; the layer itself for an empty one."""
        return f"{self.site}.{name}" if name else self.site

    def has(self, site: str) -> bool:
        return self.on.has(self.name(site))

    def module(self, site: str) -> nn.Module:
        return self.on.module(self.name(site))

    def width(self, name: str = "out") -> int:
        return self.on.width(self.name(name))

    def shape(self, site: str) -> tuple[int, int]:
        return self.on.shape(self.name(site))

    def branch(self, module: nn.Module, at: str, reads: Sequence[str] = (), replace: bool = False) -> None:
        self.on.branch(module, self.name(at), [self.name(one) for one in reads], replace)

    def around(self, module: nn.Module, site: str = "") -> None:
        self.on.around(module, self.name(site))

    def weight(self, module: nn.Module, site: str) -> None:
        self.on.weight(module, self.name(site))

    def attend(self, module: nn.Module, site: str = "attn") -> None:
        self.on.attend(module, self.name(site))

    def own(self, site: str) -> nn.Module:
        return self.on.own(self.name(site))

    def borrow(self, site: str) -> Borrowed:
        """The host's own module at a site, to be called but not held."""
        place = self.on.place(self.name(site))
        return Borrowed(self.module(site), place.index, place.of)

    @property
    def post_norm(self) -> bool:
        """Whether this layer norms after it adds: then `norm1` and `norm2` are part of the stream."""
        return self.on.point(self.name("mid")).side == "out"

    def heads(self, site: str = "attn") -> Heads:
        """The heads of the attention at `site`."""
        place = self.on.anatomy.flow(self.name(f"{site}.core"))
        module = self.on.root.get_submodule(place[0]) if place else self.module(site)
        names = ("head_dim", "attention_head_size", "key_value_proj_dim")
        size = next((getattr(module, one) for one in names if hasattr(module, one)), None)
        if size is None:
            count = next((getattr(module, one) for one in ("num_heads", "n_heads") if hasattr(module, one)), None)
            if count is None:
                raise AssemblerError(f"the heads of {self.name(site)} ({type(module).__name__}) are not known")
            size = self.width(f"{site}.q.out") // count
        if not self.has(f"{site}.q"):
            return Heads(module.num_heads, module.num_heads, size)  # type: ignore[arg-type]
        return Heads(self.width(f"{site}.q.out") // size, self.width(f"{site}.k.out") // size, size)
