"""Any2Point: sizes as published, the transformer untouched without guidance, positions from its own table."""

import re
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from assembler.anatomy import sites_of
from assembler.check import check
from assembler.compile import compile_graph
from assembler.ragged import Ragged
from assembler.spec import parse
from components.encoders._guided import CellNorm, cell_max, cell_mean, cells
from components.encoders._projection import VIEWS, Projection, positions, rotation

SPEC = """
assembler: 1
nodes:
  cloud: {{type: input.points, points: {points}}}
  part: {{type: encoder.any2point, {knobs}}}
edges: [cloud -> part]
"""
SIZES = "tokens: 8, neighbours: 4, embed: 3, rank: 2, voxel: 0.7, prefix: true"
SMALL = "hidden_size: 24, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32"
IMAGE = f"{SMALL}, image_size: 16, patch_size: 4"
HOSTS = {
    "text": f"config: {{model_type: clip_text_model, {SMALL}, vocab_size: 40, max_position_embeddings: 12}}",
    "siglip": f"config: {{model_type: siglip_vision_model, {IMAGE}}}",
    "dinov2": f"config: {{model_type: dinov2_with_registers, {IMAGE}}}",
    "vit": f"config: {{model_type: vit, {IMAGE}}}",
    "audio": f"config: {{model_type: audio-spectrogram-transformer, {SMALL}, num_mel_bins: 32, max_length: 64}}",
    "timm": "model: test_vit",
}
every_host = pytest.mark.parametrize("host", list(HOSTS))


def graph_of(host, more="", points=40, sizes=SIZES, base="."):
    return check(
        parse(SPEC.format(points=points, knobs=", ".join(filter(None, [host, sizes, more]))), Path(base) / "s")
    )


def tower_of(host, more="", points=40):
    return compile_graph(graph_of(HOSTS[host], more, points)).nodes["part"]


def lively(tower):
    """The tower with normalisations that are not the identity, so that nothing cancels."""
    torch.manual_seed(1)
    for module in tower.modules():
        if isinstance(module, CellNorm):
            module.mean.normal_(0, 0.1)
            module.variance.uniform_(0.5, 2)
    return tower


@pytest.mark.parametrize(
    ("config", "rank", "count", "width"),
    [
        ("{model_type: clip_text_model, hidden_size: 768, num_attention_heads: 12}", 16, 948_312, 768),
        ("{model_type: dinov2, image_size: 518}", 8, 800_760, 768),
    ],
)
def test_what_learns_has_the_published_size(config, rank, count, width):
    graph = graph_of(f"config: {config}, rank: {rank}", points=1024, sizes="")
    assert str(graph.values["part"]) == f"tokens [batch, 128, {width}] ragged"
    assembly = compile_graph(graph, device="meta")
    assert sum(p.numel() for p in assembly.nodes["part"].guide.parameters()) == count


@every_host
def test_its_formula_gives_what_learns(host):
    guide = tower_of(host).guide
    d, depth, c, e, r = guide.norm.weight.numel(), len(guide.blocks), 3, 3, 2

    def residual(w, i):
        return 2 * w * i + 3 * (w + i)

    count = c * e + 2 * e + 2 * residual(2 * e, e) + residual(4 * e, 2 * e) + residual(8 * e, 32)
    count += 0 if 8 * e == d else 8 * e * d + d
    count += depth * (2 * d * r + r + d + 14 * d) + 6 * (51 * d + 36) + 4 * d
    assert sum(p.numel() for p in guide.parameters()) == count


def test_a_stage_trains_the_guide_and_the_transformer_stays():
    assembly = compile_graph(graph_of(HOSTS["text"]))
    assembly.train_only(["part.guide"])
    learning = {key for key, p in assembly.named_parameters() if p.requires_grad}
    assert learning and all(key.startswith("nodes.part.guide.") for key in learning)


def theirs(host, x, where):
    """The transformer's own blocks over the same tokens."""
    sites = sites_of(host)
    for index in range(len([site for site in sites if re.fullmatch(r"layers\.\d+", site)])):
        out = host.get_submodule(sites[f"layers.{index}"])(x + where, None)
        x = out[0] if isinstance(out, tuple) else out
    return x


@every_host
def test_without_scale_and_guidance_it_is_the_frozen_transformer(host, monkeypatch):
    tower, points, taken = tower_of(host, "scale: 0, guidance: 0"), torch.randn(2, 40, 3), {}
    blocks = tower._blocks

    def watched(x, where, *rest):
        taken.update(x=x, where=where)
        return blocks(x, where, *rest)

    monkeypatch.setattr(tower, "_blocks", watched)
    with torch.no_grad():
        out = tower(points)
        torch.testing.assert_close(out, tower.guide.norm(theirs(tower.host, taken["x"], taken["where"])))


