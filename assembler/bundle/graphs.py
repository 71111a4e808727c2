"""From torch modules to ONNX graphs: encoders, the embedding that merges their tokens, and the decoder with its cache.

Every graph is taken by `torch.export` with named axes first: the ONNX exporter alone freezes an axis without a word.
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from assembler.caching import cache_argument
from assembler.errors import AssemblerError

OPSET = 23
"""The one opset at which the exporter emits Attention, RotaryEmbedding and RMSNormalization together."""
EXTERNAL_BYTES = 32 * 2**20
"""Above this the weights go to `<graph>.data` beside the graph."""
PRECISIONS = {"int8": {"bits": 8, "is_symmetric": True}, "int4": {"bits": 4, "is_symmetric": False}}
"""Both block-wise, 32 weights to a scale. Dynamic int8 per channel is 1.1x faster at six times the drift."""

Axes = dict[str, dict[int, str]]


class ExportRefused(AssemblerError):
    """A module that has no faithful ONNX graph; the sentence names it and says why."""


def export_graph(
    module: nn.Module,
    args: tuple[torch.Tensor, ...],
    path: Path,
    inputs: list[str],
    outputs: list[str],
    dynamic: Axes,
    opset: int = OPSET,
    may_be_empty: tuple[str, ...] = (),
) -> None:
    """Write `module(*args)` as an ONNX graph at `path`, its weights at `<path>.data` when they are large.

    `dynamic` names the free axes of each input: {"photo": {0: "batch"}}. Equal names mean equal sizes. The sample in
    `args` must have at least 2 along each, since a sample of 1 would be taken as a constant. Axes named in
    `may_be_empty` may also be 0 when the graph runs.

    Raises ExportRefused when torch cannot trace the module, or when an axis comes out frozen; no file is left then.
    """
    name = path.stem
    _check_sample(name, args, inputs, dynamic)
    free = {axis for axes in dynamic.values() for axis in axes.values()}
    dims = {axis: torch.export.Dim(axis, min=0 if axis in may_be_empty else 1) for axis in sorted(free)}
    shapes = tuple({i: dims[axis] for i, axis in dynamic.get(key, {}).items()} for key in inputs)
    with _evaluating(module), _out_of_place(module), torch.no_grad(), _quiet():
        try:
            program = torch.export.export(_Flat(module), args, dynamic_shapes=(shapes,), strict=False)
        except Exception as error:
            raise ExportRefused(f"{name}: torch.export cannot trace this module: {_first_line(error)}") from error
        _check_traced(name, program, inputs, dynamic)
        try:
            graph = torch.onnx.export(
                program, input_names=inputs, output_names=outputs, opset_version=opset, dynamo=True, verbose=False
            )
        except Exception as error:
            raise ExportRefused(f"{name}: the traced module has no ONNX form: {_first_line(error)}") from error
    assert graph is not None
    _check_onnx(name, graph, inputs, outputs, dynamic)
    with _aside(path) as draft:
        graph.save(draft, external_data=_weight_bytes(graph) >= EXTERNAL_BYTES)


def export_decoder(lm: nn.Module, path: Path) -> None:
    """Write a transformers causal LM as one graph for prefill, chunk and decode, at any batch.

    Inputs: inputs_embeds [B, T, D], attention_mask [B, P+T], position_ids [B, T],
    past_key_values.{i}.key and .value [B, kv heads, P, head size]; P is 0 at prefill.
    Outputs: logits [B, V] of the last position, present.{i}.key and .value [B, kv heads, P+T, head size].

    Raises ExportRefused when the model keeps another state than keys and values.
    """
    parameter = next(lm.parameters())
    embed = lm.get_input_embeddings()  # type: ignore[operator]
    size = embed.weight.shape[-1]
    like: dict[str, Any] = {"dtype": parameter.dtype, "device": parameter.device}
    cache = _sample_cache(lm, size, like, path.stem)
    batch, new, past = 2, 3, 5
    mask = torch.ones(batch, past + new, dtype=torch.long, device=parameter.device)
    mask[0, :2] = 0
    positions = torch.arange(past, past + new, device=parameter.device).expand(batch, new).contiguous()
    state = [torch.randn(batch, heads, past, width, **like) for heads, width in cache]
    keys = [f"{i}.{part}" for i in range(len(cache) // 2) for part in ("key", "value")]
    past_names = [f"past_key_values.{key}" for key in keys]
    export_graph(
        _Decoder(lm),
        (torch.randn(batch, new, size, **like), mask, positions, *state),
        path,
        ["inputs_embeds", "attention_mask", "position_ids", *past_names],
        ["logits", *(f"present.{key}" for key in keys)],
        {
            "inputs_embeds": {0: "batch", 1: "sequence"},
            "attention_mask": {0: "batch", 1: "total"},
            "position_ids": {0: "batch", 1: "sequence"},
            **{key: {0: "batch", 2: "past"} for key in past_names},
        },
        may_be_empty=("past",),
    )


def export_embedding(embed: nn.Module, path: Path) -> None:
    """Write the token table and the merge: ids below V are tokens, id V+r is row r of the encoders' features.

    Inputs: input_ids [B, T], features [N, D] (N may be 0). Output: inputs_embeds [B, T, D].
    """
    weight = embed.weight
    assert isinstance(weight, torch.Tensor)
    vocab_size, size = weight.shape
    ids = torch.tensor([[1, vocab_size, 0, vocab_size + 2], [vocab_size + 1, 1, 0, 1]], device=weight.device)
    export_graph(
        _Embedding(embed),
        (ids, torch.randn(3, size, dtype=weight.dtype, device=weight.device)),
        path,
        ["input_ids", "features"],
        ["inputs_embeds"],
        {"input_ids": {0: "batch", 1: "sequence"}, "features": {0: "rows"}},
        may_be_empty=("rows",),
    )


def quantize(path_in: Path, path_out: Path, precision: str, skip: list[str]) -> None:
    """Write the graph with its matrices in 8 or 4 bits, 32 weights to a scale (MatMulNBits).

    `skip` holds patterns (`*` allowed) of ONNX node names or of module paths such as "lm.lm_head"; those matrices
    stay as they are. Raises AssemblerError for another precision or a pattern that matches nothing.
    """
    if precision not in PRECISIONS:
        raise AssemblerError(f"{path_in.name}: no precision '{precision}'; choose one of {', '.join(PRECISIONS)}.")
    model = onnx.load(path_in)
    _split_gemm(model)
    nodes = [node for node in model.graph.node if node.op_type == "MatMul"]
    for pattern in skip:
        if not any(_matches(node, pattern) for node in nodes):
            raise AssemblerError(f"{path_in.name}: skip '{pattern}' matches no matrix of this graph.")
    kept = [node.name for node in nodes if any(_matches(node, pattern) for pattern in skip)]
    quantizer = _quantizer()(model, block_size=32, accuracy_level=4, nodes_to_exclude=kept, **PRECISIONS[precision])
    with _quiet():
        quantizer.process()
    _save(quantizer.model.model, path_out)


def halve(path_in: Path, path_out: Path) -> None:
    """Write the graph with its weights and its sums in float16; what goes in and comes out stays float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _quiet():
        model = convert_float_to_float16(onnx.load(path_in), keep_io_types=True, disable_shape_infer=True)
    _save(model, path_out)


