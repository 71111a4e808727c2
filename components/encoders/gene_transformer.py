"""A transformer over the genes that a cell expresses: ranked as Geneformer has them, or in bins as scGPT has them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from assembler.errors import AssemblerError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.encoders._expression import GeneEncoder

if TYPE_CHECKING:
    from torch import Tensor, nn

SCGPT = ("transformer_encoder.layers.0.", "value_encoder.", "encoder.enc_norm.")
"""How the names of scGPT's tensors begin."""


@register
class GeneTransformer(GeneEncoder):
    """Expression [B, G] -> tokens [B, T, d], one a gene with a value, or an embedding [B, d].

    The T = min(length, G) strongest genes of a cell are its tokens; genes without a value are padding. `ranked`, as in
    Geneformer: by v_g / m_g, the value over the gene's usual one in `medians`; a token is LN(E_g + P_rank + S). The
    values' logarithms are undone first, and a factor of the whole cell does not matter. `binned`, as in scGPT: by v_g;
    a token is LN(E_g) + LN(V_bin), where a cell's values above 0 fall into `bins` - 1 bins at their quantiles, and its
    place does not matter. Then blocks of BERT, x <- LN(x + attention(x)), x <- LN(x + W_2 act(W_1 x)). All of it, the
    ranking too, is in the graph. `pooled` is the mean over the real tokens. With `pretrain`, for `binned`, a stage
    whose `objectives` name this node hides values and learns their squared error. `weights` are a folder of
    Geneformer's, whose `dictionary` numbers the genes, or what this part has learned. Source: Geneformer, "Transfer
    learning enables predictions in network biology" (2023); scGPT, "toward building a foundation model for single-cell
    multi-omics using generative AI" (2024).
    Parameters: layers * (4 (d^2 + d) + 2 d f + f + d + 4 d), f = hidden, and ranked (V + length + 4) d, where V = G + 1
    or what the dictionary counts; binned (V + bins + 4) d; with `pretrain` also 2 d + 1, with `mix` layers + 2.
    """

    type = "encoder.gene_transformer"
    masks = "own"
    anchor = "embeddings.word_embeddings.weight"

    tokens: Literal["ranked", "binned"] = Field("ranked", description="what a gene's token is made of")
    length: int = Field(2048, ge=1, le=32_768, description="genes of a cell that are read at most")
    width: int = Field(256, ge=1, le=65_536, description="of a token")
    depth: int = Field(6, ge=1, le=256, description="blocks")
    heads: int = Field(4, ge=1, le=1024, description="of attention")
    hidden: int = Field(512, ge=1, le=1_000_000, description="width inside a block's MLP")
    activation: Literal["relu", "gelu"] = Field("relu", description="of the MLPs")
    bins: int = Field(51, ge=3, le=10_000, description="of values, 0 among them; for `binned`")
    medians: str | None = Field(None, description="a JSON file, gene -> its usual value; for `ranked`, 1 by default")
    dictionary: str | None = Field(None, description="a JSON file, gene -> number of its token, for weights")

    @model_validator(mode="after")
    def _one_kind(self) -> GeneTransformer:
        if self.width % self.heads:
            raise ValueError(f"`width` {self.width} is not divisible by `heads` {self.heads}; change one of them")
        if self.tokens == "binned" and (self.medians or self.dictionary):
            raise ValueError("`medians` and `dictionary` are for `tokens: ranked`; leave them out")
        if self.dictionary and not self.medians:
            raise ValueError("`dictionary` is of a model that ranks by `medians`; give its medians too")
        if self.pretrain and self.tokens == "ranked":
            raise ValueError("`pretrain` guesses hidden values, and `ranked` has none; set `tokens: binned`")
        if self.hide_zeros:
            raise ValueError("genes without a value are no tokens here, so none can be hidden; drop `hide_zeros`")
        return self

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        d, f, genes, length, bins = 12, 20, 11, 7, 5

        def spec(**knobs: Any) -> dict[str, Any]:
            sizes = {"width": d, "depth": 2, "heads": 2, "hidden": f, "length": length, "bins": bins}
            nodes = {
                "cell": {"type": "input.expression", "genes": [f"G{i}" for i in range(genes)], "normalise": "none"},
                "part": {"type": cls.type, **sizes, **knobs},
            }
            return {"nodes": nodes, "edges": ["cell -> part"]}

        block = 4 * (d * d + d) + 2 * d * f + f + d + 4 * d
        ranked, binned = (genes + 1 + length + 4) * d, (genes + 1 + bins + 4) * d
        return [
            (spec(), 2 * block + ranked),
            (spec(tokens="binned"), 2 * block + binned),
            (spec(mix=True, output="pooled"), 2 * block + ranked + 2 + 2),
            (spec(tokens="binned", layer=0, activation="gelu"), block + binned),
            (spec(tokens="binned", pretrain=True, output="pooled"), None),
        ]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        genes = inputs["in"]["genes"]
        self.block(self.depth)
        if self.output == "pooled":
            return value("embedding", width=self.width)
        tokens = min(self.length, genes) if isinstance(genes, int) else None
        return value("tokens", ragged=True, tokens=tokens, width=self.width)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.encoders._gene_transformer import GeneTransformerTower, Vocabulary

        genes: Any = inputs["in"].fact("genes")
        layer = self.block(self.depth)
        vocabulary = Vocabulary.of(
            genes,
            None if self.medians is None else base / self.medians,
            None if self.dictionary is None else base / self.dictionary,
        )
        return GeneTransformerTower(
            vocabulary,
            bins=None if self.tokens == "ranked" else self.bins,
            linear=inputs["in"].fact("normalise") == "counts",
            length=min(self.length, len(genes)),
            positions=self.length,
            sizes={
                "hidden_size": self.width,
                "num_hidden_layers": self.depth if layer is None else layer + 1,
                "num_attention_heads": self.heads,
                "intermediate_size": self.hidden,
                "hidden_act": self.activation,
            },
            mix=self.mix,
            pooled=self.output == "pooled",
            rates=self.rates,
        )

    def place(self, module: nn.Module, state: dict[str, Tensor]) -> None:
        if any(key.startswith(SCGPT) for key in state):
            raise AssemblerError(
                f"{self.weights} is of scGPT, which embeds values by an MLP where this part has an embedding of bins; "
                "train one with `weights: random`, or give what this part has learned"
            )
        if f"bert.{self.anchor}" in state and self.dictionary is None:
            raise AssemblerError(
                f"{self.weights} is of Geneformer, whose numbers of genes are not known here; write its token "
                "dictionary and its medians as JSON files and name them with `dictionary` and `medians`"
            )
        super().place(module, state)
