"""The joining projectors put the right tokens together, and refuse a grid they cannot cut."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assembler.part import WireError
from assembler.values import value
from components.projectors._layers import FrameStackLayer, PixelShuffleLayer
from components.projectors.frame_stack import FrameStack
from components.projectors.pixel_shuffle import PixelShuffle


@settings(deadline=None)
@given(tokens=st.integers(1, 23), stack=st.integers(1, 7))
def test_a_stack_is_its_tokens_side_by_side_and_zeros_where_there_are_none(tokens, stack):
    layer = FrameStackLayer(3, 5, stack)
    x = torch.randn(2, tokens, 3)
    out = layer(x)
    rule = FrameStack(stack=stack, width=5).shape({"in": value("tokens", tokens=tokens, width=3)}, None, Path())
    assert out.shape == (2, rule["tokens"], 5)
    padded = torch.cat([x, torch.zeros(2, stack, 3)], dim=1)
    for j in range(rule["tokens"]):
        joined = torch.cat([padded[:, stack * j + i] for i in range(stack)], dim=-1)
        torch.testing.assert_close(out[:, j], layer.linear(joined))
    assert out.isfinite().all()


@settings(deadline=None)
@given(blocks=st.integers(1, 4), ratio=st.integers(1, 3))
def test_a_square_of_the_grid_becomes_one_token(blocks, ratio):
    side = blocks * ratio
    layer = PixelShuffleLayer(2, 4, ratio, side, side)
    grid = torch.randn(1, side, side, 2)
    out = layer(grid.flatten(1, 2)).unflatten(1, (blocks, blocks))
    for row in range(blocks):
        for column in range(blocks):
            square = grid[:, row * ratio : (row + 1) * ratio, column * ratio : (column + 1) * ratio]
            torch.testing.assert_close(out[:, row, column], layer.linear(square.flatten(1)))
    assert out.isfinite().all()


@pytest.mark.parametrize(("tokens", "sentence"), [(50, "no square grid"), (49, "does not divide the grid's side of 7")])
def test_a_grid_that_cannot_be_cut_is_refused(tokens, sentence):
    with pytest.raises(WireError, match=sentence):
        PixelShuffle().shape({"in": value("tokens", tokens=tokens, width=8)}, 16, Path())
