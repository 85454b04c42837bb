"""A word detector with a noisy-or over positions, against the formula and its gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrolled.models.word_detector import WordDetector


def detector(features, words, scale=1.0, shift=0.0):
    model = WordDetector(features, words).double()
    with torch.no_grad():
        model.weight.copy_(scale * torch.randn(words, features))
        model.bias.copy_(torch.randn(words) + shift)
    return model


def naive(model, grid):
    """p(w) = 1 - prod_j (1 - sigmoid(theta_w . f_j + b_w)), one word and one position at a time."""
    found = []
    for theta, bias in zip(model.weight.tolist(), model.bias.tolist(), strict=True):
        absent = 1.0
        for features in grid.tolist():
            logit = sum(a * b for a, b in zip(theta, features, strict=True)) + bias
            absent *= 1 - 1 / (1 + math.exp(-logit))
        found.append(1 - absent)
    return found


@given(
    pictures=st.integers(1, 3), positions=st.integers(1, 6), features=st.integers(1, 5), words=st.integers(1, 4),
    shift=st.floats(-6, 3),
)  # fmt: skip
def test_probabilities_and_loss_are_those_of_the_formula(pictures, positions, features, words, shift):
    model = detector(features, words, shift=shift)
    grids = torch.randn(pictures, positions, features, dtype=torch.float64)
    wanted = torch.tensor([naive(model, grid) for grid in grids], dtype=torch.float64)
    torch.testing.assert_close(model.probabilities(grids), wanted, rtol=1e-9, atol=1e-12)
    targets = torch.rand(pictures, words, dtype=torch.float64)
    loss = -(targets * wanted.log() + (1 - targets) * (1 - wanted).log()).sum() / pictures
    torch.testing.assert_close(model.loss(grids, targets), loss, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("shift", [0.0, -8.0, 4.0, -60.0])
def test_gradients(shift):
    model = detector(4, 3, shift=shift)
    grids = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1.0, 0.0, 0.3], [0.0, 1.0, 1.0]], dtype=torch.float64)

    def loss(grids, weight, bias):
        return torch.func.functional_call(Loss(model), {"model.weight": weight, "model.bias": bias}, (grids, targets))

    assert torch.autograd.gradcheck(loss, (grids, model.weight, model.bias))


class Loss(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, grids, targets):
        return self.model.loss(grids, targets)


def test_the_loss_of_what_is_nearly_impossible_or_certain_is_exact():
    model = WordDetector(1, 2)
    grids = torch.tensor([[[0.0], [0.0], [0.0]]])
    with torch.no_grad():
        model.bias.copy_(torch.tensor([-150.0, 150.0]))  # beyond what exp of float32 can hold
    loss = model.loss(grids, torch.tensor([[1.0, 0.0]]))
    assert loss.item() == pytest.approx((150 - math.log(3)) + 3 * 150)
    loss.backward()
    assert model.bias.grad.tolist() == pytest.approx([-1.0, 3.0], rel=1e-5)
    assert torch.isfinite(model.weight.grad).all()


def test_the_prior_is_that_of_a_whole_grid():
    model = WordDetector(6, 4, prior=0.2, positions=9)
    assert model.probabilities(torch.randn(2, 9, 6)).tolist() == [pytest.approx([0.2] * 4, rel=1e-4)] * 2


def test_a_picture_has_a_word_at_least_as_likely_as_each_position():
    model = detector(5, 3)
    grids = torch.randn(4, 7, 5, dtype=torch.float64)
    maps = model.maps(grids)
    assert maps.shape == (4, 7, 3)
    assert (model.probabilities(grids) >= maps.amax(1) - 1e-12).all()
