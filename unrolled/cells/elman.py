"""Vanilla recurrent cells: Elman's cell, and Pascanu's form of it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from unrolled.cells.base import Cell, State
from unrolled.errors import ConfigurationError

NONLINEARITIES = {"tanh": torch.tanh, "relu": torch.relu}


def _nonlinearity(name: str):
    if name not in NONLINEARITIES:
        raise ConfigurationError(f"unknown nonlinearity {name!r}: choose from {', '.join(NONLINEARITIES)}")
    return NONLINEARITIES[name]


class ElmanCell(Cell):
    """`h = f(W_ih x + W_hh h' + b)`, where f is tanh or ReLU.

    Parameters: `weight_ih [H, I]`, `weight_hh [H, H]`, `bias [H]`. State: `h [B, H]`.
    Source: Elman 1990, "Finding Structure in Time"; with ReLU as in Li's gradient demo.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias: Tensor | None

    def __init__(self, input_size: int, hidden_size: int, *, nonlinearity: str = "tanh", **options) -> None:
        super().__init__(input_size, hidden_size)
        self.nonlinearity = nonlinearity
        self._f = _nonlinearity(nonlinearity)
        self.add_parameters(
            options,
            weight_ih=(hidden_size, input_size),
            weight_hh=(hidden_size, hidden_size),
            bias=(hidden_size,),
        )

    def forward(self, x: Tensor, state: State) -> State:
        (h,) = state
        return (self._f(linear(x, self.weight_ih, self.bias) + linear(h, self.weight_hh)),)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, nonlinearity={self.nonlinearity!r}"


class PascanuCell(ElmanCell):
    """`h = W_hh f(h') + W_ih x + b`; the output is `f(h)`.

    The first state is the cell's output, `f(h)`. The second is `h`, the only state that recurs.
    Parameters: `weight_ih [H, I]`, `weight_hh [H, H]`, `bias [H]`. States: `output [B, H]`, `h [B, H]`.
    Source: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", eq. 2.
    """

    state_names = ("output", "h")
    recurring = 1

    def forward(self, x: Tensor, state: State) -> State:
        _, h = state
        h = linear(self._f(h), self.weight_hh) + linear(x, self.weight_ih, self.bias)
        return self._f(h), h
