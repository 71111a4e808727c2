"""Words in an LLM's own space: the rows of its embedding table that spell them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from assembler.bundle.manifest import TextProcessor
from assembler.errors import AssemblerError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from assembler.graph import Graph


def language_model(node: str, graph: Graph) -> str:
    """The LLM whose words `node` speaks.

    Raises:
        AssemblerError: the graph has none, or several.
    """
    found = [name for name in graph.objectives if hasattr(graph.parts[name], "load_tokenizer")]
    if len(found) != 1:
        raise AssemblerError(f"nodes.{node}: it needs the words of one LLM, and this graph has {len(found)}")
    return found[0]


def text_processor(node: str, graph: Graph, why: str) -> tuple[str, TextProcessor]:
    """The node that `node` reads, and how that one's texts become tokens.

    Raises:
        AssemblerError: it reads no text; `why` ends the sentence.
    """
    (edge,) = graph.incoming[node]
    source = graph.parts[edge.source]
    processor = source.processor(source, graph.base)
    if not isinstance(processor, TextProcessor):
        raise AssemblerError(f"{node}: {edge.source} reads no text, {why}")
    return edge.source, processor


def inside_text(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text as it stands after another word."""
    before = tokenizer.encode("a", add_special_tokens=False).ids
    return [tokenizer.encode(f"a {text}", add_special_tokens=False).ids[len(before) :] for text in texts]


def padded(ids: Sequence[Sequence[int]]) -> Tensor:
    """Rows of ids as one tensor [W, S], with -1 after their ends."""
    import torch

    longest = max(map(len, ids))
    return torch.tensor([[*row, *[-1] * (longest - len(row))] for row in ids])


def spelled(tokenizer: Any, texts: Sequence[str], longest: int) -> Tensor:
    """The last ids of each text with a comma after it, inside a text: [W, longest], with -1 after their ends."""
    import torch

    found = torch.full((len(texts), longest), -1)
    for row, ids in enumerate(inside_text(tokenizer, [f"{text}," for text in texts])):
        kept = ids[-longest:]
        found[row, : len(kept)] = torch.tensor(kept)
    return found


def spelled_out(lm: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The LLM's embeddings of ids [W, S], no gradients, and where there is one: [W, S, D] and [W, S]."""
    import torch

    table: Any = lm.lm.get_input_embeddings()  # type: ignore[operator,union-attr]
    with torch.no_grad():
        return table(ids.clamp(min=0)).float(), ids >= 0


def embedded(lm: nn.Module, ids: Tensor) -> Tensor:
    """The mean of the LLM's embeddings of each word's tokens, no gradients: ids [W, S], -1 after them -> [W, D]."""
    import torch

    from assembler.ragged import masked_mean

    table: Any = lm.lm.get_input_embeddings()  # type: ignore[operator,union-attr]
    with torch.no_grad():
        return masked_mean(table(ids.clamp(min=0)).float(), ids >= 0)
