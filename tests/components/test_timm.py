"""The image encoder gives timm's features, with shapes that are known before torch is imported."""

from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from assembler.check import check
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.spec import parse
from components.encoders._timm import facts
from components.encoders.timm import TimmEncoder, table

SPEC = """
assembler: 1
nodes:
  photo: {{type: input.image, size: [{height}, {width}], channels: {channels}}}
  eyes: {{type: encoder.timm, model: {model}{more}}}
edges: [photo -> eyes]
"""


def graph_of(model, height=64, width=64, channels=3, more="", base="."):
    text = SPEC.format(model=model, height=height, width=width, channels=channels, more=more)
    return check(parse(text, Path(base) / "spec.yaml"))


@settings(max_examples=25, deadline=None)
@given(
    model=st.sampled_from(["test_resnet", "test_efficientnet", "test_convnext", "test_vit", "mobilenetv2_100"]),
    sides=st.tuples(st.integers(2, 5), st.integers(2, 5)),
    odd=st.integers(0, 15),
    channels=st.sampled_from([1, 3]),
    layer=st.sampled_from([None, 0, -1, -2]),
)
def test_the_shape_rule_tells_the_shape_of_the_tokens(model, sides, odd, channels, layer):
    fixed = table()[model]["fixed"]
    height, width = (32 * side + (0 if fixed else odd) for side in sides)
    more = "" if layer is None else f", layer: {layer}"
    graph = graph_of(model, height, width, channels, more)
    tokens = graph.values["eyes"]
    tower = compile_graph(graph).nodes["eyes"]
    with torch.no_grad():
        assert tower(torch.randn(2, channels, height, width)).shape == (2, tokens["tokens"], tokens["width"])


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "resnet18", "vit_base_patch16_224", "mobilenetv2_100"])
def test_the_shipped_facts_are_what_timm_says(name):
    assert facts(name) == table()[name]


def test_pooled_features_are_timms_own():
    graph = graph_of("test_vit", 160, 160, more=", output: pooled, prefix: true")
    tower = compile_graph(graph).nodes["eyes"]
    image = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        theirs = tower.tower.forward_head(tower.tower.forward_features(image), pre_logits=True)
        assert torch.equal(tower(image), theirs) and theirs.shape[1] == graph.values["eyes"]["width"]


def test_a_saved_timm_model_loads_bit_exact_and_its_classifier_is_left_out(tmp_path):
    import timm

    model = timm.create_model("test_vit", num_classes=10)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    graph = graph_of("test_vit", 160, 160, more=', weights: "file:model.safetensors"', base=tmp_path)
    tower = compile_graph(graph).nodes["eyes"]
    for key, tensor in tower.tower.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key])


def test_weights_of_another_model_are_refused_with_the_first_tensor_that_is_wrong(tmp_path):
    import timm

    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "other.safetensors")
    graph = graph_of("test_vit", 160, 160, more=', weights: "file:other.safetensors"', base=tmp_path)
    with pytest.raises(AssemblerError, match=r"test_vit from file:other\.safetensors: the file lacks"):
        compile_graph(graph)


def test_an_unknown_model_is_refused_with_the_nearest_name():
    (problem,) = graph_of("mobilnetv2_100").problems
    assert problem.node == "eyes" and "mobilenetv2_100" in problem.message


@pytest.mark.parametrize(
    ("more", "sentence"),
    [(", layer: 40", "`layer` is 40"), (", output: pooled, layer: 1", "leave `layer` out")],
)
def test_a_layer_that_is_not_there_is_refused(more, sentence):
    (problem,) = graph_of("test_vit", 160, 160, more=more).problems
    assert sentence in problem.message


def test_an_image_that_patches_do_not_fill_is_refused():
    (problem,) = graph_of("vit_base_patch16_224", 230, 224).problems
    assert "16 x 16" in problem.message


def test_grey_images_use_one_channel_of_the_statistics():
    part = TimmEncoder(model="mobilenetv2_100")
    graph = graph_of("mobilenetv2_100", channels=1)
    assert len(part.processor(graph.parts["photo"], graph.base).mean) == 1


def test_logits_are_those_of_timms_classifier(tmp_path):
    torch.manual_seed(0)
    model, image = timm.create_model("test_resnet", num_classes=7).eval(), torch.randn(2, 3, 64, 64)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    more = ', output: logits, classes: 7, weights: "file:model.safetensors"'
    graph = graph_of("test_resnet", more=more, base=tmp_path)
    with torch.no_grad():
        assert torch.equal(compile_graph(graph).nodes["eyes"](image), model(image))
    assert graph_of("test_resnet", more=", output: logits").values["eyes"]["width"] == 1000
    problems = graph_of("vit_small_patch14_dinov2", 28, 28, more=", output: logits").problems
    assert "no classifier of its own" in problems[0].message
