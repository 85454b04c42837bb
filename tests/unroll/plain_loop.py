"""A module of two products, the loop that a user would write over it, and what is said of it."""

import warnings

import torch
from torch import nn

from unrolled.errors import FallbackWarning
from unrolled.unroll import unroll

X, H = torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(3, 5)


class Two(nn.Module):
    """Two products, and a function of the module, the input and the state."""

    def __init__(self, function=None):
        super().__init__()
        self.i, self.h, self.function = nn.Linear(4, 5), nn.Linear(5, 5), function

    def mixed(self, x, h):
        return torch.tanh(self.i(x) + self.h(h))

    def forward(self, x, h):
        return self.function(self, x, h)


def loop(cell, x=X, state=H):
    """As a user would write it."""
    outputs = []
    for t in range(len(x)):
        made = cell(x[t], state)
        output, state = (made, made) if isinstance(made, torch.Tensor) else made
        outputs.append(output)
    return torch.stack(outputs), state


def agree(cell, x=X, state=H):
    torch.testing.assert_close(unroll(cell, x, state)[0], loop(cell, x, state)[0])


def said(cell, x=X, state=H):
    """What is said of a cell at its first call, one sentence or none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FallbackWarning)
        unroll(cell, x, state)[0].sum().backward()
    texts = [str(each.message) for each in caught if each.category is FallbackWarning]
    assert len(texts) <= 1
    return texts[0] if texts else ""
