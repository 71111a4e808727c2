"""The decoder and the embedding of a bundle, written directly from a config and weights: no tracing.

One graph serves prefill, chunk and decode. Its attention is onnxruntime's GroupQueryAttention with any rotary embedding
inside, its cache a buffer that grows in place, and its weights lie once in the bundle, the embedding's table and a tied
head being the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from assembler.bundle.architecture import (
    FULL,
    PATHS,
    SLIDING,
    Architecture,
    architecture_of,
    canonical,
    names,
    unexpected,
)
from assembler.bundle.linears import BLOCK, Blocks, blockwise, dense, dynamic, nearest, stacked
from assembler.bundle.smoothing import Peaks, smoothed
from assembler.bundle.switching import input_names
from assembler.bundle.writing import ORT, GraphWriter, WeightFile

LONGEST = 32_768
"""The longest context that a bundle's rotary table is made for."""
Rotary = tuple[np.ndarray, np.ndarray]
Reach = tuple[np.ndarray, np.ndarray]
"""The largest |key| and |value| of a layer, each float32 [kv heads * head size]."""
MARGIN = 1.1
"""By how much a cache of 8 bits reaches beyond what was seen."""
REALS = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16}
PROMPTS = "prompts.onnx"
"""The decoder as a CPU is faster with it over many positions at once; its weights are the same."""
KV_SCALES = 12
"""The place of the steps of keys and values among the inputs of GroupQueryAttention."""
ROTARY = ("cosines", "sines")
"""What the constants of a rotary table are called, before the kind of the layer."""


