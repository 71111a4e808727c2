"""What onnxruntime-genai wants beside a decoder to run it: its config, and a view of the graph with its rank of logits.

    model = onnxruntime_genai.Model(BUNDLE)

It runs a decoder fed with embeddings only under the type of a model it knows with pictures, and opens a vision graph
then. The type here is borrowed, and the embedding stands in for the vision graph, which a text never runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from assembler.bundle.architecture import Architecture
from assembler.bundle.manifest import Manifest
from assembler.files import write_text

CONFIG, GRAPH = "genai_config.json", "decoder.genai.onnx"
TYPE = "gemma3"


def write_genai(folder: Path, shape: Architecture, context: int, manifest: Manifest) -> None:
    """Write both files beside a decoder that was written directly; the weights stay where they are.

    Args:
        context: the longest context.
    """
    _write_graph(folder / manifest.decoder, folder / GRAPH)
    write_text(folder / CONFIG, json.dumps(config(shape, context, manifest), indent=2) + "\n")


def config(shape: Architecture, context: int, manifest: Manifest) -> dict[str, Any]:
    """The config of a bundle's embedding and decoder; answers are greedy unless the caller says otherwise."""
    stop = list(manifest.stop)
    places = {f"past_{part}_names": f"past_key_values.%d.{part}" for part in ("key", "value")}
    presents = {f"present_{part}_names": f"present.%d.{part}" for part in ("key", "value")}
    decoder = {
        "filename": GRAPH,
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "head_size": shape.head_size,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "inputs": {"inputs_embeds": "inputs_embeds", "attention_mask": "attention_mask", **places},
        "outputs": {"logits": "logits", **presents},
    }
    embedding = {
        "filename": manifest.embedding,
        "inputs": {"input_ids": "input_ids", "image_features": "features"},
        "outputs": {"inputs_embeds": "inputs_embeds"},
    }
    model = {
        "type": TYPE,
        "bos_token_id": manifest.bos if manifest.bos is not None else stop[0],
        "eos_token_id": stop if len(stop) > 1 else stop[0],
        "pad_token_id": stop[0],
        "context_length": context,
        "vocab_size": manifest.vocab_size,
        "decoder": decoder,
        "embedding": embedding,
        "vision": {"filename": manifest.embedding, "inputs": {}, "outputs": {"image_features": "inputs_embeds"}},
    }
    search = {"max_length": context, "past_present_share_buffer": True, "do_sample": False}
    return {"model": model, "search": search}


def _write_graph(decoder: Path, path: Path) -> None:
    """The decoder with logits [B, 1, V], its weights in the file they are in."""
    model = onnx.load(str(decoder), load_external_data=False)
    graph = model.graph
    last = next(node for node in graph.node if "logits" in node.output)
    last.output[list(last.output).index("logits")] = "logits.flat"
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "logits.axis"))
    graph.node.append(helper.make_node("Unsqueeze", ["logits.flat", "logits.axis"], ["logits"], name="logits.rank"))
    value = next(value for value in graph.output if value.name == "logits")
    kind = value.type.tensor_type.elem_type
    value.CopyFrom(helper.make_tensor_value_info("logits", kind, ["batch", 1, "classes"]))
    path.write_bytes(model.SerializeToString())
