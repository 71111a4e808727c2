"""An adapter finds its places in every encoder of pictures and points that has blocks."""

from pathlib import Path

import pytest

from assembler.anatomy import resolve
from assembler.check import check
from assembler.compile import compile_graph
from assembler.spec import parse

SPEC = """
assembler: 1
nodes:
  source: {{{source}}}
  part: {{type: encoder.{part}}}
edges: [source -> part]
"""
WIDTHS = "hidden_size: 24, num_hidden_layers: 2, num_attention_heads: 2"
SMALL = f"{WIDTHS}, image_size: 16, patch_size: 8"
IMAGE, POINTS = "type: input.image, size: [16, 16]", "type: input.points, points: 40"
TOWER = "{embed_dim: 12, vision_cfg: {image_size: 16, patch_size: 8, layers: 2, width: 16, head_width: 8}}"
TEXT = "vocab_size: 40, max_position_embeddings: 9, intermediate_size: 32"
ENCODERS = {
    "timm": (IMAGE, "timm, model: vit_tiny_patch16_224"),
    "open_clip": (IMAGE, f"open_clip, config: {TOWER}"),
    "clip": (IMAGE, f"hf_vision, output: pooled, config: {{model_type: clip_vision_model, {SMALL}}}"),
    "siglip": (IMAGE, f"hf_vision, config: {{model_type: siglip_vision_model, {SMALL}}}"),
    "dinov2": (IMAGE, f"hf_vision, config: {{model_type: dinov2, {SMALL}}}"),
    "registers": (IMAGE, f"hf_vision, config: {{model_type: dinov2_with_registers, {SMALL}}}"),
    "vit": (IMAGE, f"hf_vision, config: {{model_type: vit, {SMALL}}}"),
    "points": (POINTS, "point_transformer, groups: 8, neighbours: 4, width: 16, depth: 2, heads: 2"),
    "any2point": (
        POINTS,
        f"any2point, tokens: 8, neighbours: 4, embed: 3, config: {{model_type: clip_text_model, {WIDTHS}, {TEXT}}}",
    ),
}


@pytest.mark.parametrize("name", list(ENCODERS))
def test_its_blocks_their_attention_and_its_last_norm_are_sites(name):
    source, part = ENCODERS[name]
    module = compile_graph(check(parse(SPEC.format(source=source, part=part), Path("spec.yaml"))), "meta").nodes["part"]
    places = resolve(module, "{layers.*,layers.*.attn,layers.*.mlp,final}")
    assert len(places) >= 3 * 2 + 1
    assert all(module.get_submodule(path) is not None for _, path in places)
    if name != "open_clip":  # whose attention reads the weights of its projections and never calls them
        assert len(resolve(module, "layers.*.attn.{q,k,v,o}")) >= 4 * 2