@every_host
def test_the_order_of_the_points_does_not_matter(host):
    torch.manual_seed(3)
    tower, points = lively(tower_of(host)), torch.randn(2, 40, 3)
    with torch.no_grad():
        torch.testing.assert_close(tower(points), tower(points[:, torch.randperm(40)]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("host", ["text", "dinov2"])
def test_padding_is_no_point_and_a_cloud_has_no_more_tokens_than_points(host):
    torch.manual_seed(4)
    tower, short = lively(tower_of(host)), torch.randn(1, 34, 3)
    padded = torch.cat([short, torch.full((1, 6, 3), 9.0)], dim=1)
    mask = torch.arange(40) < torch.tensor([[34], [5]])
    with torch.no_grad():
        out, alone = tower(Ragged(padded.expand(2, -1, -1), mask)), tower(short)
        other = tower(Ragged(padded.masked_fill(~mask.unsqueeze(-1), -3), mask))
    assert out.mask.sum(1).tolist() == [9, 6]
    torch.testing.assert_close(out.values[:1], alone, rtol=1e-4, atol=1e-5)
    assert torch.equal(out.values[out.mask], other.values[other.mask])


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 4), columns=st.integers(1, 4), seed=st.integers(0, 99))
def test_positions_at_whole_coordinates_are_rows_of_the_table(rows, columns, seed):
    torch.manual_seed(seed)
    table = torch.randn(rows * columns, 5)
    at = torch.stack([torch.randint(rows, (1, 1, 7)), torch.randint(columns, (1, 1, 7))], -1)
    found = positions(at.float(), (rows, columns), table)
    assert torch.equal(found[0], table[at[0, 0, :, 0] * columns + at[0, 0, :, 1]])
    line = positions(at[..., :1].float(), (rows,), table[:rows])
    assert torch.equal(line[0], table[at[0, 0, :, 0]])


def test_positions_between_rows_are_interpolated_and_averaged_over_views():
    table = torch.tensor([[0.0], [10.0], [20.0], [30.0]])
    assert positions(torch.tensor([[[[0.25]], [[3.0]]]]), (4,), table).item() == pytest.approx((2.5 + 30) / 2)
    assert positions(torch.tensor([[[[0.5, 0.5]]]]), (2, 2), table).item() == pytest.approx(15)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), axes=st.integers(1, 2))
def test_every_point_of_the_unit_sphere_lies_in_the_table(seed, axes):
    torch.manual_seed(seed)
    centres = torch.nn.functional.normalize(torch.randn(1, 30, 3), dim=-1)
    grid = (7, 5)[:axes]
    at = Projection(grid)(centres, None)
    assert at.shape == (1, len(VIEWS), 30, axes)
    sides = torch.tensor([side - 1 for side in grid])
    assert ((at >= 0) & (at <= sides)).all()
    if axes == 1:  # a view reaches from the first position to the last
        assert torch.allclose(at.amin(2), torch.zeros(())) and torch.allclose(at.amax(2), torch.tensor(6.0))


def test_views_are_rotations_and_all_different():
    turns = torch.stack([rotation(*angles) for angles in VIEWS])
    torch.testing.assert_close(turns @ turns.transpose(1, 2), torch.eye(3).expand(6, 3, 3))
    assert torch.allclose(torch.linalg.det(turns), torch.ones(6)) and len({str(turn.tolist()) for turn in turns}) == 6


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), real=st.integers(1, 9))
def test_cells_are_pooled_over_their_real_tokens(seed, real):
    torch.manual_seed(seed)
    index, x, mask = torch.randint(0, 2, (1, 9, 2)), torch.randn(1, 9, 4), torch.arange(9) < real
    where = cells(index, mask.unsqueeze(0))
    mean, largest = cell_mean(x, where)[0], cell_max(x, where)[0]
    for i in range(real):
        together = [j for j in range(real) if torch.equal(index[0, i], index[0, j])]
        torch.testing.assert_close(mean[i], x[0, together].mean(0))
        torch.testing.assert_close(largest[i], x[0, together].amax(0))
    assert where.counted.sum() == len({tuple(row) for row in index[0, :real].tolist()})


def test_a_cells_statistics_count_each_cell_once():
    norm, plain = CellNorm(4), torch.nn.BatchNorm1d(4)
    x = torch.randn(2, 3, 4)
    counted = torch.tensor([[True, True, False], [True, True, True]])
    wanted = torch.nn.functional.gelu(plain(x[counted]))
    torch.testing.assert_close(norm(x, counted)[counted], wanted)
    torch.testing.assert_close(norm.variance, plain.running_var)
    torch.testing.assert_close(norm.mean, plain.running_mean)


def test_the_weights_are_the_transformers_and_the_last_norm_begins_as_its_own(tmp_path):
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    text = {**sizes, "vocab_size": 40, "max_position_embeddings": 12}
    vision = {**sizes, "image_size": 16, "patch_size": 8}
    whole = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision))
    torch.nn.init.normal_(whole.text_model.final_layer_norm.weight)
    whole.save_pretrained(tmp_path / "clip")
    towers = [compile_graph(graph_of('weights: "file:clip"', base=tmp_path)).nodes["part"] for _ in range(2)]
    for key, tensor in whole.text_model.state_dict().items():
        assert torch.equal(towers[0].host.state_dict()[key], tensor)
    assert torch.equal(towers[0].guide.norm.weight, whole.text_model.final_layer_norm.weight)
    points = torch.randn(1, 40, 3)
    with torch.no_grad():
        assert torch.equal(towers[0](points), towers[1](points))


@pytest.mark.parametrize(
    ("host", "more", "points", "sentence"),
    [
        (HOSTS["text"], "", 31, "`tokens` is 32, of a cloud of 31"),
        (HOSTS["text"].replace("clip_text_model", "bert"), "", 40, "it is one of clip_text_model"),
        ("model: test_resnet", "", 40, "no table of positions"),
        (HOSTS["text"], "layer: 2", 40, "layers 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(host, more, points, sentence):
    assert sentence in graph_of(host, more, points).problems[0].message
