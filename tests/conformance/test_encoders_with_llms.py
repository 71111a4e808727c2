"""Eight kinds of encoder before six families of LLMs, most with adapters: every pair is exported and answers as torch.

Each pair goes the whole way through `export`. A graph of the same module with the same weights is traced once for all
pairs that have it, since tracing is what takes the time.
"""

import zlib
from pathlib import Path

import pytest
import torch

from assembler.bundle.runtime import Bundle
from assembler.check import check
from assembler.compile import Assembly, compile_graph
from assembler.evaluate import TorchAnswers
from assembler.export import export
from assembler.parity import samples
from assembler.spec import Document, Spec
from tests.conformance.rows import row_of

SIZES = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "pad_token_id": 0}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 256}
LORA = {"type": "adapter.lora", "rank": 2}
ADAPTFORMER = {"type": "adapter.adaptformer", "size": 4}
FLEXI = {"type": "adapter.flexidepth", "layers": [0], "reduce": 4}
LLMS: dict[str, tuple[dict, dict, str]] = {
    "gpt2": ({"vocab_size": 300, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 256}, {"tune": LORA}, ""),
    "llama": (SIZES, {"tune": {"type": "adapter.mixlora", "experts": 4, "top_k": 2, "rank": 2}}, ""),
    "qwen2": (SIZES, {"tune": {"type": "adapter.prefix", "length": 3}}, ""),
    "qwen3": (
        SIZES,
        {"one": LORA, "two": LORA, "three": LORA, "tune": {"type": "adapter.router", "top": 2}},
        "route(one, two, three, by=tune)",
    ),
    "gemma": (SIZES, {"tune": {"type": "adapter.pfeiffer", "reduction": 4}}, ""),
    "mistral": (SIZES, {"tune": FLEXI}, ""),
}
"""By architecture: its config, the adapters that half of its encoders get, and how they are composed."""
PHOTO = {"type": "input.image", "size": [16, 16]}
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
SMALL |= {"intermediate_size": 32}
SPEECH = {"model_type": "wav2vec2", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SPEECH |= {"intermediate_size": 32, "conv_dim": [8, 8, 8], "conv_kernel": [10, 3, 2], "conv_stride": [5, 4, 4]}
SPEECH |= {"num_feat_extract_layers": 3, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}
WHISPER = {"d_model": 16, "encoder_ffn_dim": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "num_mel_bins": 80}
SOUND = {"type": "input.audio", "seconds": 0.5}
CIF = {"type": "projector.cif", "max_tokens": 6, "auxiliary": 0, "hidden": 8, "heads": 2}


def vision(model: str, **more) -> dict:
    return {"type": "encoder.hf_vision", "config": {"model_type": model, **SMALL, **more}}


ENCODERS: dict[str, tuple[dict, dict, dict, dict]] = {
    "vit": (PHOTO, vision("vit"), {"type": "projector.linear"}, {}),
    "siglip": (PHOTO, vision("siglip_vision_model"), {"type": "projector.mlp"}, {}),
    "clip": (PHOTO, vision("clip_vision_model"), {"type": "projector.linear"}, {"fit": LORA}),
    "dinov2": (
        PHOTO,
        vision("dinov2", mlp_ratio=2),
        {"type": "projector.linear"},
        {"fit": {"type": "adapter.adaptformer"}},
    ),
    "whisper": (SOUND, {"type": "encoder.whisper", "config": {**WHISPER, "max_source_positions": 50}}, CIF, {}),
    "wav2vec2": (
        {"type": "input.audio", "seconds": 0.2},
        {"type": "encoder.hf_speech", "config": SPEECH},
        {"type": "projector.frame_stack", "stack": 4},
        {"fit": {"type": "adapter.houlsby", "size": 4}},
    ),
    "point": (
        {"type": "input.points", "points": 64},
        {"type": "encoder.point_transformer", "groups": 4, "neighbours": 4, "width": 16, "depth": 1, "heads": 2},
        {"type": "projector.linear"},
        {},
    ),
    "scmamba": (
        {"type": "input.expression", "genes": [f"G{i}" for i in range(7)], "normalise": "none"},
        {"type": "encoder.scmamba", "width": 16, "depth": 1, "state": 2},
        {"type": "projector.linear"},
        {},
    ),
}
"""By kind: the input, the encoder, the projector behind it, and adapters on the encoder."""
PAIRS = [(encoder, llm) for llm in LLMS for encoder in ENCODERS]


def spec_of(encoder: str, llm: str, adapted: bool) -> Spec:
    source, eyes, bridge, fitted = ENCODERS[encoder]
    config, tuned, composition = LLMS[llm]
    talk = {"type": "backbone.causal_lm", "arch": llm, "config": config, "prompt": "{seen} {question} {answer}"}
    nodes = {"source": source, "eyes": eyes, "bridge": bridge, "talk": {**talk, "max_new_tokens": 4}}
    adapters = {name: {**adapter, "host": "eyes"} for name, adapter in fitted.items()}
    adapters |= {name: {**adapter, "host": "talk"} for name, adapter in tuned.items() if adapted}
    tree = {"assembler": 1, "nodes": nodes, "edges": ["source -> eyes", "eyes -> bridge", "bridge -> talk.seen"]}
    tree |= {"adapters": adapters, "compose": {"talk": composition} if adapted and composition else {}}
    return Spec(Path("pair.yaml").resolve(), Document.model_validate(tree), tree)


def stir(assembly: Assembly) -> None:
    """The LLM and all adapters as if they had been trained, the same for every encoder, and far from ties."""
    learned = {key for keys in assembly.adapters.values() for key in keys}
    with torch.no_grad():
        for key, parameter in assembly.named_parameters():
            draw = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
            if key in learned:
                parameter.copy_(0.2 * draw)
            elif key.startswith("nodes.talk") and parameter.dim() > 1:
                parameter.copy_(0.1 * draw)


pytestmark = pytest.mark.usefixtures("traces")


def test_there_are_enough_of_them():
    assert len(PAIRS) >= 40


@pytest.mark.parametrize(("encoder", "llm"), PAIRS, ids=[f"{e}-{m}" for e, m in PAIRS])
def test_a_pair_answers_from_its_bundle_as_from_torch(encoder, llm, tmp_path):
    adapted = list(ENCODERS).index(encoder) % 2 == list(LLMS).index(llm) % 2
    graph = check(spec_of(encoder, llm, adapted)).require()
    assembly = compile_graph(graph).eval()
    stir(assembly)
    rows = [row_of(graph, seed) for seed in (2, 0, 1)]  # of different lengths, the longest first
    answers = TorchAnswers(graph, assembly)
    ids, alone = answers.ids(rows), [answers.logits([row])[0] for row in rows]
    report = export(graph, assembly, tmp_path / "bundle", "fp32", rows)
    assert report["greedy"] == 1.0 and all(row["max_abs"] <= 2e-4 for row in report["graphs"]), report
    bundle, asked = Bundle(tmp_path / "bundle"), samples(graph, "talk", rows)
    assert bundle.generate_ids(asked) == ids and len({tuple(row) for row in ids}) > 1
    torch.testing.assert_close(torch.from_numpy(bundle.logits(asked)), torch.stack(alone), atol=2e-4, rtol=0)
