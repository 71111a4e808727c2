"""What encoders of points share, and the point transformer: order, padding and the number of tokens."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from assembler.bundle.clouds import farthest_points as farthest_in_numpy
from assembler.check import check
from assembler.compile import compile_graph
from assembler.ragged import Ragged
from assembler.spec import parse
from components.encoders._clouds import farthest_points, near_points, rows
from components.encoders._unsettled import Unsettled

SPEC = """
assembler: 1
nodes:
  cloud: {{type: input.points, points: {points}, extra: {extra}}}
  part: {{type: encoder.{kind}{knobs}}}
edges: [cloud -> part]
"""
SMALL = {
    "point_transformer": ", groups: 8, neighbours: 4, width: 16, depth: 2, heads: 2",
    "pointnet2": ", levels: [{centres: 8, scales: [{radius: 0.8, neighbours: 4, widths: [8]}]}]",
}


def graph_of(kind, more="", points=24, extra=0, base="."):
    text = SPEC.format(points=points, extra=extra, kind=kind, knobs=SMALL[kind] + more)
    return check(parse(text, Path(base) / "spec.yaml"))


def tower_of(kind, **more):
    return compile_graph(graph_of(kind, **more)).nodes["part"]


def first(mask_lengths, size):
    return torch.arange(size) < torch.tensor(mask_lengths).unsqueeze(1)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 30), count=st.integers(1, 30), seed=st.integers(0, 99))
def test_the_farthest_points_are_those_of_the_processor(size, count, seed):
    torch.manual_seed(seed)
    xyz, count = torch.randn(2, size, 3), min(size, count)
    found = farthest_points(xyz, count)
    assert found[0].tolist() == farthest_in_numpy(xyz[0].numpy(), count).tolist()
    assert len(set(found[1].tolist())) == count


@settings(max_examples=30, deadline=None)
@given(real=st.integers(1, 20), count=st.integers(1, 20), seed=st.integers(0, 99))
def test_padding_is_never_chosen(real, count, seed):
    torch.manual_seed(seed)
    xyz, mask = torch.randn(1, 20, 3), first([real], 20)
    chosen = farthest_points(xyz, count, mask)
    assert (chosen < real).all() and len(set(chosen[0].tolist())) == min(real, count)
    assert torch.equal(chosen[:, : min(real, count)], farthest_points(xyz[:, :real], min(real, count)))
    near = near_points(xyz, xyz, count, mask)
    assert (near < real).all() and torch.equal(near[0, :real, 0], torch.arange(real))


def test_near_points_are_the_nearest_and_within_the_radius():
    xyz = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [3, 0, 0], [0, 0.5, 0]]])
    assert near_points(xyz[:, :1], xyz, 3).tolist() == [[[0, 3, 1]]]
    assert near_points(xyz[:, :1], xyz, 3, radius=0.7).tolist() == [[[0, 3, 0]]]
    x = torch.randn(2, 5, 3)
    index = torch.tensor([[[0, 1]], [[4, 4]]])
    assert torch.equal(rows(x, index)[1, 0, 1], x[1, 4]) and torch.equal(rows(x, index)[0, 0, 1], x[0, 1])


@pytest.mark.parametrize("kind", list(SMALL))
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 999))
def test_the_order_of_the_points_does_not_matter(kind, seed):
    torch.manual_seed(seed)
    tower, points = tower_of(kind, extra=2), torch.randn(2, 24, 5)
    with torch.no_grad():
        plain, mixed = tower(points), tower(points[:, torch.randperm(24)])
    torch.testing.assert_close(plain, mixed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", list(SMALL))
def test_a_padded_cloud_is_the_cloud_and_has_no_more_tokens_than_points(kind):
    whole, short = tower_of(kind), torch.randn(1, 15, 3)
    padded = torch.cat([short, torch.full((1, 9, 3), 7.0)], dim=1)
    few = torch.cat([padded, padded])
    with torch.no_grad():
        out = whole(Ragged(few, first([15, 3], 24)))
        alone = whole(short)
    tokens = alone.shape[1]
    assert out.mask.sum(1).tolist() == [tokens, 3]
    torch.testing.assert_close(out.values[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", list(SMALL))
def test_what_asks_for_more_points_than_there_are_is_refused(kind):
    (problem,) = graph_of(kind, points=3).problems
    assert problem.node == "part" and "of a cloud of 3 points" in problem.message


def test_a_cloud_without_points_gives_finite_numbers_and_no_tokens():
    with torch.no_grad():
        out = tower_of("point_transformer")(Ragged(torch.zeros(1, 24, 3), torch.zeros(1, 24, dtype=torch.bool)))
    assert not out.mask.any() and out.values.isfinite().all()


@pytest.mark.parametrize(("variant", "width"), [("ssg", 256), ("msg", 640)])
def test_pointnet2s_published_levels_come_out(variant, width):
    knobs = f", variant: {variant}"
    graph = check(parse(SPEC.format(points=1024, extra=0, kind="pointnet2", knobs=knobs), Path("s.yaml")))
    assert str(graph.values["part"]) == f"tokens [batch, 128, {width}] ragged"
    whole = knobs + ", output: pooled"
    graph = check(parse(SPEC.format(points=1024, extra=0, kind="pointnet2", knobs=whole), Path("s.yaml")))
    assert str(graph.values["part"]) == "embedding [batch, 1024]"


def test_a_ball_without_neighbours_reads_its_centre_alone():
    tower, cloud = tower_of("pointnet2"), torch.eye(3).repeat(8, 1).unsqueeze(0) * torch.arange(1, 25).view(1, -1, 1)
    with torch.no_grad():
        alone = tower.levels[0].scales[0](torch.zeros(1, 1, 1, 3)).amax(2)
        torch.testing.assert_close(tower(cloud * 10), alone.expand(1, 8, -1))


def test_point_maes_published_size_comes_out():
    graph = check(parse(SPEC.format(points=1024, extra=0, kind="point_transformer", knobs=""), Path("s.yaml")))
    tower = compile_graph(graph, device="meta").nodes["part"]
    assert sum(p.numel() for p in tower.blocks.parameters()) == 12 * (12 * 384**2 + 10 * 384)


def test_a_point_mae_encoder_loads_under_its_own_names(tmp_path):
    own = tower_of("point_transformer")
    names = {f"module.MAE_encoder.{key}": x for key, x in own.state_dict().items()}
    published = {
        key: x.unsqueeze(-1).contiguous() if "_conv." in key and x.dim() == 2 else x for key, x in names.items()
    }
    save_file({**published, "module.MAE_decoder.norm.weight": torch.ones(4)}, tmp_path / "mae.safetensors")
    more = ', weights: "file:mae.safetensors", mix: true'
    loaded = compile_graph(graph_of("point_transformer", more, base=tmp_path)).nodes["part"]
    for key, tensor in own.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor)


def test_only_while_it_learns_a_cloud_is_turned_with_its_normals():
    points = torch.randn(5, 40, 7)
    points[..., 3:6] = torch.nn.functional.normalize(points[..., 3:6], dim=-1)
    still = Unsettled("any", True, 0.0, 0.0, normals=True)
    assert torch.equal(still.eval()(points), points)
    moved = still.train()(points)
    torch.testing.assert_close(moved[..., 2], points[..., 2])
    torch.testing.assert_close(moved[..., 6], points[..., 6])
    for part in (slice(0, 3), slice(3, 6)):
        torch.testing.assert_close(moved[..., part].norm(dim=-1), points[..., part].norm(dim=-1))
    along = (moved[..., :3] * moved[..., 3:6]).sum(-1)
    torch.testing.assert_close(along, (points[..., :3] * points[..., 3:6]).sum(-1))
    assert (moved[..., :2] - points[..., :2]).abs().amax((1, 2)).min() > 1e-3


def test_a_stretched_surface_keeps_its_normals_upright():
    plane = torch.randn(1, 30, 3) @ torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0]])  # y = z
    cloud = torch.cat([plane, torch.tensor([0.0, 0.5**0.5, -(0.5**0.5)]).expand(1, 30, 3)], dim=-1)
    moved = Unsettled("quarter", True, 0.5, 0.0, normals=True).train()(cloud)
    places, normal = moved[0, :, :3], moved[0, 0, 3:]
    torch.testing.assert_close(places @ normal, torch.zeros(30), atol=1e-5, rtol=0)
    assert (moved[..., :3] - plane).abs().max() > 1e-3
