"""Gated recurrent units: with the reset gate before or after the recurrent product, and with layer normalisation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from unrolled.cells.base import Cell, Gate, State


class GRUCell(Cell):
    """`r, z = σ(W_x x + U h' + b)`, `n = tanh(W_n x + U_n (r∘h') + b_n)`, `h = z∘h' + (1-z)∘n`.

    The reset gate acts before the recurrent product. `update_keeps=False` swaps the roles of z and 1-z, as in Batra's
    deck: `h = (1-z)∘h' + z∘n`.

    Parameters: `weight_ih [3H, I]` and `bias [3H]` in the order r, z, n; `weight_hh [2H, H]` for r and z;
    `weight_hn [H, H]`. State: `h [B, H]`.
    Source: Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder".
    """

    weight_ih: Tensor
    weight_hh: Tensor
    weight_hn: Tensor
    bias: Tensor | None

    def __init__(self, input_size: int, hidden_size: int, *, update_keeps: bool = True, **options) -> None:
        super().__init__(input_size, hidden_size)
        self.update_keeps = update_keeps
        self.add_parameters(
            options,
            weight_ih=(3 * hidden_size, input_size),
            weight_hh=(2 * hidden_size, hidden_size),
            weight_hn=(hidden_size, hidden_size),
            bias=(3 * hidden_size,),
        )

    @property
    def gates(self) -> tuple[Gate, ...]:  # type: ignore[override]
        return Gate("r"), Gate("z", keeps=1 if self.update_keeps else -1), Gate("n", "tanh")

    def forward(self, x: Tensor, state: State) -> State:
        (h,) = state
        r_x, z_x, n_x = linear(x, self.weight_ih, self.bias).chunk(3, -1)
        r_h, z_h = linear(h, self.weight_hh).chunk(2, -1)
        r = torch.sigmoid(r_x + r_h)
        z = torch.sigmoid(z_x + z_h)
        n = torch.tanh(n_x + linear(r * h, self.weight_hn))
        return (z * h + (1 - z) * n if self.update_keeps else (1 - z) * h + z * n,)


class GRUResetAfterCell(Cell):
    """`r, z = σ(W_x x + U h' + b)`, `n = tanh(W_n x + b_n + r∘(U_n h' + b_hn))`, `h = z∘h' + (1-z)∘n`.

    The reset gate acts after the recurrent product. This is the form of cuDNN and of `torch.nn.GRU`: one product with
    h' in place of two in series.

    Parameters: `weight_ih [3H, I]`, `weight_hh [3H, H]`, `bias [3H]` in the order r, z, n; `bias_hn [H]`.
    State: `h [B, H]`.
    Source: Kovashka's deck; the first version of Cho et al. 2014 (arXiv 1406.1078v1); cuDNN.
    """

    gates = (Gate("r"), Gate("z", keeps=1), Gate("n", "tanh"))
    weight_ih: Tensor
    weight_hh: Tensor
    bias: Tensor | None
    bias_hn: Tensor | None

    def __init__(self, input_size: int, hidden_size: int, **options) -> None:
        super().__init__(input_size, hidden_size)
        self.add_parameters(
            options,
            weight_ih=(3 * hidden_size, input_size),
            weight_hh=(3 * hidden_size, hidden_size),
            bias=(3 * hidden_size,),
            bias_hn=(hidden_size,),
        )

    def forward(self, x: Tensor, state: State) -> State:
        (h,) = state
        r_x, z_x, n_x = linear(x, self.weight_ih, self.bias).chunk(3, -1)
        r_h, z_h, n_h = linear(h, self.weight_hh).chunk(3, -1)
        if self.bias_hn is not None:
            n_h = n_h + self.bias_hn
        r = torch.sigmoid(r_x + r_h)
        z = torch.sigmoid(z_x + z_h)
        n = torch.tanh(n_x + r * n_h)
        return (z * h + (1 - z) * n,)


class LayerNormGRUCell(Cell):
    """A reset-after GRU with norms: `r, z = σ(LN(W x) + LN(U h') + b)`, `n = tanh(LN(W_n x) + b_n + r∘LN(U_n h'))`.

    Parameters: `weight_ih [3H, I]`, `weight_hh [3H, H]`, `bias [3H]` in the order r, z, n; `bias_hn [H]`; the norms'
    gains `gain_ih [3H]` and `gain_hh [3H]`. r and z share one norm, and n has its own. State: `h [B, H]`.
    Source: Ba, Kiros & Hinton 2016, "Layer Normalization", eq. 25 to 27.
    """

    gates = (Gate("r"), Gate("z", keeps=1), Gate("n", "tanh"))
    weight_ih: Tensor
    weight_hh: Tensor
    gain_ih: Tensor
    gain_hh: Tensor
    bias: Tensor | None
    bias_hn: Tensor | None

    def __init__(self, input_size: int, hidden_size: int, **options) -> None:
        super().__init__(input_size, hidden_size)
        self.add_parameters(
            options,
            weight_ih=(3 * hidden_size, input_size),
            weight_hh=(3 * hidden_size, hidden_size),
            gain_ih=(3 * hidden_size,),
            gain_hh=(3 * hidden_size,),
            bias=(3 * hidden_size,),
            bias_hn=(hidden_size,),
        )

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.gain_ih.fill_(1.0)
            self.gain_hh.fill_(1.0)

    def _normalised(self, product: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        size = self.hidden_size
        gates, candidate = product.split((2 * size, size), -1)
        gates_gain, candidate_gain = gain.split((2 * size, size))
        return layer_norm(gates, (2 * size,), gates_gain), layer_norm(candidate, (size,), candidate_gain)

    def forward(self, x: Tensor, state: State) -> State:
        (h,) = state
        rz_x, n_x = self._normalised(linear(x, self.weight_ih), self.gain_ih)
        rz_h, n_h = self._normalised(linear(h, self.weight_hh), self.gain_hh)
        rz = rz_x + rz_h
        if self.bias is not None and self.bias_hn is not None:
            rz_bias, n_bias = self.bias.split((2 * self.hidden_size, self.hidden_size))
            rz, n_x, n_h = rz + rz_bias, n_x + n_bias, n_h + self.bias_hn
        r, z = torch.sigmoid(rz).chunk(2, -1)
        n = torch.tanh(n_x + r * n_h)
        return (z * h + (1 - z) * n,)
