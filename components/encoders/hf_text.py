"""Text encoders of the BERT kind."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from assembler.bundle.manifest import Processor, TextProcessor
from assembler.configs import size_in
from assembler.errors import AssemblerError
from assembler.part import Part, WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from assembler.weights import cached, parse_source
from components.encoders._base import EncoderPart

if TYPE_CHECKING:
    from torch import nn

    from assembler.graph import Graph
    from components.encoders._masked_words import Guess

POOLER = {"add_pooling_layer": False}


class Family(NamedTuple):
    """What transformers takes for the sizes that a config leaves out, and what a model is made with beside its config.

    `offset` says that positions are counted from the padding's id on, and so fewer are left for the text; `endless`
    that they are relative, and any number is. `kind` is transformers' class of a model that has no head for masked
    words.
    """

    width: int = 768
    layers: int = 12
    pad: int = 0
    offset: bool = False
    options: dict[str, Any] = POOLER
    endless: bool = False
    kind: str = ""


MODELS = {
    "bert": Family(),
    "camembert": Family(pad=1, offset=True),
    "deberta-v2": Family(1536, 24, options={}),
    "distilbert": Family(layers=6, options={}),
    "electra": Family(256, options={}),
    "llama": Family(4096, 32, options={}, kind="LlamaModel"),
    "mistral": Family(4096, 32, options={}, kind="MistralModel"),
    "mpnet": Family(pad=1, offset=True),
    "qwen2": Family(4096, 32, options={}, kind="Qwen2Model"),
    "qwen3": Family(4096, 32, options={}, kind="Qwen3Model"),
    "roberta": Family(pad=1, offset=True),
    "t5": Family(512, options={}, layers=6, endless=True, kind="T5EncoderModel"),
    "xlm-roberta": Family(pad=1, offset=True),
}
"""By `model_type`."""


@register
class HfText(EncoderPart):
    """Text [B] -> token ids [B, T] -> tokens [B, T, width], or an embedding [B, width], of a BERT-like encoder.

    For retrieval, contrast, classes and hypernetworks: BERT, MiniLM, RoBERTa, DistilBERT, MPNet, ELECTRA, DeBERTa, T5's
    encoder, and the LLMs Llama, Mistral and Qwen without their head. A text is cut to `length` tokens; padding is in no
    attention and no mean. `output: pooled` with `pool` takes the mean of the real tokens, the first one's or, of an
    LLM, the last one's; `normalise` brings it to length 1, as models of sentence-transformers want it. `output: word`
    gives the logits [B, vocabulary] of the model's own words at the first [MASK] of the text, or else its first token,
    for `head.word`. The blocks after `layer` are not built. With `pretrain` it has the model's head for masked words,
    and a stage whose `objectives` name this node learns by guessing: of the real tokens, or with `whole_words` of the
    words, the share `hide` is chosen; eight in ten of them are read as [MASK], one as any token and one as it is, and
    the loss is the mean cross-entropy of the true ones, in all rows or those where the data column `domain` is 1.
    Source: arXiv 1810.04805 (BERT), 1908.10084 (pooling).
    Parameters: those of transformers' model for the config, without its pooler; with `mix` also layers + 2, with
    `pretrain` or `output: word` those of the head, whose last matrix is the embeddings.
    """

    type = "encoder.hf_text"
    accepts = {"in": ("text",)}
    masks = "own"
    reads_text = True

    output: Literal["tokens", "pooled", "word"] = Field(  # type: ignore[assignment]
        "tokens", description="one token a place, one embedding, or what stands at [MASK]"
    )
    length: int = Field(128, ge=1, le=8192, description="tokens that a text is cut to")
    pool: Literal["mean", "cls", "last"] = Field("mean", description="how `output: pooled` is made of the tokens")
    normalise: bool = Field(False, description="bring the embedding to length 1")
    tokenizer: str | None = Field(None, description="a tokenizer.json; by default the one beside the weights")

    pretrain: bool = Field(False, description="can learn by guessing hidden words, in stages that name it")
    hide: float = Field(0.15, gt=0, lt=1, description="share of the tokens that are guessed then")
    whole_words: bool = Field(False, description="hide all tokens of a word together")
    domain: str | None = Field(None, description="column of labels: words are hidden in the rows where it is 1")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        width, hidden, words, positions = 16, 32, 300, 24
        config = {
            "model_type": "bert", "hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": hidden, "vocab_size": words, "max_position_embeddings": positions,
        }  # fmt: skip
        tokenizer = str(Path(__file__).parent / "example" / "tokenizer.json")

        def spec(**knobs: Any) -> dict[str, Any]:
            part = {"type": cls.type, "config": config, "tokenizer": tokenizer, "length": 12, **knobs}
            return {"nodes": {"words": {"type": "input.text"}, "part": part}, "edges": ["words -> part"]}

        embeddings = (words + positions + 2) * width + 2 * width
        layer = 4 * (width * width + width) + 2 * width * hidden + hidden + width + 4 * width
        roberta = {**config, "model_type": "roberta", "pad_token_id": 0}
        t5 = {"model_type": "t5", "d_model": width, "d_kv": 8, "d_ff": hidden, "num_layers": 2, "num_heads": 2}
        t5 |= {"vocab_size": words}
        return [
            (spec(), embeddings + 2 * layer),
            (spec(mix=True, output="pooled", normalise=True), embeddings + 2 * layer + 2 + 2),
            (spec(layer=0, output="pooled", pool="cls"), embeddings + layer),
            (spec(config=roberta), None),
            (spec(pretrain=True, whole_words=True), None),
            (spec(pretrain=True, output="word", domain="new"), None),
            (spec(config=t5), None),
            (spec(config={**config, "model_type": "llama"}, output="pooled", pool="last"), None),
        ]

    @model_validator(mode="after")
    def _has_words(self) -> HfText:
        if self.weights == "random" and self.tokenizer is None:
            raise ValueError("`weights: random` brings no tokenizer; name a file with `tokenizer`")
        if self._guesses and self.layer is not None:
            raise ValueError("words are guessed at the last layer; leave `layer` out")
        if self.mix and self.output == "word":
            raise ValueError("`output: word` is read at the last layer; leave `mix` out")
        if self.normalise and self.output != "pooled":
            raise ValueError("`normalise` is of an embedding; add `output: pooled`")
        if self.domain is not None and not self.pretrain:
            raise ValueError("`domain` says in which rows words are hidden; add `pretrain: true`")
        return self

    @property
    def _guesses(self) -> bool:
        """Whether the model has its head for masked words."""
        return self.pretrain or self.output == "word"

    @property
    def extras(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.domain is None else ("domain",)

    @property
    def targets(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.extras

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return {} if self.domain is None else {self.domain: "label"}

    def collator(self, node: str, graph: Graph) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        assert self.domain is not None
        column = graph.column(self.domain)

        def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
            import torch

            return {"domain": torch.tensor([row[column] == 1 for row in rows])}

        return collate

    def gives_loss(self) -> bool:
        return self.pretrain

    def _family(self, config: dict[str, Any]) -> Family:
        found = config.get("model_type")
        if not isinstance(found, str) or found not in MODELS:
            raise WireError("in", f"the config's `model_type` is {found!r:.40}; it is one of {', '.join(MODELS)}")
        return MODELS[found]

    def _pad(self, config: dict[str, Any]) -> int:
        found = config.get("pad_token_id")
        if found is not None and (not isinstance(found, int) or found < 0):
            raise AssemblerError(f"the config's `pad_token_id` is {found!r:.40}; it is a whole number from 0")
        return self._family(config).pad if found is None else found

    def _block(self, config: dict[str, Any]) -> int | None:
        return self.block(size_in(config, "num_hidden_layers", "n_layers", "num_layers") or self._family(config).layers)

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        config, width = self.read_config(base), None
        if config is not None:
            family = self._family(config)
            width = size_in(config, "hidden_size", "dim", "d_model") or family.width
            self._block(config)
            longest = size_in(config, "max_position_embeddings") or 512
            longest -= (self._pad(config) + 1) * family.offset
            if self.length > longest and not family.endless:
                raise WireError("in", f"this model reads at most {longest} tokens, and `length` is {self.length}")
        if self.output == "word":
            return value("logits", classes=size_in(config or {}, "vocab_size"))
        if self.output == "pooled":
            return value("embedding", width=width)
        return value("tokens", ragged=True, tokens=self.length, width=width)

    def processor(self, source: Part, base: Path) -> Processor:
        config = self.read_config(base)
        pad = 0 if config is None else self._pad(config)
        return TextProcessor(tokenizer=str(self._tokenizer(base)), length=self.length, pad=pad)

    def _tokenizer(self, base: Path) -> Path:
        """The tokenizer.json, which need not be there before the weights are."""
        if self.tokenizer is not None:
            return base / self.tokenizer
        folder = cached(parse_source(self.weights), base)
        return (folder or base) / "tokenizer.json"

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.encoders._hf_text import TextTower

        config = self.read_config(base) or {}
        pool = self.pool if self.output == "pooled" else None
        self._check_words(config, base)
        family = self._family(config)
        if self._guesses and family.kind:
            asks = "`pretrain`" if self.pretrain else "`output: word`"
            raise AssemblerError(f"a {config['model_type']} has no head for masked words; leave {asks} out")
        options = {} if self._guesses else family.options
        guess = self._guess(base) if self._guesses else None
        sizes = (config, self._block(config), self.mix, pool, self.normalise, self._pad(config))
        return TextTower(*sizes, options, guess, family.kind, self.output == "word")

    def _guess(self, base: Path) -> Guess:
        """How words are hidden, by the tokenizer's own marks."""
        from assembler.bundle.processor import open_tokenizer
        from components.encoders._masked_words import Guess

        path = self._tokenizer(base)
        return Guess.of(open_tokenizer(str(path), self.length), str(path), self.hide, self.whole_words)

    def _check_words(self, config: dict[str, Any], base: Path) -> None:
        """The model has an embedding for every token of its tokenizer."""
        from assembler.bundle.processor import open_tokenizer

        path = self._tokenizer(base)
        have, need = size_in(config, "vocab_size"), open_tokenizer(str(path), self.length).get_vocab_size()
        if have is not None and have < need:
            raise AssemblerError(f"{path} has {need:,} tokens, and the model has embeddings for {have:,}; name its own")

    def fill(self, module: nn.Module, path: Path) -> None:
        from components.encoders._states import fill

        options = {} if self._guesses else MODELS[module.model.config.model_type].options  # type: ignore[index,union-attr]
        fill(module.model, path, self.weights, **options)
