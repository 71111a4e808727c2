"""The decoder and the embedding of a bundle, written directly from a config and weights: no tracing.

One graph serves prefill, chunk and decode. Its attention is onnxruntime's GroupQueryAttention with the rotary embedding
inside, its cache a buffer that grows in place, and its weights lie once in the bundle, the embedding's table and a tied
head being the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from assembler.bundle.architecture import PATHS, Architecture, architecture_of, unexpected
from assembler.bundle.linears import BLOCK, Blocks, blockwise, dense, dynamic, nearest, pieces, stacked
from assembler.bundle.writing import ORT, GraphWriter, WeightFile

LONGEST = 32_768
"""The longest context that a bundle's rotary table is made for."""


class DecoderWriter:
    """Writes `decoder.onnx`, `embedding.onnx` and `weights.data` into a folder.

    Args:
        shape: the architecture.
        weights: float32 arrays by transformers' names.
        rotary: cosines and sines, each float32 [positions, head size / 2].
        precision: `fp32`; `fp16`; `int8` (blocks of 32); `int8_dynamic` (a scale an output, x rounded too); `int4`.
        carried: matrices that a 4-bit file holds exactly so, by transformers' names; `int4` takes them as they are.
    """

    def __init__(
        self,
        shape: Architecture,
        weights: Mapping[str, np.ndarray],
        rotary: tuple[np.ndarray, np.ndarray],
        precision: str,
        carried: Mapping[str, Blocks],
    ) -> None:
        self.shape, self.weights, self.rotary = shape, weights, rotary
        self.precision, self.carried = precision, dict(carried) if precision == "int4" else {}

    @property
    def note(self) -> str:
        """What a reader of the manifest wants to know."""
        taken = f", {len(self.carried)} matrices as their source holds them" if self.carried else ""
        return f"{self.shape.layers} layers of RMSNorm, rotary grouped-query attention and gated MLP{taken}"

    def write(self, folder: Path) -> None:
        """Write the three files."""
        with WeightFile(folder) as file:
            real = np.float16 if self.precision == "fp16" else np.float32
            self._embedding(GraphWriter("embedding", file, real)).save(folder / "embedding.onnx")
            self._decoder(GraphWriter("decoder", file, real)).save(folder / "decoder.onnx")

    @cached_property
    def _table(self) -> np.ndarray | Blocks:
        """The embedding's table: as it is, or in 8 bits where the matrices have fewer than 32."""
        name = "model.embed_tokens.weight"
        carried = self.carried.get(name)
        if carried is not None and carried.bits == 8 and carried.residue is None:
            return carried
        table = self.weights[name]
        return table if self.precision in ("fp32", "fp16") or self.shape.hidden % BLOCK else nearest(table, 8)

    def _embedding(self, graph: GraphWriter) -> GraphWriter:
        """Ids below V are tokens, id V + r is row r of the encoders' features."""
        size, vocabulary = self.shape.hidden, self.shape.vocabulary
        ids = graph.input("input_ids", np.int64, ["batch", "sequence"])
        features = graph.input("features", graph.real, ["rows", size])
        words = graph.op("Min", ids, graph.constant("last", vocabulary - 1, np.int64))
        flat = graph.op("Reshape", words, graph.ints(-1))
        table = self._table
        if isinstance(table, Blocks):
            data = graph.constant("table.q", table.packed.reshape(vocabulary, size))
            scale = graph.constant("table.scale", table.scale)
            tokens = graph.op(
                "GatherBlockQuantized", data, flat, scale, domain=ORT, bits=8, block_size=BLOCK, quantize_axis=1
            )
        else:
            tokens = graph.op("Gather", graph.constant("table", table), flat)  # [B * T, D]
        rows = graph.op("Concat", tokens, features, axis=0)
        count = graph.op("Size", ids)
        zero, one = graph.constant("zero", 0, np.int64), graph.constant("one", 1, np.int64)
        own = graph.op("Reshape", graph.op("Range", zero, count, one), graph.op("Shape", ids))
        row = graph.op("Add", ids, graph.op("Sub", count, graph.constant("vocabulary", vocabulary, np.int64)))
        is_row = graph.op("GreaterOrEqual", ids, graph.constant("vocabulary", vocabulary, np.int64))
        out = graph.op("Gather", rows, graph.op("Where", is_row, row, own))
        graph.output(out, "inputs_embeds", graph.real, ["batch", "sequence", size])
        return graph

    def _decoder(self, graph: GraphWriter) -> GraphWriter:
        shape = self.shape
        x = graph.input("inputs_embeds", graph.real, ["batch", "sequence", shape.hidden])
        mask = graph.input("attention_mask", np.int64, ["batch", "total"])
        lengths = graph.op("ReduceSum", mask, graph.ints(1), keepdims=0)  # [B]
        last = graph.op("Sub", lengths, graph.constant("one", 1, np.int64))
        total = graph.op("Shape", mask, start=1, end=2)  # [1]
        sizes = (graph.op("Cast", last, to=6), graph.op("Cast", total, to=6))  # int32
        self._rows = graph.op("Concat", graph.op("Shape", x, start=0, end=2), graph.ints(-1), axis=0)  # B, T, -1
        y, x = "", self._flat(graph, x, shape.hidden)
        for layer in range(shape.layers):
            x, y = self._layer(graph, layer, x, y, sizes)
        x = self._apart(graph, graph.op("Add", x, y))
        logits = self._head(graph, self._last(graph, x, last, total))
        logits = logits if graph.real == np.float32 else graph.op("Cast", logits, to=1)
        graph.output(logits, "logits", np.float32, ["batch", "classes"])
        return graph

    @property
    def _is_flat(self) -> bool:
        """Whether the rows of a batch are one axis between the attentions, as 4-bit products want it."""
        return self.precision == "int4"

    def _flat(self, graph: GraphWriter, x: str, width: int) -> str:
        """[B * T, width] where the batch is flat."""
        return graph.op("Reshape", x, graph.ints(-1, width)) if self._is_flat else x

    def _apart(self, graph: GraphWriter, x: str) -> str:
        """[B, T, n] again."""
        return graph.op("Reshape", x, self._rows) if self._is_flat else x

    def _layer(self, graph: GraphWriter, layer: int, x: str, y: str, sizes: tuple[str, str]) -> tuple[str, str]:
        """The residual stream after the layer's attention, and what its MLP adds to it."""
        prefix = f"model.layers.{layer}"
        normed, x = self._norm(graph, f"{prefix}.input_layernorm.weight", x, y)
        context = self._attention(graph, prefix, layer, normed, sizes)
        attended = self._linear(graph, context, f"{prefix}.self_attn.o_proj")
        normed, x = self._norm(graph, f"{prefix}.post_attention_layernorm.weight", x, attended)
        gate, up = self._linears(graph, normed, [f"{prefix}.{PATHS[name]}" for name in ("gate", "up")])
        silu = graph.op("QuickGelu", gate, domain=ORT, alpha=1.0)  # g * sigmoid(g)
        return x, self._linear(graph, graph.op("Mul", silu, up), f"{prefix}.mlp.down_proj")

    def _norm(self, graph: GraphWriter, name: str, x: str, y: str) -> tuple[str, str]:
        """RMSNorm of x + y, and x + y itself; y may be "" for nothing."""
        weight, epsilon = graph.constant(name, self.weights[name]), self.shape.epsilon
        if not y:
            return graph.op("SimplifiedLayerNormalization", x, weight, axis=-1, epsilon=epsilon), x
        names = [f"{name}.out", "", "", f"{name}.sum"]
        graph.add("SkipSimplifiedLayerNormalization", [x, y, weight], names, ORT, epsilon=epsilon)
        return names[0], names[3]

    def _attention(self, graph: GraphWriter, prefix: str, layer: int, x: str, sizes: tuple[str, str]) -> str:
        shape = self.shape
        made = self._linears(graph, x, [f"{prefix}.{PATHS[name]}" for name in "qkv"], split=shape.qk_norm)
        made = [self._apart(graph, y) for y in made]
        if shape.qk_norm:
            made[:2] = [
                self._head_norm(graph, f"{prefix}.self_attn.{n}_norm.weight", made[i]) for i, n in enumerate("qk")
            ]
        kinds: list[int | str] = ["batch", shape.kv_heads, "past", shape.head_size]
        past = [graph.input(f"past_key_values.{layer}.{part}", graph.real, kinds) for part in ("key", "value")]
        tables = [graph.constant(name, table) for name, table in zip(("cosines", "sines"), self.rotary, strict=True)]
        names = [f"context.{layer}", f"present.{layer}.key", f"present.{layer}.value"]
        knobs = {"num_heads": shape.heads, "kv_num_heads": shape.kv_heads, "do_rotary": 1}
        if shape.window is not None:
            knobs["local_window_size"] = shape.window
        ready = made if len(made) == 3 else [made[0], "", ""]
        graph.add("GroupQueryAttention", [*ready, *past, *sizes, *tables], names, ORT, **knobs)
        for name in names[1:]:
            graph.output(name, name, graph.real, ["batch", shape.kv_heads, "present", shape.head_size])
        return self._flat(graph, names[0], shape.query)

    def _head_norm(self, graph: GraphWriter, name: str, x: str) -> str:
        """RMSNorm of each head by itself."""
        heads = graph.op("Reshape", x, graph.ints(0, 0, -1, self.shape.head_size))
        weight = graph.constant(name, self.weights[name])
        normed = graph.op("SimplifiedLayerNormalization", heads, weight, axis=-1, epsilon=self.shape.epsilon)
        return graph.op("Reshape", normed, graph.ints(0, 0, -1))

    def _last(self, graph: GraphWriter, x: str, last: str, total: str) -> str:
        """x [B, T, D] at each row's last real position: [B, D]."""
        new = graph.op("Shape", x, start=1, end=2)
        past = graph.op("Sub", total, new)
        place = graph.op("Max", graph.op("Sub", last, past), graph.constant("zero", 0, np.int64))  # [B]
        place = graph.op("Unsqueeze", place, graph.ints(1))
        return graph.op("GatherND", x, place, batch_dims=1)

    def _head(self, graph: GraphWriter, x: str) -> str:
        """Logits [B, V] of [B, D]."""
        name = "model.norm.weight"
        weight = graph.constant(name, self.weights[name])
        x = graph.op("SimplifiedLayerNormalization", x, weight, axis=-1, epsilon=self.shape.epsilon)
        table = self._table
        if "lm_head.weight" not in self.weights and not isinstance(table, Blocks):
            return graph.op("Gemm", x, graph.constant("table", table), transB=1)
        if "lm_head.weight" in self.weights:
            return self._linear(graph, x, "lm_head")
        assert isinstance(table, Blocks)
        return blockwise(graph, x, "table", table)[0]

    def _linears(self, graph: GraphWriter, x: str, paths: list[str], split: bool = True) -> list[str]:
        """Several linears of one x as one; apart again where they are to be `split` or cannot be one."""
        carried = [self.carried[f"{path}.weight"] for path in paths if f"{path}.weight" in self.carried]
        one = stacked(carried) if len(carried) == len(paths) else None
        if self.precision == "int4" and carried and one is None:
            return [self._linear(graph, x, path) for path in paths]
        widths = [self._width(f"{path}.weight") for path in paths]
        weight = None if one is not None else np.concatenate([self.weights[f"{path}.weight"] for path in paths])
        biases = [self.weights.get(f"{path}.bias") for path in paths]
        if not split:
            none = [np.zeros(w, np.float32) if b is None else b for w, b in zip(widths, biases, strict=True)]
            whole = None if all(bias is None for bias in biases) else np.concatenate(none)
            widths, biases = [sum(widths)], [whole]
        made = self._matrix(graph, x, "+".join(paths), weight, one, widths)
        return [
            y if bias is None else graph.op("Add", y, graph.constant(f"{paths[i]}.bias", bias))
            for i, (y, bias) in enumerate(zip(made, biases, strict=True))
        ]

    def _width(self, name: str) -> int:
        """The outputs of a matrix."""
        return len(self.carried[name].q) if name in self.carried else len(self.weights[name])

    def _linear(self, graph: GraphWriter, x: str, path: str) -> str:
        name, bias = f"{path}.weight", self.weights.get(f"{path}.bias")
        carried = self.carried.get(name)
        weight = None if carried is not None else self.weights[name]
        y = self._matrix(graph, x, path, weight, carried, [self._width(name)])[0]
        return y if bias is None else graph.op("Add", y, graph.constant(f"{path}.bias", bias))

    def _matrix(
        self,
        graph: GraphWriter,
        x: str,
        name: str,
        weight: np.ndarray | None,
        carried: Blocks | None,
        widths: list[int],
    ) -> list[str]:
        """The product with one matrix, in pieces of these widths."""
        if carried is not None:
            return blockwise(graph, x, name, carried, widths)
        assert weight is not None
        if self.precision in ("fp32", "fp16") or weight.shape[1] % BLOCK:
            y = dense(graph, x, name, weight)
        elif self.precision == "int8_dynamic":
            y = dynamic(graph, x, name, weight)
        else:
            return blockwise(graph, x, name, nearest(weight, 8 if self.precision == "int8" else 4), widths)
        return [y] if len(widths) == 1 else pieces(graph, y, widths)


