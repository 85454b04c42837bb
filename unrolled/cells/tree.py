"""Cells of recursive nets: the maths of one node of a binary tree."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from unrolled.cells.base import State
from unrolled.errors import ConfigurationError


class TreeCell(nn.Module):
    """A node of a recursive net: `leaf(x) -> state` and `forward(left, right) -> state`. The output is `state[0]`.

    Shapes: `x` is `[B, input_size]`, and every state is `[B, hidden_size]`.
    """

    state_names: ClassVar[tuple[str, ...]] = ("h",)

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        if input_size < 1 or hidden_size < 1:
            raise ConfigurationError(
                f"{type(self).__name__}: input_size ({input_size}) and hidden_size ({hidden_size}) must be at least 1"
            )
        self.input_size, self.hidden_size = input_size, hidden_size

    def add_parameters(self, **shapes: tuple[int, ...]) -> None:
        """Register one parameter for each shape: biases are zero, matrices are from U(-1/√columns, 1/√columns)."""
        for name, shape in shapes.items():
            parameter = nn.Parameter(torch.zeros(shape))
            if len(shape) == 2:
                nn.init.uniform_(parameter, -1 / math.sqrt(shape[1]), 1 / math.sqrt(shape[1]))
            self.register_parameter(name, parameter)

    def leaf(self, x: Tensor) -> State:
        raise NotImplementedError(f"{type(self).__name__} does not define leaf(x)")

    def forward(self, left: State, right: State) -> State:
        raise NotImplementedError(f"{type(self).__name__} does not define forward(left, right)")


class ComposedTreeCell(TreeCell):
    """`h = tanh(W [h_left; h_right] + b)`. For a leaf, `h = tanh(W_x x + b_x)`.

    Parameters: `weight [H, 2H]`, `bias [H]`, `weight_leaf [H, I]`, `bias_leaf [H]`. State: `h [B, H]`.
    Source: Socher et al. 2011, "Parsing Natural Scenes and Natural Language with Recursive Neural Networks".
    """

    weight: Tensor
    bias: Tensor
    weight_leaf: Tensor
    bias_leaf: Tensor

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        size = hidden_size
        self.add_parameters(weight=(size, 2 * size), bias=(size,), weight_leaf=(size, input_size), bias_leaf=(size,))

    def leaf(self, x: Tensor) -> State:
        return (torch.tanh(linear(x, self.weight_leaf, self.bias_leaf)),)

    def forward(self, left: State, right: State) -> State:
        return (torch.tanh(linear(torch.cat([left[0], right[0]], -1), self.weight, self.bias)),)


class TreeLSTMCell(TreeCell):
    """`i, f_l, f_r, o, u = σ, σ, σ, σ, tanh(W [h_l; h_r] + b)`, `c = i∘u + f_l∘c_l + f_r∘c_r`, `h = o∘tanh(c)`.

    For a leaf, `i, o, u = σ, σ, tanh(W_x x + b_x)`, `c = i∘u`, `h = o∘tanh(c)`.
    Parameters: `weight [5H, 2H]`, `bias [5H]` in the order i, f_l, f_r, o, u; `weight_leaf [3H, I]`, `bias_leaf [3H]`
    in the order i, o, u. The forget gates' biases start at 1. States: `h [B, H]`, `c [B, H]`.
    Source: Tai, Socher & Manning 2015, "Improved Semantic Representations From Tree-Structured Long Short-Term Memory
    Networks", eq. 9 to 14 (binary).
    """

    state_names = ("h", "c")
    weight: Tensor
    bias: Tensor
    weight_leaf: Tensor
    bias_leaf: Tensor

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        size = hidden_size
        self.add_parameters(
            weight=(5 * size, 2 * size), bias=(5 * size,), weight_leaf=(3 * size, input_size), bias_leaf=(3 * size,)
        )
        with torch.no_grad():
            self.bias[size : 3 * size] = 1.0

    def leaf(self, x: Tensor) -> State:
        i, o, u = linear(x, self.weight_leaf, self.bias_leaf).chunk(3, -1)
        c = torch.sigmoid(i) * torch.tanh(u)
        return torch.sigmoid(o) * torch.tanh(c), c

    def forward(self, left: State, right: State) -> State:
        (h_left, c_left), (h_right, c_right) = left, right
        gates = linear(torch.cat([h_left, h_right], -1), self.weight, self.bias)
        i, f_left, f_right, o, u = gates.chunk(5, -1)
        c = torch.sigmoid(i) * torch.tanh(u) + torch.sigmoid(f_left) * c_left + torch.sigmoid(f_right) * c_right
        return torch.sigmoid(o) * torch.tanh(c), c