def _save(model: onnx.ModelProto, path: Path) -> None:
    with _aside(path) as draft:
        external = model.ByteSize() >= EXTERNAL_BYTES
        onnx.save(model, draft, save_as_external_data=external, location=f"{path.name}.data" if external else None)


class _Flat(nn.Module):
    """Takes every input by position, so that one tuple of axes describes them all."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *tensors: torch.Tensor) -> object:
        return self.module(*tensors)


class _Decoder(nn.Module):
    """A causal LM over embeddings whose cache goes in and out as plain tensors."""

    def __init__(self, lm: nn.Module) -> None:
        super().__init__()
        self.lm = lm

    def forward(
        self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor, *past: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        from transformers import DynamicCache

        cache = DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
        # Two symbols cannot be promised to sum up to a third (P+T); a gather makes the mask's length that sum.
        length = past[0].shape[2] + inputs_embeds.shape[1]
        attention_mask = attention_mask.index_select(1, torch.arange(length, device=attention_mask.device))
        logits = self.lm(
            inputs_embeds=inputs_embeds,  # [B, T, D]
            attention_mask=attention_mask,  # [B, P+T]
            position_ids=position_ids,  # [B, T]
            **cache_argument(self.lm, cache),
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]  # [B, V]
        return logits, *_cached(cache)


class _Embedding(nn.Module):
    """One gather over tokens and features, so that the table is never copied."""

    def __init__(self, embed: nn.Module) -> None:
        super().__init__()
        self.embed = embed
        assert isinstance(embed.weight, torch.Tensor)
        self.vocab_size = embed.weight.shape[0]

    def forward(self, input_ids: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        batch, length = input_ids.shape
        tokens = self.embed(input_ids.clamp(max=self.vocab_size - 1)).flatten(0, 1)  # [B*T, D]
        rows = torch.cat([tokens, features.to(tokens.dtype)])  # [B*T + N, D]
        own = torch.arange(batch * length, device=input_ids.device).view(batch, length)
        index = torch.where(input_ids >= self.vocab_size, batch * length + input_ids - self.vocab_size, own)
        return rows[index]  # [B, T, D]


def _sample_cache(lm: nn.Module, size: int, like: dict[str, Any], name: str) -> list[tuple[int, int]]:
    """(heads, width) of every key and value the model caches, read off one short run."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache = DynamicCache()
    with _evaluating(lm), torch.no_grad():
        try:
            embeds = torch.zeros(1, 2, size, **like)
            lm(inputs_embeds=embeds, use_cache=True, logits_to_keep=1, **cache_argument(lm, cache))
        except TypeError as error:
            raise ExportRefused(f"{name}: this LM cannot be run step by step: {_first_line(error)}") from error
    if not cache.layers or not all(isinstance(x, DynamicLayer) and x.keys is not None for x in cache.layers):
        raise ExportRefused(f"{name}: {type(lm).__name__} keeps another state than keys and values; it has no graph.")
    return [(x.shape[1], x.shape[3]) for x in _cached(cache)]


