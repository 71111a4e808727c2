"""Videos and crops through image encoders, frame by frame, and the pooling of frames."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assembler.bundle.manifest import ImageProcessor, VideoProcessor
from assembler.check import check
from assembler.compile import compile_graph
from assembler.ragged import Ragged
from assembler.spec import parse
from components.projectors._temporal_pool import TemporalPoolLayer

SPEC = """
assembler: 1
nodes:
  film: {{{film}, size: [32, 32]}}
  eyes: {{type: encoder.timm, model: test_vit{eyes}}}
  pool: {{type: projector.temporal_pool{pool}}}
edges: [film -> eyes, eyes -> pool]
"""
FILM = "type: input.video, frames: 4"


def graph_of(film=FILM, eyes="", pool="", model="test_vit"):
    text = SPEC.format(film=film, eyes=eyes, pool=pool).replace("test_vit", model)
    return check(parse(text, Path("spec.yaml")))


@pytest.mark.parametrize(("eyes", "each"), [("", 4), (", prefix: true", 5), (", output: pooled", 1)])
def test_a_video_is_read_frame_by_frame_and_only_real_frames_give_tokens(eyes, each):
    graph = graph_of(eyes=eyes)
    value, tower = graph.values["eyes"], compile_graph(graph).nodes["eyes"]
    frames, mask = torch.randn(2, 4, 3, 32, 32), torch.tensor([[True] * 4, [True, True, False, False]])
    with torch.no_grad():
        tokens = tower(Ragged(frames, mask))
        alone = tower(frames[1, 1:2])
    assert tuple(tokens.values.shape) == (2, value["tokens"], value["width"]) and value["tokens"] == 4 * each
    assert tokens.mask.sum(1).tolist() == [4 * each, 2 * each] and value.fact("frames") == 4
    assert value.fact("grid") == ((2, 2) if eyes == "" else None)
    torch.testing.assert_close(tokens.values[1, each : 2 * each], alone.view(each, -1), rtol=1e-4, atol=1e-5)


def test_frames_and_crops_are_scaled_as_pictures_are():
    graph, crops = graph_of(), graph_of("type: input.image, crops: 3")
    picture = graph_of("type: input.image").processor("film")
    assert isinstance(picture, ImageProcessor)
    assert graph.processor("film") == VideoProcessor(frames=4, picture=picture)
    assert crops.processor("film") == picture.model_copy(update={"crops": 3})
    assert crops.values["eyes"].fact("frames") == 4 and crops.values["eyes"].ragged


def test_the_mix_starts_as_the_mean_of_timms_blocks():
    tower = compile_graph(graph_of(eyes=", mix: true, prefix: true")).nodes["eyes"]
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        end, levels = tower.tower.forward_intermediates(image, output_fmt="NLC", return_prefix_tokens=True)
        blocks = [torch.cat([front, grid], 1) for grid, front in levels[:-1]]
        torch.testing.assert_close(tower(image), torch.stack([*blocks, end]).mean(0))


def test_a_mix_over_stages_of_several_sizes_is_refused():
    (problem,) = graph_of(eyes=", mix: true", model="test_resnet").problems
    assert "not all of one size" in problem.message


@pytest.mark.parametrize(
    ("film", "pool", "sentence"),
    [
        ("type: input.image", "", "tokens are of no video"),
        (FILM, ", frames: 3", "does not divide the 4"),
    ],
)
def test_what_has_no_frames_to_pool_is_refused(film, pool, sentence):
    (problem,) = graph_of(film, pool=pool).problems
    assert problem.node == "pool" and sentence in problem.message


@settings(max_examples=40, deadline=None)
@given(
    how=st.sampled_from(["mean", "max", "attention"]),
    left=st.integers(1, 3),
    each=st.integers(1, 3),
    places=st.integers(1, 3),
    real=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_pooling_sees_real_frames_alone_and_in_any_order(how, left, each, places, real, seed):
    torch.manual_seed(seed)
    layer = TemporalPoolLayer(4, left * each, left, how)
    if how == "attention":
        torch.nn.init.normal_(layer.query)
    x, real = torch.randn(1, left * each, places, 4), min(real, left * each)
    mask = (torch.arange(left * each) < real).view(1, -1, 1).expand(1, -1, places)
    out = layer(Ragged(x.flatten(1, 2), mask.flatten(1)))
    pooled, found = (out.values, out.mask) if left > 1 else (out, torch.tensor([[real > 0] * places]))
    assert pooled.shape == (1, left * places, 4)
    for index in range(left):
        own = x[:, index * each : min(real, (index + 1) * each)]
        here = slice(index * places, (index + 1) * places)
        assert found[0, here].tolist() == [own.shape[1] > 0] * places
        if own.shape[1]:
            alone = TemporalPoolLayer(4, own.shape[1], 1, how)
            alone.load_state_dict(layer.state_dict())
            torch.testing.assert_close(pooled[:, here], alone(own.flip(1).flatten(1, 2)))
        else:
            assert not pooled[:, here].any()


def test_attention_over_frames_starts_as_their_mean():
    x = torch.randn(2, 6, 4)
    torch.testing.assert_close(TemporalPoolLayer(4, 3, 1, "attention")(x), TemporalPoolLayer(4, 3, 1, "mean")(x))
