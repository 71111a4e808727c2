"""VLSM-Adapter in CLIPSeg, and the masks that it learns by."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from assembler.adapters.book import adapters_of
from assembler.errors import AssemblerError
from components.adapters._vlsm import Block
from components.adapters.vlsm_dense import VlsmDense
from components.adapters.vlsm_shallow import VlsmShallow
from components.encoders.clipseg import ClipSeg
from components.heads._heads import MaskHead
from components.heads.mask import Mask
from tests.conformance.test_matrix import assembled, batch_of


@pytest.fixture
def seg() -> tuple:
    """A small CLIPSeg whose condition is as wide as its text tower, and what it reads."""
    tree, _ = ClipSeg.examples()[0]
    tree["nodes"]["part"]["config"]["projection_dim"] = 16
    graph, assembly = assembled(tree)
    (image, text), tower = assembly.features("part", batch_of(graph, 2)), assembly.nodes["part"].eval()
    return tower, image, text


@torch.no_grad()
def test_it_reads_as_transformers_own_model_does(seg):
    tower, image, (ids, mask) = seg
    tower.model.config.text_config.eos_token_id = 299
    tower.model.clip.text_model.eos_token_id = 299
    ids = torch.where(torch.arange(ids.shape[1]) == 5, 299, ids.clamp(max=298))
    mask = torch.arange(ids.shape[1]).expand_as(ids) <= 5
    own = tower.model(input_ids=ids, pixel_values=image, attention_mask=mask.long()).logits
    torch.testing.assert_close(tower(image, type(seg[2])(ids, mask))[:, 0], own)


@torch.no_grad()
def test_dense_blocks_that_start_at_zero_change_nothing_and_others_do(seg):
    tower, image, text = seg
    bare = tower(image, text)
    for init, same in (("zero", True), ("default", False)):
        VlsmDense(host="seg", size=4, condition=4, init=init).attach(tower, init, seed=0)
        assert torch.equal(tower(image, text), bare) is same
        adapters_of(tower).remove(init)


@torch.no_grad()
def test_shallow_blocks_leave_both_towers_as_they_are(seg):
    tower, image, text = seg
    bare = tower.model.clip.vision_model(image, interpolate_pos_encoding=True).last_hidden_state
    marks = tower(image, text)
    VlsmShallow(host="seg", size=4, condition=4).attach(tower, "tune", seed=0)
    assert not torch.allclose(tower(image, text), marks)
    assert torch.equal(tower.model.clip.vision_model(image, interpolate_pos_encoding=True).last_hidden_state, bare)


@torch.no_grad()
def test_with_the_outer_activation_a_block_only_adds():
    x = torch.randn(50, 6)
    assert (Block(6, 4, "relu", outer=True, zero=False)(x) >= 0).all()
    assert (Block(6, 4, "relu", outer=False, zero=False)(x) < 0).any()


def test_the_loss_is_dice_and_cross_entropy():
    logits, masks = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    head, chances = MaskHead(0, 3, None, (4, 4), 1.5, 1.0), logits.softmax(1)
    dice = [
        1 - (2 * chances[b, k][masks[b] == k].sum() + 1) / (chances[b, k].sum() + (masks[b] == k).sum() + 1)
        for b in range(2)
        for k in range(3)
    ]
    expected = 1.5 * torch.stack(dice).mean() + F.cross_entropy(logits, masks)
    torch.testing.assert_close(head(masks, logits)["loss"], expected)


def test_a_mask_with_another_class_is_refused(seg):
    class Graph:
        def column(self, name: str) -> str:
            return "mask"

    row = {"mask": Image.fromarray(np.full((4, 4), 3, np.uint8))}
    with pytest.raises(AssemblerError, match=r"marks: the column mask holds 3; classes are 0 to 2"):
        Mask(classes=3, size=(4, 4)).collator("marks", Graph())([row])
    assert Mask(classes=4, size=(2, 2)).collator("marks", Graph())([row])["masks"].tolist() == [[[3, 3], [3, 3]]]
