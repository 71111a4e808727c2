"""Contrast, token alignment and CTC against what their formulas say."""

import math
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

from assembler.ragged import Ragged
from components.heads._heads import CtcHead
from components.objectives._objectives import ContrastiveLoss, TokenAlignmentLoss


def test_clips_loss_is_the_mean_of_both_directions_of_a_softmax():
    torch.manual_seed(0)
    part = ContrastiveLoss(6, 6, None, "clip")
    x, y = torch.randn(5, 6), torch.randn(5, 6)
    likeness = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T / 0.07
    rows = [-likeness[i].log_softmax(-1)[i] - likeness[:, i].log_softmax(-1)[i] for i in range(5)]
    torch.testing.assert_close(part(x, y)["loss"], torch.stack(rows).mean() / 2)


def test_siglips_loss_is_a_sigmoid_for_every_pair():
    torch.manual_seed(0)
    part = ContrastiveLoss(6, 4, 3, "siglip")
    x, y = torch.randn(5, 6), torch.randn(5, 4)
    u, v = F.normalize(part.first(x), dim=-1), F.normalize(part.second(y), dim=-1)
    total = torch.zeros(())
    for i in range(5):
        for j in range(5):
            z = 1.0 if i == j else -1.0
            total = total + torch.log1p(torch.exp(-z * (10 * (u[i] @ v[j]) - 10)))
    torch.testing.assert_close(part(x, y)["loss"], total / 5)


def test_contrast_pulls_pairs_together_and_leaves_padding_out():
    torch.manual_seed(0)
    part = ContrastiveLoss(6, 6, 4, "clip")
    x, y = torch.randn(8, 6), torch.randn(8, 3, 6)
    mask = torch.tensor([[True, True, False]] * 8)
    other = torch.where(mask.unsqueeze(-1), y, 9.0)
    assert torch.equal(part(x, Ragged(y, mask))["loss"], part(x, Ragged(other, mask))["loss"])
    optimizer = torch.optim.Adam(part.parameters(), lr=0.05)
    first = part(x, Ragged(y, mask))["loss"].item()
    for _ in range(60):
        optimizer.zero_grad()
        part(x, Ragged(y, mask))["loss"].backward()
        optimizer.step()
    assert part(x, Ragged(y, mask))["loss"].item() < 0.3 * first


def test_a_patch_is_pulled_to_the_llms_embedding_of_the_word_it_shows():
    torch.manual_seed(0)
    table = nn.Embedding(10, 5)
    part = TokenAlignmentLoss(temperature=0.1, threshold=0.5, keep=1, sharpness=0.1).eval()
    part.words_of(SimpleNamespace(lm=SimpleNamespace(get_input_embeddings=lambda: table)))
    words = torch.eye(3)  # three words as the text encoder sees them
    ids = torch.tensor([[1, -1], [2, 3], [4, -1]])  # and as tokens of the LLM
    patches = torch.stack([words[2], words[0], torch.full((3,), -1.0)])[None]  # the last shows none of them
    tokens = torch.randn(1, 3, 5, requires_grad=True)
    embedded = torch.stack([table.weight[1], table.weight[2:4].mean(0), table.weight[4]]).detach()
    p, e = F.normalize(tokens[0], dim=-1), F.normalize(embedded, dim=-1)
    likeness = p @ e.T / 0.1
    likeness[:, 1] = -torch.inf  # no patch of the batch shows the second word
    wanted = -(likeness[0].log_softmax(-1)[2] + likeness[1].log_softmax(-1)[0]) / 2
    loss = part(ids, tokens, patches, words)["loss"]
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert tokens.grad[0, :2].any() and not tokens.grad[0, 2].any()
    assert table.weight.grad is None


def test_ctc_is_torchs_over_the_real_tokens_alone():
    torch.manual_seed(0)
    head = CtcHead(4, 6)
    x, mask = torch.randn(2, 7, 4), torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    transcript = torch.tensor([[1, 2, 2], [3, -1, -1]])
    out = head(transcript, Ragged(x, mask))
    steps = head.linear(x).log_softmax(-1).transpose(0, 1)
    wanted = []
    for i, length, row in [(0, 7, torch.tensor([1, 2, 2])), (1, 4, torch.tensor([3]))]:
        sizes = torch.tensor([length]), torch.tensor([len(row)])
        wanted.append(F.ctc_loss(steps[:length, i : i + 1], row[None], *sizes, reduction="sum"))
    other = head(transcript, Ragged(torch.where(mask.unsqueeze(-1), x, 5.0), mask))
    assert torch.equal(out["loss"], other["loss"])
    per_sample = torch.stack([wanted[0] / 3, wanted[1] / 1]).mean()
    assert math.isclose(out["loss"].item(), per_sample.item(), rel_tol=1e-5)
