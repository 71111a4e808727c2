"""Image encoders of transformers give transformers' numbers, from whole folders and with the folder's own pixels."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from assembler.bundle.manifest import ImageProcessor
from assembler.check import check
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.spec import parse

SPEC = """
assembler: 1
nodes:
  photo: {{type: input.image, size: {size}}}
  eyes: {{type: encoder.hf_vision, weights: "file:weights"{more}}}
edges: [photo -> eyes]
"""
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
MLP = {**SMALL, "intermediate_size": 32}
TEXT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
MODELS = {
    "clip": lambda: transformers.CLIPModel(transformers.CLIPConfig(text_config=TEXT, vision_config=MLP)),
    "siglip": lambda: transformers.SiglipModel(transformers.SiglipConfig(text_config=TEXT, vision_config=MLP)),
    "clip_vision": lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**MLP)),
    "siglip_vision": lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**MLP)),
    "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**SMALL)),
    "registers": lambda: transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**SMALL)),
    "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**MLP)),
    "classifier": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**MLP, num_labels=3)),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """name -> (folder above `weights`, the vision model of transformers), each made once."""
    made = {}

    def of(name):
        if name not in made:
            torch.manual_seed(0)
            model, folder = MODELS[name]().eval(), tmp_path_factory.mktemp(name)
            model.save_pretrained(folder / "weights")
            made[name] = folder, getattr(model, "vision_model", getattr(model, "vit", model))
        return made[name]

    return of


def graph_of(folder, size="[16, 16]", more=""):
    return check(parse(SPEC.format(size=size, more=more), Path(folder) / "spec.yaml"))


def given(folder, image, more=""):
    graph = graph_of(folder, list(image.shape[2:]), more)
    with torch.no_grad():
        out = compile_graph(graph).nodes["eyes"](image)
    assert tuple(out.shape[1:]) == graph.values["eyes"].shape[1:]
    return out


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("size", [(16, 16), (24, 32)])
def test_every_layer_is_transformers(name, size, saved):
    folder, model = saved(name)
    image = torch.randn(2, 3, *size)
    wanted = {} if "dino" in type(model).__name__.lower() else {"interpolate_pos_encoding": size != (16, 16)}
    with torch.no_grad():
        theirs = model(image, output_hidden_states=True, **wanted)
    torch.testing.assert_close(given(folder, image, ", prefix: true"), theirs.last_hidden_state)
    torch.testing.assert_close(given(folder, image, ", prefix: true, layer: -2"), theirs.hidden_states[-2])
    patches = (size[0] // 8) * (size[1] // 8)
    torch.testing.assert_close(given(folder, image), theirs.last_hidden_state[:, -patches:])
    mean = torch.stack([*theirs.hidden_states[:-1], theirs.last_hidden_state]).mean(0)
    torch.testing.assert_close(given(folder, image, ", mix: true"), mean[:, -patches:])


@pytest.mark.parametrize("name", ["clip", "siglip", "registers"])
def test_pooled_is_what_transformers_pools(name, saved):
    folder, model = saved(name)
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(given(folder, image, ", output: pooled"), model(image).pooler_output)


def test_pixels_are_scaled_as_the_folder_says(saved):
    folder, _ = saved("vit")
    file = folder / "weights" / "preprocessor_config.json"
    assert graph_of(folder).processor("photo").mean == (0.5,) * 3
    file.write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 1}))
    wanted = ImageProcessor(size=(16, 16), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="lanczos")
    assert graph_of(folder).processor("photo") == wanted
    assert graph_of(folder, more=", mean: [0.7]").processor("photo").mean == (0.7,)
    file.write_text(json.dumps({"do_normalize": False, "resample": 2}))
    found = graph_of(folder).processor("photo")
    assert (found.mean, found.std, found.interpolation) == ((0.0,), (1.0,), "bilinear")
    file.write_text(json.dumps({"rescale_factor": 1 / 127.5}))
    assert any("rescale_factor" in problem.message for problem in graph_of(folder).problems)
    file.unlink()


@pytest.mark.parametrize(
    ("size", "more", "sentence"),
    [
        ("[20, 16]", "", "patches of 8 x 8"),
        ("[16, 16], channels: 1", "", "3 channels"),
        ("[16, 16]", ", layer: 3", "layers 0 to 2"),
        ("[16, 16]", ", layer: 0, output: pooled", "leave `layer` out"),
        ("[16, 16]", ", mean: [0.1, 0.2]", "`mean` has 2 numbers"),
    ],
)
def test_what_does_not_fit_is_refused(size, more, sentence, saved):
    assert sentence in graph_of(saved("vit")[0], size, more).problems[0].message


def test_a_model_of_another_kind_and_weights_of_another_size_are_refused(saved, tmp_path):
    text = SPEC.format(size="[16, 16]", more="").replace('weights: "file:weights"', "config: {model_type: bert}")
    assert "one of clip, siglip" in check(parse(text, Path("spec.yaml"))).problems[0].message
    folder, _ = saved("vit")
    other = tmp_path / "weights"
    other.mkdir()
    (other / "model.safetensors").symlink_to(folder / "weights" / "model.safetensors")
    config = json.loads((folder / "weights" / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    with pytest.raises(AssemblerError, match="mismatched"):
        compile_graph(graph_of(tmp_path))


def test_weights_that_are_not_here_leave_the_shape_open(tmp_path):
    assert str(graph_of(tmp_path).values["eyes"]) == "tokens [batch, ?, ?]"


@pytest.mark.parametrize("name", ["clip_vision", "siglip", "siglip_vision", "registers", "vit"])
@pytest.mark.parametrize("more", ["", "output: pooled", "layer: -2", "mix: true", "mix: true, output: pooled"])
def test_it_holds_what_its_output_reads_and_no_more(name, more, saved):
    eyes = compile_graph(graph_of(saved(name)[0], more=f", {more}" if more else "")).nodes["eyes"]
    eyes(torch.randn(2, 3, 16, 16)).square().sum().backward()
    assert [key for key, parameter in eyes.named_parameters() if parameter.grad is None] == []
