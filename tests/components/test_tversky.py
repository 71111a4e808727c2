"""The Tversky projection is its formula, is not symmetric, and separates what no linear layer can."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.projectors._tversky import TverskyLayer


def likeness_by_hand(layer: TverskyLayer, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """One object and one prototype, feature by feature, as the docstring says."""
    both = own_a = own_b = torch.tensor(0.0)
    common = {
        "product": lambda p, q: p * q,
        "min": torch.minimum,
        "max": torch.maximum,
        "mean": lambda p, q: (p + q) / 2,
        "gmean": lambda p, q: (p * q).sqrt(),
        "softmin": lambda p, q: (p * torch.exp(-p) + q * torch.exp(-q)) / (torch.exp(-p) + torch.exp(-q)),
    }[layer.intersection]
    for p, q in zip(a, b, strict=True):
        if p > 0 and q > 0:
            both = both + common(p, q)
            if layer.difference == "substractmatch":
                own_a, own_b = own_a + (p - q).relu(), own_b + (q - p).relu()
        elif p > 0:
            own_a = own_a + p
        elif q > 0:
            own_b = own_b + q
    if layer.form == "ratio":
        return both / (both + layer.alpha * own_a + layer.beta * own_b + 1)
    return layer.theta * both - layer.alpha * own_a - layer.beta * own_b


@settings(deadline=None, max_examples=60)
@given(
    intersection=st.sampled_from(["product", "min", "max", "mean", "gmean", "softmin"]),
    difference=st.sampled_from(["ignorematch", "substractmatch"]),
    form=st.sampled_from(["contrast", "ratio"]),
    seed=st.integers(0, 999),
)
def test_feature_by_feature_it_is_the_formula(intersection, difference, form, seed):
    torch.manual_seed(seed)
    layer = TverskyLayer(3, 4, 5, intersection, difference, "feature", form)
    a, b = torch.randn(2, 5), torch.randn(4, 5)
    with torch.no_grad():
        got = layer.likeness(a, b)
        for i in range(2):
            for c in range(4):
                torch.testing.assert_close(got[i, c], likeness_by_hand(layer, a[i], b[c]), rtol=1e-4, atol=1e-5)


@settings(deadline=None)
@given(seed=st.integers(0, 999))
def test_sums_first_is_the_same_where_the_order_does_not_matter(seed):
    torch.manual_seed(seed)
    a, b = torch.randn(2, 5), torch.randn(4, 5)
    for intersection in ("product", "mean"):
        layers = [TverskyLayer(3, 4, 5, intersection, "ignorematch", by, "contrast") for by in ("sum", "feature")]
        torch.testing.assert_close(layers[0].likeness(a, b), layers[1].likeness(a, b))


@settings(deadline=None)
@given(alpha=st.floats(0, 2), beta=st.floats(0, 2), seed=st.integers(0, 999))
def test_it_is_symmetric_only_where_alpha_is_beta(alpha, beta, seed):
    torch.manual_seed(seed)
    layer = TverskyLayer(3, 2, 6, "product", "ignorematch", "sum", "contrast")
    torch.nn.init.constant_(layer.alpha, alpha)
    torch.nn.init.constant_(layer.beta, beta)
    a, b = torch.randn(1, 6), torch.randn(1, 6)
    there, back = layer.likeness(a, b), layer.likeness(b, a)
    only_a, only_b = a.relu()[b <= 0].sum(), b.relu()[a <= 0].sum()
    torch.testing.assert_close(there - back, ((beta - alpha) * (only_a - only_b)).view(1, 1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("by", ["feature", "sum"])
def test_gradients_are_numbers_where_a_feature_is_just_absent(by):
    layer = TverskyLayer(3, 2, 4, "gmean", "substractmatch", by, "ratio")
    a = torch.tensor([[0.0, 1.0, -1.0, 0.0]], requires_grad=True)
    layer.likeness(a, torch.tensor([[0.0, 0.0, 1.0, 1.0]])).sum().backward()
    assert a.grad.isfinite().all()


def test_it_learns_xor():
    x = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    y = torch.tensor([0, 1, 1, 0])
    solved = 0
    for seed in range(3):
        torch.manual_seed(seed)
        layer = TverskyLayer(2, 2, 16, "product", "substractmatch", "feature", "contrast")
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
        for _ in range(600):
            loss = torch.nn.functional.cross_entropy(layer(x[:, None])[:, 0], y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        solved += int((layer(x[:, None])[:, 0].argmax(-1) == y).all())
    assert solved >= 2  # a linear layer never does