def _cached(cache: Any) -> list[torch.Tensor]:
    """Key and value of every layer in turn, each [B, heads, length, width]."""
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


def _check_sample(name: str, args: tuple[torch.Tensor, ...], inputs: list[str], dynamic: Axes) -> None:
    if len(args) != len(inputs) or not set(dynamic) <= set(inputs):
        raise AssemblerError(f"{name}: {len(args)} samples for the inputs {inputs}, free axes for {sorted(dynamic)}.")
    for key, tensor in zip(inputs, args, strict=True):
        for i, axis in dynamic.get(key, {}).items():
            if (size := tensor.shape[i]) < 2:
                raise AssemblerError(f"{name}: the sample for {key} has {size} along '{axis}'; give 2 or more.")


def _check_traced(name: str, program: torch.export.ExportedProgram, inputs: list[str], dynamic: Axes) -> None:
    users = program.graph_signature.user_inputs
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    for key, user in zip(inputs, users, strict=True):
        for i, axis in dynamic.get(key, {}).items():
            if not isinstance(values[str(user)].shape[i], torch.SymInt):
                raise ExportRefused(f"{name}: tracing froze axis '{axis}' of {key} at {values[str(user)].shape[i]}.")


def _check_onnx(
    name: str, program: torch.onnx.ONNXProgram, inputs: list[str], outputs: list[str], dynamic: Axes
) -> None:
    """The names and free axes of the ONNX graph are those that were asked for."""
    graph = program.model.graph
    found = {value.name: value.shape for value in graph.inputs}
    if list(found) != inputs or [value.name for value in graph.outputs] != outputs:
        raise ExportRefused(f"{name}: the ONNX graph has the inputs {list(found)}, not {inputs}.")
    for key, axes in dynamic.items():
        for i, axis in axes.items():
            shape = found[key]
            if shape is None or isinstance(shape[i], int):
                raise ExportRefused(f"{name}: the ONNX exporter froze axis '{axis}' of {key}: its shape is {shape}.")


