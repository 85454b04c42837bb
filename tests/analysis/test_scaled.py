"""Gradients through random nets of a chosen radius decay and grow as the singular values say."""

import pytest
import torch

from unrolled.analysis.scaled import carry_back, clip_norm, scale_radius


@pytest.mark.parametrize(("radius", "nonlinearity"), [(0.5, "tanh"), (0.9, "tanh"), (0.5, "relu"), (2.0, "relu")])
def test_the_rate_is_that_of_the_jacobians_singular_values(radius, nonlinearity):
    run = carry_back(radius, nonlinearity, steps=100)
    assert run.rate == pytest.approx(run.expected, rel=0.05)
    assert run.rate <= run.largest_singular_value


def test_where_tanh_is_linear_the_rate_is_the_radius():
    assert carry_back(0.5, "tanh", steps=200).rate == pytest.approx(0.5, rel=0.01)


def test_growth_and_decay():
    assert carry_back(2, "relu").norms[-1] > 1e3
    assert carry_back(0.9, "relu").norms[-1] < 1e-6
    assert carry_back(2, "relu", clip_norm_at=1).norms.max() <= 1 + 1e-9
    assert carry_back(2, "relu", clip_value_at=0.5, hidden_size=16).norms[1:].max() <= 0.5 * 4 + 1e-9


def test_scaling_and_clipping():
    weight = scale_radius(torch.randn(20, 20, dtype=torch.float64), 1.1)
    assert torch.linalg.eigvals(weight).abs().max().item() == pytest.approx(1.1)
    assert torch.allclose(clip_norm(torch.tensor([3.0, 4.0]), 1), torch.tensor([0.6, 0.8]))
    assert torch.equal(clip_norm(torch.tensor([0.3, 0.4]), 1), torch.tensor([0.3, 0.4]))
