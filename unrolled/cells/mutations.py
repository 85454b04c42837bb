"""The three cells that Jozefowicz, Zaremba & Sutskever found by mutation.

Source: "An Empirical Exploration of Recurrent Network Architectures", 2015, section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from unrolled.cells.base import Cell, Gate, State

_GATES = (Gate("z", keeps=-1, bias="bias_z"), Gate("r", bias="bias_r"), Gate("h", "tanh", bias="bias_h"))


class MUT1Cell(Cell):
    """`z = σ(W_xz x + b_z)`, `r = σ(W_xr x + W_hr h' + b_r)`, `h = tanh(W_hh (r∘h') + tanh(x) + b_h)∘z + h'∘(1-z)`.

    The formula adds the input itself, so `input_size` must equal `hidden_size`.
    Parameters: `weight_xz [H, I]`, `weight_xr [H, I]`, `weight_hr [H, H]`, `weight_hh [H, H]`, `bias_z`, `bias_r`,
    `bias_h`, each `[H]`. State: `h [B, H]`. Source: Jozefowicz et al. 2015.
    """

    needs_equal_sizes = True
    gates = _GATES
    weight_xz: Tensor
    weight_xr: Tensor
    weight_hr: Tensor
    weight_hh: Tensor
    bias_z: Tensor | None
    bias_r: Tensor | None
    bias_h: Tensor | None

    def __init__(self, input_size: int, hidden_size: int, **options) -> None:
        super().__init__(input_size, hidden_size)
        square, vector = (hidden_size, hidden_size), (hidden_size,)
        self.add_parameters(
            options,
            weight_xz=square,
            weight_xr=square,
            weight_hr=square,
            weight_hh=square,
            bias_z=vector,
            bias_r=vector,
            bias_h=vector,
        )

    def forward(self, x: Tensor, state: State) -> State:
        (h,) = state
        z = torch.sigmoid(linear(x, self.weight_xz, self.bias_z))
        r = torch.sigmoid(linear(x, self.weight_xr, self.bias_r) + linear(h, self.weight_hr))
        n = torch.tanh(linear(r * h, self.weight_hh, self.bias_h) + torch.tanh(x))
        return (n * z + h * (1 - z),)


class MUT2Cell(Cell):
    """`z = σ(W_xz x + W_hz h' + b_z)`, `r = σ(x + W_hr h' + b_r)`, `h = tanh(W_hh (r∘h') + W_xh x + b_h)∘z + h'∘(1-z)`.

    The reset gate adds the input itself, so `input_size` must equal `hidden_size`.
    Parameters: `weight_xz [H, I]`, `weight_hz [H, H]`, `weight_hr [H, H]`, `weight_hh [H, H]`, `weight_xh [H, I]`,
    `bias_z`, `bias_r`, `bias_h`, each `[H]`. State: `h [B, H]`. Source: Jozefowicz et al. 2015.
    """

    needs_equal_sizes = True
    gates = _GATES
    weight_xz: Tensor
    weight_hz: Tensor
    weight_hr: Tensor
    weight_hh: Tensor
    weight_xh: Tensor
    bias_z: Tensor | None
    bias_r: Tensor | None
    bias_h: Tensor | None

    def __init__(self, input_size: int, hidden_size: int, **options) -> None:
        super().__init__(input_size, hidden_size)
        square, vector = (hidden_size, hidden_size), (hidden_size,)
        self.add_parameters(
            options,
            weight_xz=square,
            weight_hz=square,
            weight_hr=square,
            weight_hh=square,
            weight_xh=square,
            bias_z=vector,
            bias_r=vector,
            bias_h=vector,
        )

    def forward(self, x: Tensor, state: State) -> State:
        (h,) = state
        z = torch.sigmoid(linear(x, self.weight_xz, self.bias_z) + linear(h, self.weight_hz))
        r = torch.sigmoid(x + linear(h, self.weight_hr, self.bias_r))
        n = torch.tanh(linear(r * h, self.weight_hh, self.bias_h) + linear(x, self.weight_xh))
        return (n * z + h * (1 - z),)


class MUT3Cell(Cell):
    """`z = σ(W_xz x + W_hz tanh(h') + b_z)`, `r = σ(W_xr x + W_hr h' + b_r)`,
    `h = tanh(W_hh (r∘h') + W_xh x + b_h)∘z + h'∘(1-z)`.

    Parameters: `weight_xz`, `weight_xr`, `weight_xh`, each `[H, I]`; `weight_hz`, `weight_hr`, `weight_hh`, each
    `[H, H]`; `bias_z`, `bias_r`, `bias_h`, each `[H]`. State: `h [B, H]`. Source: Jozefowicz et al. 2015.
    """

    gates = _GATES
    weight_xz: Tensor
    weight_xr: Tensor
    weight_xh: Tensor
    weight_hz: Tensor
    weight_hr: Tensor
    weight_hh: Tensor
    bias_z: Tensor | None
    bias_r: Tensor | None
    bias_h: Tensor | None

    def __init__(self, input_size: int, hidden_size: int, **options) -> None:
        super().__init__(input_size, hidden_size)
        from_input, square, vector = (hidden_size, input_size), (hidden_size, hidden_size), (hidden_size,)
        self.add_parameters(
            options,
            weight_xz=from_input,
            weight_xr=from_input,
            weight_xh=from_input,
            weight_hz=square,
            weight_hr=square,
            weight_hh=square,
            bias_z=vector,
            bias_r=vector,
            bias_h=vector,
        )

    def forward(self, x: Tensor, state: State) -> State:
        (h,) = state
        z = torch.sigmoid(linear(x, self.weight_xz, self.bias_z) + linear(torch.tanh(h), self.weight_hz))
        r = torch.sigmoid(linear(x, self.weight_xr, self.bias_r) + linear(h, self.weight_hr))
        n = torch.tanh(linear(r * h, self.weight_hh, self.bias_h) + linear(x, self.weight_xh))
        return (n * z + h * (1 - z),)