class DecoderWriter:
    """Writes `decoder.onnx`, `embedding.onnx` and `weights.data` into a folder; with 4-bit weights `prompts.onnx` too.

    Args:
        shape: the architecture.
        weights: float32 arrays by canonical names.
        rotary: cosines and sines, each float32 [positions, head size / 2], by the kind of layer; none without any.
        precision: `int8` is in blocks of 32, `int8_dynamic` has a scale an output and rounds x too.
        carried: matrices that a 4-bit file holds exactly so, by transformers' names; `int4` takes them as they are.
        switched: paths of linears that LoRAs may change when the graph runs; see `switching`.
        peaks: the largest inputs of the linears on real data, with which `int8_dynamic` loses less; see `smoothing`.
        reach: how far keys and values reach in each layer, where they are to be kept in 8 bits.
    """

    def __init__(
        self,
        shape: Architecture,
        weights: Mapping[str, np.ndarray],
        rotary: Mapping[str, Rotary],
        precision: str,
        carried: Mapping[str, Blocks],
        switched: Collection[str] = (),
        peaks: Peaks | None = None,
        reach: Sequence[Reach] | None = None,
    ) -> None:
        self.reach = reach
        self.switched = frozenset(switched)
        weights = smoothed(shape, weights, peaks) if peaks and precision == "int8_dynamic" else weights
        self.shape, self.weights, self.rotary = shape, weights, rotary
        self.precision, self.carried = precision, dict(carried) if precision == "int4" else {}
        self.taken = len(self.carried)
        if self.carried:  # what was trained on, or kept otherwise, has 8 bits beside the source's 4
            others = [
                name for name in [*names(shape), "lm_head.weight"] if name.endswith(("_proj.weight", "head.weight"))
            ]
            for name in others:
                if name not in self.carried and name in weights and weights[name].shape[1] % BLOCK == 0:
                    self.carried[name] = nearest(weights[name], 8)

    @property
    def note(self) -> str:
        """What a reader of the manifest wants to know."""
        taken = f", {self.taken} matrices as their source holds them" if self.taken else ""
        return f"{self.shape.layers} layers of the kind {self.shape.kind}{taken}"

    @property
    def real(self) -> Any:
        """The type of numbers that are not whole."""
        return REALS.get(self.precision, np.float32)

    def write(self, folder: Path) -> str | None:
        """Write the files; the name of the graph for long prompts, where there is one."""
        with WeightFile(folder) as file:
            self._embedding(GraphWriter("embedding", file, self.real)).save(folder / "embedding.onnx")
            decoder = self._decoder(GraphWriter("decoder", file, self.real))
            decoder.save(folder / "decoder.onnx")
            if not decoder.for_prompts():
                return None
            decoder.save(folder / PROMPTS)
            return PROMPTS

    @cached_property
    def _table(self) -> np.ndarray | Blocks:
        """The embedding's table: as it is, or in 8 bits where the matrices have fewer than 32."""
        name = "model.embed_tokens.weight"
        carried = self.carried.get(name)
        if carried is not None and carried.bits == 8 and carried.residue is None:
            return carried
        table = self.weights[name]
        return table if self.precision in REALS or self.shape.hidden % BLOCK else nearest(table, 8)

    def _embedding(self, graph: GraphWriter) -> GraphWriter:
        """Ids below V are tokens, id V + r is row r of the encoders' features."""
        size, vocabulary = self.shape.hidden, self.shape.vocabulary
        ids = graph.input("input_ids", np.int64, ["batch", "sequence"])
        features = graph.input("features", graph.outer, ["rows", size])
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
        if self.shape.embed_scale != 1:
            tokens = graph.op("Mul", tokens, graph.constant("scale", np.float32(self.shape.embed_scale)))
        rows = graph.op("Concat", graph.cast(tokens, graph.outer, graph.real), features, axis=0)
        count = graph.op("Size", ids)
        zero, one = graph.constant("zero", 0, np.int64), graph.constant("one", 1, np.int64)
        own = graph.op("Reshape", graph.op("Range", zero, count, one), graph.op("Shape", ids))
        row = graph.op("Add", ids, graph.op("Sub", count, graph.constant("vocabulary", vocabulary, np.int64)))
        is_row = graph.op("GreaterOrEqual", ids, graph.constant("vocabulary", vocabulary, np.int64))
        out = graph.op("Gather", rows, graph.op("Where", is_row, row, own))
        graph.output(out, "inputs_embeds", graph.outer, ["batch", "sequence", size])
        return graph

    def _decoder(self, graph: GraphWriter) -> GraphWriter:
        shape = self.shape
        x = graph.input("inputs_embeds", graph.outer, ["batch", "sequence", shape.hidden])
        x = graph.cast(x, graph.real, graph.outer)
        mask = graph.input("attention_mask", np.int64, ["batch", "total"])
        lengths = graph.op("ReduceSum", mask, graph.ints(1), keepdims=0)  # [B]
        last = graph.op("Sub", lengths, graph.constant("one", 1, np.int64))
        total = graph.op("Shape", mask, start=1, end=2)  # [1]
        sizes = (graph.op("Cast", last, to=6), graph.op("Cast", total, to=6))  # int32
        self._rows = graph.op("Concat", graph.op("Shape", x, start=0, end=2), graph.ints(-1), axis=0)  # B, T, -1
        x = x if shape.rotary else self._placed(graph, x, lengths)
        y, x = "", self._flat(graph, x, shape.hidden)
        for layer in range(shape.layers):
            x, y = self._layer(graph, layer, x, y, sizes)
        x = self._apart(graph, graph.op("Add", x, y))
        logits = self._head(graph, self._last(graph, x, last, total))
        logits = self._capped(graph, logits)
        graph.output(graph.cast(logits, np.float32, graph.real), "logits", np.float32, ["batch", "classes"])
        return graph

    def _placed(self, graph: GraphWriter, x: str, lengths: str) -> str:
        """x [B, T, D] with the learned embedding of each position: those of a row end where it does."""
        zero, one = graph.constant("zero", 0, np.int64), graph.constant("one", 1, np.int64)
        new = graph.op("Squeeze", graph.op("Shape", x, start=1, end=2))
        first = graph.op("Unsqueeze", graph.op("Max", graph.op("Sub", lengths, new), zero), graph.ints(1))  # [B, 1]
        places = graph.op("Add", first, graph.op("Range", zero, new, one))  # [B, T]
        name = "model.positions.weight"
        return graph.op("Add", x, graph.op("Gather", graph.constant(name, self.weights[name]), places))

    def _capped(self, graph: GraphWriter, logits: str) -> str:
        """c tanh(logits / c), where the architecture has a c."""
        if not self.shape.head_softcap:
            return logits
        cap = graph.constant("cap", np.float32(self.shape.head_softcap))
        return graph.op("Mul", graph.op("Tanh", graph.op("Div", logits, cap)), cap)

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
        prefix, sandwich = f"model.layers.{layer}", self.shape.sandwich
        before, after, *rest = (f"{prefix}.{norm}" for norm in self.shape.norms)
        normed, x = self._norm(graph, before, x, y)
        context = self._attention(graph, prefix, layer, normed, sizes)
        y = self._linear(graph, context, f"{prefix}.self_attn.o_proj")
        y = self._norm(graph, after, y)[0] if sandwich else y
        normed, x = self._norm(graph, rest[-1] if sandwich else after, x, y)
        y = self._linear(graph, self._hidden(graph, prefix, normed), f"{prefix}.mlp.down_proj")
        return x, self._norm(graph, rest[0], y)[0] if sandwich else y

    def _hidden(self, graph: GraphWriter, prefix: str, x: str) -> str:
        """What the MLP's last matrix takes."""
        gated, silu = self.shape.gated, self.shape.activation == "silu"
        made = self._linears(graph, x, [f"{prefix}.{PATHS[n]}" for n in (("gate", "up") if gated else ("up",))])
        if silu:
            y = graph.op("QuickGelu", made[0], domain=ORT, alpha=1.0)  # g * sigmoid(g)
        else:
            y = graph.op("Gelu", made[0], approximate="tanh")
        return graph.op("Mul", y, made[1]) if gated else y

    def _norm(self, graph: GraphWriter, path: str, x: str, y: str = "") -> tuple[str, str]:
        """The norm of x + y, and x + y itself; y may be "" for nothing."""
        epsilon, kind = (
            self.shape.epsilon,
            "LayerNormalization" if self.shape.centred else "SimplifiedLayerNormalization",
        )
        fields = ("weight", "bias") if self.shape.centred else ("weight",)
        weights = [graph.constant(f"{path}.{field}", self.weights[f"{path}.{field}"]) for field in fields]
        if not y:
            return graph.op(kind, x, *weights, axis=-1, epsilon=epsilon), x
        outputs = [f"{path}.out", "", "", f"{path}.sum"]
        graph.add(f"Skip{kind}", [x, y, *weights], outputs, ORT, epsilon=epsilon)
        return outputs[0], outputs[3]

    def _attention(self, graph: GraphWriter, prefix: str, layer: int, x: str, sizes: tuple[str, str]) -> str:
        shape = self.shape
        paths = [f"{prefix}.{PATHS[name]}" for name in "qkv"]
        made = self._linears(graph, x, paths, split=shape.qk_norm or not self.switched.isdisjoint(paths))
        made = [self._apart(graph, y) for y in made]
        if shape.qk_norm:
            made[:2] = [
                self._head_norm(graph, f"{prefix}.self_attn.{n}_norm.weight", made[i]) for i, n in enumerate("qk")
            ]
        kinds: list[int | str] = ["batch", shape.kv_heads, "past", shape.head_size]
        held = np.int8 if self.reach else graph.real
        past = [graph.input(f"past_key_values.{layer}.{part}", held, kinds) for part in ("key", "value")]
        names = [f"context.{layer}", f"present.{layer}.key", f"present.{layer}.value"]
        kind = shape.kinds[layer]
        tables = [graph.constant(f"{n}.{kind}", x) for n, x in zip(ROTARY, self.rotary.get(kind, ()), strict=False)]
        knobs: dict[str, Any] = {
            "num_heads": shape.heads,
            "kv_num_heads": shape.kv_heads,
            "do_rotary": len(tables) // 2,
        }
        if shape.window is not None and kind == SLIDING:
            knobs["local_window_size"] = shape.window
        if shape.scale is not None:
            knobs["scale"] = float(shape.scale)
        if shape.softcap:
            knobs["softcap"] = float(shape.softcap)
        ready = made if len(made) == 3 else [made[0], "", ""]
        given = [*ready, *past, *sizes, *tables]
        if self.reach:
            given += [""] * (KV_SCALES - len(given))
            given += [
                graph.constant(f"{prefix}.{part}.step", MARGIN / 127 * np.maximum(most, 1e-6))
                for part, most in zip(("key", "value"), self.reach[layer], strict=True)
            ]
            knobs |= {"kv_cache_bit_width": 8, "k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL"}
        graph.add("GroupQueryAttention", given, names, ORT, **knobs)
        for name in names[1:]:
            graph.output(name, name, held, ["batch", shape.kv_heads, "present", shape.head_size])
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
        x, table = self._norm(graph, "model.norm", x)[0], self._table
        if "lm_head.weight" not in self.weights and not isinstance(table, Blocks):
            return graph.op("Gemm", x, graph.constant("table", table), transB=1)
        if "lm_head.weight" in self.weights:
            return self._linear(graph, x, "lm_head")
        assert isinstance(table, Blocks)
        return blockwise(graph, x, "table", table)[0]

    def _linears(self, graph: GraphWriter, x: str, paths: list[str], split: bool = True) -> list[str]:
        """Several linears of one x, as one product where that is faster; apart again where they are to be `split`.

        Cutting costs a copy of what was made, which only the products in blocks win back.
        """
        if split and not any(self._in_blocks(f"{path}.weight") for path in paths):
            return [self._linear(graph, x, path) for path in paths]
        carried = [self.carried[f"{path}.weight"] for path in paths if f"{path}.weight" in self.carried]
        one = stacked(carried) if len(carried) == len(paths) else None
        widths = [self._width(f"{path}.weight") for path in paths]
        weight = None if one is not None else np.concatenate([self.weights[f"{path}.weight"] for path in paths])
        biases = [self.weights.get(f"{path}.bias") for path in paths]
        if not split:
            none = [np.zeros(w, np.float32) if b is None else b for w, b in zip(widths, biases, strict=True)]
            whole = None if all(bias is None for bias in biases) else np.concatenate(none)
            widths, biases = [sum(widths)], [whole]
        made = self._matrix(graph, x, "+".join(paths), weight, one, widths)
        return [
            self._changed(
                graph, x, y if bias is None else graph.op("Add", y, graph.constant(f"{path}.bias", bias)), path
            )
            for path, y, bias in zip(paths, made, biases, strict=False)
        ]

    def _changed(self, graph: GraphWriter, x: str, y: str, path: str) -> str:
        """y + x A B, where a LoRA may change the linear; A and B are empty unless they are given."""
        if path not in self.switched:
            return y
        sizes = self._inputs(f"{path}.weight"), self._width(f"{path}.weight")
        down, up = input_names(path)
        graph.optional(down, np.zeros((sizes[0], 0), np.float32), [sizes[0], f"{path}.rank"])
        graph.optional(up, np.zeros((0, sizes[1]), np.float32), [f"{path}.rank", sizes[1]])
        return graph.op("Add", y, graph.op("MatMul", graph.op("MatMul", x, down), up))

    def _inputs(self, name: str) -> int:
        """The inputs of a matrix."""
        return self.carried[name].q.shape[1] * BLOCK if name in self.carried else self.weights[name].shape[1]

    def _width(self, name: str) -> int:
        """The outputs of a matrix."""
        return len(self.carried[name].q) if name in self.carried else len(self.weights[name])

    def _in_blocks(self, name: str) -> bool:
        """Whether the product with a matrix is one of MatMulNBits."""
        plain = self.precision in REALS or self.precision == "int8_dynamic"
        return name in self.carried or not (plain or self.weights[name].shape[1] % BLOCK)

    def _linear(self, graph: GraphWriter, x: str, path: str) -> str:
        name, bias = f"{path}.weight", self.weights.get(f"{path}.bias")
        carried = self.carried.get(name)
        weight = None if carried is not None else self.weights[name]
        y = self._matrix(graph, x, path, weight, carried, [self._width(name)])[0]
        return self._changed(
            graph, x, y if bias is None else graph.op("Add", y, graph.constant(f"{path}.bias", bias)), path
        )

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
        if self.precision in REALS or weight.shape[1] % BLOCK:
            return [dense(graph, x, name, weight)]
        if self.precision == "int8_dynamic":
            return [dynamic(graph, x, name, weight)]
        return blockwise(graph, x, name, nearest(weight, 8 if self.precision == "int8" else 4), widths)


