"""Image towers of open_clip give open_clip's numbers, with shapes that are known before open_clip is imported."""

import json
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from assembler.check import check
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.spec import parse
from components.encoders.open_clip import OpenClip, _names, tower_of

SPEC = """
assembler: 1
nodes:
  photo: {{type: input.image, size: {size}}}
  eyes: {{type: encoder.open_clip{more}}}
edges: [photo -> eyes]
"""
TEXT = {"context_length": 8, "vocab_size": 20, "width": 8, "heads": 1, "layers": 1}
VIT = {"image_size": 16, "patch_size": 8, "layers": 3, "width": 16, "head_width": 8}
TOWERS = {
    "vit": VIT,
    "late": {**VIT, "final_ln_after_pool": True, "pool_type": "avg"},
    "resnet": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8},
    "trunk": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
}


@pytest.fixture(scope="module", params=list(TOWERS))
def saved(request, tmp_path_factory):
    return of(request.param, tmp_path_factory.mktemp(request.param))


def of(name, folder):
    torch.manual_seed(0)
    model = open_clip.CLIP(12, dict(TOWERS[name]), dict(TEXT)).eval()
    save_file(model.state_dict(), folder / "clip.safetensors")
    config = {"model_cfg": {"embed_dim": 12, "vision_cfg": TOWERS[name], "text_cfg": TEXT}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder, model.visual, TOWERS[name]["image_size"]


def graph_of(base=".", size="[16, 16]", more=', weights: "file:clip.safetensors"'):
    return check(parse(SPEC.format(size=size, more=more), Path(base) / "spec.yaml"))


def given(folder, image, more=""):
    graph = graph_of(folder, list(image.shape[2:]), ', weights: "file:clip.safetensors"' + more)
    with torch.no_grad():
        out = compile_graph(graph).nodes["eyes"](image)
    assert tuple(out.shape[1:]) == graph.values["eyes"].shape[1:]
    return out


def test_the_embedding_and_every_layer_are_open_clips(saved):
    folder, visual, size = saved
    image = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(given(folder, image, ", output: pooled"), visual(image))
        levels = visual.forward_intermediates(image, intermediates_only=True)["image_intermediates"]
    for layer in (0, 1):
        torch.testing.assert_close(given(folder, image, f", layer: {layer}"), levels[layer].flatten(2).transpose(1, 2))
    if isinstance(visual, open_clip.transformer.VisionTransformer):
        norm = torch.nn.Identity() if visual.final_ln_after_pool else visual.ln_post
    else:
        norm = getattr(getattr(visual, "trunk", None), "norm", torch.nn.Identity())
    with torch.no_grad():
        torch.testing.assert_close(given(folder, image), norm(levels[-1].flatten(2).transpose(1, 2)))


def test_tokens_are_those_that_open_clip_puts_out(tmp_path):
    folder, visual, _ = of("vit", tmp_path)
    image = torch.randn(2, 3, 16, 16)
    visual.output_tokens = True
    with torch.no_grad():
        torch.testing.assert_close(given(folder, image), visual(image)[1])
        whole = given(folder, image, ", prefix: true")
    assert whole.shape[1] == 5
    torch.testing.assert_close(whole[:, 1:], given(folder, image))
    assert given(folder, image, ", mix: true").shape == (2, 4, 16)


def test_positions_are_resized_to_another_picture_as_open_clip_does(tmp_path):
    folder, visual, _ = of("vit", tmp_path)
    wide = open_clip.CLIP(12, {**VIT, "image_size": (24, 32)}, dict(TEXT)).eval()
    state = {f"visual.{key}": x for key, x in visual.state_dict().items()}
    open_clip.model.resize_pos_embed(state, wide)
    wide.visual.load_state_dict({key.removeprefix("visual."): x for key, x in state.items()})
    image = torch.randn(2, 3, 24, 32)
    with torch.no_grad():
        torch.testing.assert_close(given(folder, image, ", output: pooled"), wide.visual(image))


@pytest.mark.parametrize(
    ("name", "tag"), [("ViT-B-32-quickgelu", "openai"), ("ViT-B-16-SigLIP", "webli"), ("MobileCLIP-B", "datacompdr")]
)
def test_pixels_are_scaled_as_the_published_weights_want(name, tag):
    theirs = open_clip.get_pretrained_cfg(name, tag)
    part = OpenClip(model=name)
    ours = part.processor(graph_of(size="[224, 224]", more=f", model: {name}").parts["photo"], Path("."))
    assert (ours.mean, ours.std, ours.interpolation) == (theirs["mean"], theirs["std"], theirs["interpolation"])


def test_a_config_beside_the_weights_scales_pixels(tmp_path):
    folder, _, _ = of("vit", tmp_path)
    file = folder / "open_clip_config.json"
    pixels = {"mean": [0.1] * 3, "std": [0.2] * 3, "interpolation": "bilinear"}
    file.write_text(json.dumps({**json.loads(file.read_text()), "preprocess_cfg": pixels}))
    assert graph_of(folder).processor("photo").mean == (0.1,) * 3


def test_every_model_that_is_open_clips_own_has_a_known_shape():
    known = 0
    for file in _names().values():
        vision = json.loads(file.read_text())["vision_cfg"]
        if "timm_model_name" not in vision and not vision.get("attentional_pool"):
            tower, known = tower_of(vision), known + 1
            assert tower.size[0] % tower.patch[0] == 0 and tower.levels[-1][0] > 0
    assert known > 50


@pytest.mark.parametrize(
    ("size", "more", "sentence"),
    [
        ("[224, 224]", ", model: VIT-B-32", "ViT-B-32"),
        ("[224, 224]", "", "name a `model`"),
        ("[200, 224]", ", model: ViT-B-32", "patches of 32 x 32"),
        ("[224, 256]", ", model: RN50", "sees 224 x 224"),
        ("[224, 224]", ", model: RN50, mix: true", "`mix` is for vision transformers"),
        ("[224, 224]", ", model: ViT-B-32, layer: 12", "layers 0 to 11"),
        ("[224, 224]", ", model: ViT-B-32, layer: 1, output: pooled", "leave `layer` out"),
        ("[224, 224]", ", config: {embed_dim: 3}", "no `vision_cfg`"),
    ],
)
def test_what_does_not_fit_is_refused(size, more, sentence):
    assert sentence in graph_of(size=size, more=more).problems[0].message


def test_weights_of_another_tower_are_refused(tmp_path):
    folder, _, _ = of("vit", tmp_path)
    with pytest.raises(AssemblerError, match="do not belong"):
        other = {"embed_dim": 12, "vision_cfg": {**VIT, "width": 24}}
        compile_graph(graph_of(folder, more=f', weights: "file:clip.safetensors", config: {json.dumps(other)}'))


def test_checking_a_spec_imports_neither_open_clip_nor_torch():
    code = "import sys; from pathlib import Path; from assembler.check import check; from assembler.spec import parse\n"
    text = SPEC.format(size="[224, 224]", more=", model: ViT-B-32")
    code += f"assert not check(parse({text!r}, Path('s.yaml'))).problems; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