def _weight_bytes(program: torch.onnx.ONNXProgram) -> int:
    return sum(value.const_value.nbytes for value in program.model.graph.initializers.values() if value.const_value)


def _matches(node: onnx.NodeProto, pattern: str) -> bool:
    """The pattern names the node, or a module around it as the exporter recorded it."""
    if fnmatchcase(node.name, pattern):
        return True
    scopes = next((x.value for x in node.metadata_props if x.key == "pkg.torch.onnx.name_scopes"), "")
    paths = [part.strip(" []'\"").removeprefix("module.") for part in scopes.split(",")]
    return any(fnmatchcase(path, pattern) for path in paths if path)


def _split_gemm(model: onnx.ModelProto) -> None:
    """Gemm(x, W, b) -> MatMul + Add in place, because the quantiser knows MatMul only."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    replaced: set[str] = set()
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA")
        if node.op_type != "Gemm" or not plain or node.input[1] not in weights:
            nodes.append(node)
            continue
        weight = node.input[1]
        if attributes.get("transB"):
            turned = f"{weight}.T"
            if turned not in weights:
                array = np.ascontiguousarray(numpy_helper.to_array(weights[weight]).T)
                weights[turned] = numpy_helper.from_array(array, turned)
                model.graph.initializer.append(weights[turned])
            replaced.add(weight)
            weight = turned
        bias = list(node.input[2:])
        product = f"{node.output[0]}.product" if bias else node.output[0]
        matmul = helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name)
        matmul.metadata_props.extend(node.metadata_props)
        nodes.append(matmul)
        if bias:
            nodes.append(helper.make_node("Add", [product, *bias], list(node.output), name=f"{node.name}.bias"))
    replaced -= {key for node in nodes for key in node.input}
    left = [tensor for tensor in model.graph.initializer if tensor.name not in replaced]
    for field, items in ((model.graph.node, nodes), (model.graph.initializer, left)):
        kept = [type(item).FromString(item.SerializeToString()) for item in items]
        del field[:]
        field.extend(kept)


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A draft of the same name in a folder of its own, moved to `path` (and `<path>.data`) when all is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = path.with_name(f"{path.name}.data")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        draft = Path(folder) / path.name
        yield draft
        weights = draft.with_name(data.name)
        if weights.exists():
            os.replace(weights, data)
        else:
            data.unlink(missing_ok=True)
        os.replace(draft, path)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def _out_of_place(module: nn.Module) -> Iterator[None]:
    """Activations give new tensors meanwhile: the exporter takes those as they are and decomposes what is in place."""
    changed = [part for part in module.modules() if getattr(part, "inplace", False) is True]
    for part in changed:
        part.inplace = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for part in changed:
            part.inplace = True  # type: ignore[assignment]


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _quantizer() -> Any:
    """onnxruntime's class; its module sets up logging for the whole process when imported, which is undone here."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    root.setLevel(level)
    root.handlers[:] = handlers
    logging.getLogger(MatMulNBitsQuantizer.__module__).setLevel(logging.WARNING)  # it reports every node as INFO
    return MatMulNBitsQuantizer


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