def decoder_writer(
    lm: Any,
    precision: str,
    carried: Callable[[], Mapping[str, Blocks]],
    switched: Collection[str] = (),
    peaks: Peaks | None = None,
    reach: Sequence[Reach] | None = None,
) -> DecoderWriter | str:
    """The writer of a transformers LM's decoder, or why it is not written directly.

    Of the matrices that `carried` gives, those count whose values the LM still has, bit for bit.
    """
    shape = architecture_of(lm.config.get_text_config())
    if isinstance(shape, str):
        return shape
    state = {key: x.detach().float().numpy() for key, x in lm.state_dict().items()}
    if lm.config.get_text_config().tie_word_embeddings:
        state.pop("lm_head.weight", None)
    weights = canonical(shape, state)
    odd = unexpected(shape, weights)
    if odd is not None:
        return odd
    rotary = {}
    for kind in sorted(set(shape.kinds)) if shape.rotary else ():
        table = rotary_table(lm, shape.positions, kind)
        if isinstance(table, str):
            return table
        rotary[kind] = table
    blocks = carried() if precision == "int4" else {}
    same = {key: x for key, x in blocks.items() if key in weights and np.array_equal(x.dense(), weights[key])}
    return DecoderWriter(shape, weights, rotary, precision, same, switched, peaks, reach)


def rotary_table(lm: Any, longest: int, kind: str = FULL) -> Rotary | str:
    """Cosines and sines [positions, head size / 2] of a transformers LM's layers of a kind, or why they make none."""
    import torch

    rotary = lm.model.rotary_emb
    types: Any = getattr(rotary, "rope_type", "default")
    by_kind = isinstance(types, dict)
    type_ = types[kind] if by_kind else types
    if type_ not in ("default", "linear", "llama3", "yarn"):
        return f"its rotary embedding is of the kind {type_}, which changes with the length"
    places = torch.arange(min(longest, LONGEST))[None]
    with torch.no_grad():
        pair = rotary(torch.zeros(1, 1, 1), places, *([kind] if by_kind else []))
    halves = [x[0, :, : x.shape[-1] // 2].float().contiguous().numpy() for x in pair]
    return halves[0], halves[1]