def decoder_writer(lm: Any, precision: str, carried: Callable[[], Mapping[str, Blocks]]) -> DecoderWriter | str:
    """The writer of a transformers LM's decoder, or why it is not written directly.

    Of the matrices that `carried` gives, those count whose values the LM still has, bit for bit.
    """
    shape = architecture_of(lm.config.get_text_config())
    if isinstance(shape, str):
        return shape
    weights = {key: x.detach().float().numpy() for key, x in lm.state_dict().items()}
    tied = lm.config.get_text_config().tie_word_embeddings
    if tied:
        weights.pop("lm_head.weight", None)
    odd = unexpected(shape, weights)
    if odd is not None:
        return odd
    rotary = rotary_table(lm, lm.config.get_text_config().max_position_embeddings)
    if isinstance(rotary, str):
        return rotary
    blocks = carried() if precision == "int4" else {}
    same = {key: x for key, x in blocks.items() if key in weights and np.array_equal(x.dense(), weights[key])}
    return DecoderWriter(shape, weights, rotary, precision, same)


def rotary_table(lm: Any, longest: int) -> tuple[np.ndarray, np.ndarray] | str:
    """Cosines and sines [positions, head size / 2] of a transformers LM, or why they make no table."""
    import torch

    rotary = lm.model.rotary_emb
    kind = getattr(rotary, "rope_type", "default")
    if kind not in ("default", "linear", "llama3", "yarn"):
        return f"its rotary embedding is of the kind {kind}, which changes with the length"
    places = torch.arange(min(longest, LONGEST))[None]
    with torch.no_grad():
        pair = rotary(torch.zeros(1, 1, 1), places)
    halves = [x[0, :, : x.shape[-1] // 2].float().contiguous().numpy() for x in pair]
    return halves[0], halves[1]
