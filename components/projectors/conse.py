"""A classifier's likeliest classes as words of the LLM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from assembler.errors import AssemblerError
from assembler.part import Part, WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from assembler.weights import cached, fetch, parse_source
from components.projectors._base import TALK, token_count

if TYPE_CHECKING:
    from torch import nn

    from assembler.graph import Graph

IMAGENET = (1000, 11_221, 11_821, 21_841, 21_842, 21_843)
"""Numbers of classes of ImageNet's lists, each of which timm knows the names of."""


@register
class Conse(Part):
    """Logits [B, T, C] or [B, C] of a classifier -> its `top` likeliest classes as words: tokens [B, T * top, D].

    Token k is S_c, c the k-th likeliest class and S [C, D] the mean of the LLM's own embeddings of the tokens of each
    class's name, as it stands inside a text. With `blend` they are one token sum_k p_k S_ck / sum_k p_k with p =
    softmax(logits), which is the paper's. S is worked out from the LLM's weights when the model is made; it learns
    where a stage names this node. `names` is a text with a name a line, in the order of the classes; ImageNet's are
    known by their number, and of each list of synonyms the first is taken. With `spell` a class is no mean but the
    last S tokens of "<name>,", as they are, and on each p_k t, where t [D] starts at zero and is all that learns. With
    `least` classes that are less likely are left out, so that what is none of them has no word.
    Source: ConSE (arXiv 1312.5650). Parameters: C * D; with `spell` D.
    """

    type = "projector.conse"
    accepts = {"in": ("tokens", "embedding", "features")}
    masks = "own"

    top: int = Field(5, ge=1, le=1000, description="likeliest classes that are told")
    blend: bool = Field(False, description="one token, their mean by probability, and not one a class")
    least: float = Field(0.0, ge=0, le=1, description="probability under which a class is not told")
    spell: int | None = Field(None, ge=1, le=1000, description="S, most tokens of a name; of longer ones the last")
    names: str | None = Field(None, description="file:, hf: or pypi: of a text with the classes' names, one a line")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        def spec(photo: dict[str, Any], **knobs: Any) -> dict[str, Any]:
            nodes = {
                "photo": {**photo, "size": [32, 32]},
                "eyes": {"type": "encoder.timm", "model": "test_efficientnet", "output": "logits"},
                "part": {"type": cls.type, **knobs},
                "talk": TALK,
            }
            return {"nodes": nodes, "edges": ["photo -> eyes", "eyes -> part", "part -> talk.photo"]}

        image, film = {"type": "input.image"}, {"type": "input.video", "frames": 3}
        whole = [spec(image), spec(film, top=2), spec(image, blend=True), spec(image, least=1e-3)]
        letters = [spec(image, spell=4), spec(film, top=2, spell=4)]
        return [*((tree, 1000 * 32) for tree in whole), *((tree, 32) for tree in letters)]

    @model_validator(mode="after")
    def _one_way(self) -> Conse:
        if self.blend and (self.spell or self.least):
            other = "`spell` would take apart" if self.spell else "`least` would leave out"
            raise ValueError(f"`blend` makes one token of all classes, which {other}; give one of the two")
        return self

    def weight_sources(self) -> dict[str, str]:
        return {"names": self.names} if self.names else {}

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        source = inputs["in"]
        tokens, classes = token_count(source), source["width"]
        if isinstance(classes, int):
            self._check(classes, base)
        each = 1 if self.blend else self.top * (self.spell or 1)
        count = tokens * each if isinstance(tokens, int) else None
        return value("tokens", ragged=source.ragged or bool(self.spell or self.least), tokens=count, width=want)

    def _check(self, classes: int, base: Path) -> None:
        """There is a name for each class.

        Raises:
            WireError: there is not.
        """
        if classes < self.top:
            raise WireError("in", f"{classes} classes are no {self.top}; lower `top`")
        if self.names is None:
            if classes not in IMAGENET:
                message = f"a value of width {classes} is no classifier of ImageNet's"
                raise WireError("in", f"{message}; give `names`, or the classifier's `output: logits`")
            return
        path = cached(parse_source(self.names), base)
        if path is not None and len(lines := _lines(path)) != classes:
            raise WireError("in", f"{self.names} has {len(lines)} names, and the wire {classes} classes")

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._conse import ClassWords, SpelledClasses

        classes, width = inputs["in"].size("width"), output.size("width")
        if self.spell:
            return SpelledClasses(classes, width, self.top, self.spell, self.least)
        return ClassWords(classes, width, self.top, self.blend, self.least)

    def bind(self, node: str, graph: Graph, modules: Mapping[str, nn.Module]) -> None:
        from components._words import embedded, inside_text, language_model, padded, spelled, spelled_out

        lm = language_model(node, graph)
        if next(modules[lm].parameters()).is_meta:
            return
        module: Any = modules[node]
        tokenizer = graph.parts[lm].load_tokenizer(graph.base).backend_tokenizer  # type: ignore[attr-defined]
        names = self._names(len(module.words), graph.base)
        if self.spell:
            module.speak(*spelled_out(modules[lm], spelled(tokenizer, names, self.spell)))
        else:
            module.speak(embedded(modules[lm], padded(inside_text(tokenizer, names))))

    def _names(self, classes: int, base: Path) -> list[str]:
        if self.names:
            return _lines(fetch(parse_source(self.names), base))
        from timm.data import ImageNetInfo, infer_imagenet_subset

        known = ImageNetInfo(infer_imagenet_subset({"num_classes": classes}) or "")
        return [known.index_to_description(index).split(", ")[0] for index in range(classes)]


def _lines(path: Path) -> list[str]:
    """The names in a text file.

    Raises:
        AssemblerError: it is no text, or a line of it is empty.
    """
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise AssemblerError(f"{path}: it is no text with a name a line ({error})") from error
    if not all(found):
        raise AssemblerError(f"{path}: line {found.index('') + 1} is empty; give each class a name")
    return found
