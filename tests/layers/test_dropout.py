"""Dropout: its rate, its mean, its gradient, its edges."""

import pytest
import torch

from unrolled.layers.dropout import Dropout, dropout


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rate_mean_and_gradient(rate, dtype):
    torch.manual_seed(1)
    x = torch.ones(401, 503, dtype=dtype, requires_grad=True)
    y = dropout(x, rate)
    count = x.numel()
    assert abs((y == 0).double().mean().item() - rate) < 5 * (rate * (1 - rate) / count) ** 0.5 + 1e-5
    assert y[y != 0].unique().numel() == 1
    assert abs(y[y != 0][0].item() - 1 / (1 - rate)) < 1e-3
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, y.detach())


def test_draws_are_independent_and_follow_the_seed():
    torch.manual_seed(2)
    first = dropout(torch.ones(1000, 1000), 0.5) != 0
    neighbours = (first[:, 1:] == first[:, :-1]).double().mean()
    assert abs(neighbours - 0.5) < 0.005
    torch.manual_seed(2)
    assert torch.equal(dropout(torch.ones(1000, 1000), 0.5) != 0, first)


def test_edges():
    x = torch.randn(7, 3)
    assert dropout(x, 0.0) is x or torch.equal(dropout(x, 0.0), x)
    assert not dropout(x, 1.0).any()
    assert (dropout(x, 1e-9) != 0).any()
    assert dropout(torch.empty(0, 3), 0.5).shape == (0, 3)
    layer = Dropout(0.5).eval()
    assert layer(x) is x
    assert "p=0.5" in repr(layer)
