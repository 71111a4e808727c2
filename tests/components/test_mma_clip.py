"""Multi-Modal Adapter: a picture and the names of classes attend to each other."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from assembler.errors import AssemblerError
from components.heads._cross_modal_attention import CrossModalHead
from components.heads.cross_modal_attention import CrossModalAttention


def head(blend: float = 0.2, classes: int = 5) -> CrossModalHead:
    torch.manual_seed(0)
    return CrossModalHead(12, classes, 8, 2, blend, 100.0, 0.0)


@torch.no_grad()
def test_without_its_share_the_logits_are_those_of_clip():
    model, x = head(blend=0.0), torch.randn(3, 12)
    clip = 100 * F.normalize(x, dim=-1) @ F.normalize(model.names, dim=-1).T
    torch.testing.assert_close(model(None, x)["logits"], clip, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_it_is_attention_over_names_and_image_under_a_mask_between_the_senses():
    model, image = head(), F.normalize(torch.randn(3, 12), dim=-1)
    names = F.normalize(model.names, dim=-1)
    mha = nn.MultiheadAttention(8, 2, batch_first=True)
    mha.in_proj_weight.copy_(torch.cat([model.q.weight, model.k.weight, model.v.weight]))
    mha.in_proj_bias.copy_(torch.cat([model.q.bias, model.k.bias, model.v.bias]))
    mha.out_proj.load_state_dict(model.o.state_dict())
    tokens = model.down(torch.cat([names.expand(3, -1, -1), image.unsqueeze(1)], 1))
    hidden = torch.ones(6, 6, dtype=torch.bool)
    hidden[:5, 5] = hidden[5, :5] = False
    out = model.up(mha(tokens, tokens, tokens, attn_mask=hidden, need_weights=False)[0])
    seen, read = model.adapted(image, names)
    torch.testing.assert_close(seen, out[:, 5])
    torch.testing.assert_close(read.expand(-1, 5, -1), out[:, :5])


@torch.no_grad()
def test_a_picture_depends_on_no_other_and_the_order_of_the_classes_on_nothing():
    model, x = head(), torch.randn(3, 12)
    logits = model(None, x)["logits"]
    torch.testing.assert_close(model(None, x[:1])["logits"], logits[:1])
    order = torch.randperm(5)
    model.names = model.names[order]
    torch.testing.assert_close(model(None, x)["logits"], logits[:, order])


def test_a_few_pictures_of_some_classes_are_learned_and_the_others_do_not_suffer():
    torch.manual_seed(0)
    model = head(classes=8)
    turn = torch.linalg.qr(torch.randn(12, 12))[0]

    def pictures(classes: torch.Tensor) -> torch.Tensor:
        return F.normalize(model.names, dim=-1)[classes] + 0.25 * torch.randn(len(classes), 12) @ turn

    seen, unseen = torch.arange(4).repeat(16), torch.arange(4, 8).repeat(32)
    x, others = pictures(seen), pictures(unseen)

    def right() -> float:
        with torch.no_grad():
            return (model(None, others)["logits"].argmax(-1) == unseen).float().mean().item()

    model.blend = 0.0
    bare = right()
    model.blend = 0.2
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for _ in range(40):
        optimizer.zero_grad()
        losses.append(model(seen, x)["loss"])
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    assert right() >= bare - 0.05


def test_the_names_come_from_a_file_that_has_one_for_each_class(tmp_path):
    model, names = head(), torch.randn(5, 12)
    save_file({"embeddings": names}, tmp_path / "names.safetensors")
    part = CrossModalAttention(classes=5, weights="file:names.safetensors")
    part.load(model, tmp_path)
    assert torch.equal(model.names, names)
    with pytest.raises(AssemblerError, match=r"one row a class"):
        part.load(head(classes=4), tmp_path)
