"""Long short-term memory and its variants: peepholes, coupled gates, layer normalisation, projection."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from unrolled.cells.base import Cell, Gate, State
from unrolled.errors import ConfigurationError


class GatedCell(Cell):
    """The base class of LSTMs: two states, and a forget gate whose bias can be set at construction."""

    state_names = ("h", "c")
    gates: tuple[Gate, ...] = (Gate("i", keeps=-1), Gate("f", keeps=1), Gate("g", "tanh"), Gate("o"))
    forget_bias: float | None
    bias: Tensor | None

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.forget_bias is None:
            return
        part = self.gate_bias("f")
        if part is None:
            raise ConfigurationError(f"{type(self).__name__}: forget_bias needs bias=True")
        with torch.no_grad():
            part.fill_(self.forget_bias)


class LSTMCell(GatedCell):
    """`i, f, g, o = σ, σ, tanh, σ(W_ih x + W_hh h' + b)`, `c = f∘c' + i∘g`, `h = o∘tanh(c)`.

    `proj_size=P` projects the output to P units, `h = W_hr (o∘tanh(c))` (Sak et al. 2014).
    `forget_bias=1.0` starts with an open forget gate. None draws this bias like the other parameters.

    Parameters: `weight_ih [4H, I]`, `weight_hh [4H, H]`, `bias [4H]` in the order i, f, g, o; with a projection
    `weight_hh [4H, P]` and `weight_hr [P, H]`. States: `h [B, H]` (or `[B, P]`), `c [B, H]`.
    Source: Hochreiter & Schmidhuber 1997; the forget gate is from Gers et al. 2000.
    """

    gate_order = ("f", "i", "o")
    weight_ih: Tensor
    weight_hh: Tensor
    weight_hr: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        forget_bias: float | None = None,
        proj_size: int = 0,
        **options,
    ) -> None:
        super().__init__(input_size, hidden_size)
        if not 0 <= proj_size < hidden_size:
            raise ConfigurationError(f"proj_size must be from 0 to hidden_size - 1, got {proj_size}")
        self.forget_bias = forget_bias
        self.proj_size = proj_size
        shapes = {
            "weight_ih": (4 * hidden_size, input_size),
            "weight_hh": (4 * hidden_size, proj_size or hidden_size),
            "bias": (4 * hidden_size,),
        }
        if proj_size:
            shapes["weight_hr"] = (proj_size, hidden_size)
        self.add_parameters(options, **shapes)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return (self.proj_size or self.hidden_size, self.hidden_size)

    def forward(self, x: Tensor, state: State) -> State:
        h, c = state
        i, f, g, o = (linear(x, self.weight_ih, self.bias) + linear(h, self.weight_hh)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return (linear(h, self.weight_hr) if self.proj_size else h), c


class PeepholeLSTMCell(GatedCell):
    """An LSTM whose gates see the cell state: i and f see the previous `c'`, and o sees the new `c`.

    `i = σ(W_xi x + W_hi h' + W_ci c' + b_i)`, `f` likewise, `g = tanh(W_xg x + W_hg h' + b_g)`, `c = f∘c' + i∘g`,
    `o = σ(W_xo x + W_ho h' + W_co c + b_o)`, `h = o∘tanh(c)`.

    The peepholes are diagonal (`full=False`, Graves 2013) or full matrices (`full=True`, Batra's and Li's decks).
    Parameters: `weight_ih [4H, I]`, `weight_hh [4H, H]`, `bias [4H]` in the order i, f, g, o; `weight_ci`,
    `weight_cf`, `weight_co`, each `[H]` or `[H, H]`. States: `h [B, H]`, `c [B, H]`.
    Source: Gers & Schmidhuber 2000, "Recurrent nets that time and count".
    """

    weight_ih: Tensor
    weight_hh: Tensor
    weight_ci: Tensor
    weight_cf: Tensor
    weight_co: Tensor

    def __init__(
        self, input_size: int, hidden_size: int, *, full: bool = False, forget_bias: float | None = None, **options
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.full = full
        self.forget_bias = forget_bias
        peephole = (hidden_size, hidden_size) if full else (hidden_size,)
        self.add_parameters(
            options,
            weight_ih=(4 * hidden_size, input_size),
            weight_hh=(4 * hidden_size, hidden_size),
            bias=(4 * hidden_size,),
            weight_ci=peephole,
            weight_cf=peephole,
            weight_co=peephole,
        )

    def forward(self, x: Tensor, state: State) -> State:
        h, c = state
        see = linear if self.full else torch.mul
        i, f, g, o = (linear(x, self.weight_ih, self.bias) + linear(h, self.weight_hh)).chunk(4, -1)
        i = torch.sigmoid(i + see(c, self.weight_ci))
        f = torch.sigmoid(f + see(c, self.weight_cf))
        c = f * c + i * torch.tanh(g)
        o = torch.sigmoid(o + see(c, self.weight_co))
        return o * torch.tanh(c), c

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, full={self.full}"


class CoupledLSTMCell(GatedCell):
    """An LSTM that writes exactly what it forgets: `c = f∘c' + (1-f)∘g`, `h = o∘tanh(c)`.

    `f, g, o = σ, tanh, σ(W_ih x + W_hh h' + b)`.
    Parameters: `weight_ih [3H, I]`, `weight_hh [3H, H]`, `bias [3H]` in the order f, g, o. States: `h`, `c`, `[B, H]`.
    Source: Greff et al. 2015, "LSTM: A Search Space Odyssey" (CIFG).
    """

    gates = (Gate("f", keeps=1), Gate("g", "tanh"), Gate("o"))
    weight_ih: Tensor
    weight_hh: Tensor

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float | None = None, **options) -> None:
        super().__init__(input_size, hidden_size)
        self.forget_bias = forget_bias
        self.add_parameters(
            options,
            weight_ih=(3 * hidden_size, input_size),
            weight_hh=(3 * hidden_size, hidden_size),
            bias=(3 * hidden_size,),
        )

    def forward(self, x: Tensor, state: State) -> State:
        h, c = state
        f, g, o = (linear(x, self.weight_ih, self.bias) + linear(h, self.weight_hh)).chunk(3, -1)
        f = torch.sigmoid(f)
        c = f * c + (1 - f) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class LayerNormLSTMCell(GatedCell):
    """An LSTM with layer norms: `i, f, g, o = σ, σ, tanh, σ(LN(W_ih x) + LN(W_hh h') + b)`, `h = o∘tanh(LN(c))`.

    Parameters: `weight_ih [4H, I]`, `weight_hh [4H, H]`, `bias [4H]` in the order i, f, g, o; the norms' gains
    `gain_ih [4H]`, `gain_hh [4H]`, `gain_c [H]` and shift `bias_c [H]`. States: `h [B, H]`, `c [B, H]`.
    Source: Ba, Kiros & Hinton 2016, "Layer Normalization", eq. 20 to 22.
    """

    gate_order = ("f", "i", "o")
    weight_ih: Tensor
    weight_hh: Tensor
    gain_ih: Tensor
    gain_hh: Tensor
    gain_c: Tensor
    bias_c: Tensor | None

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float | None = None, **options) -> None:
        super().__init__(input_size, hidden_size)
        self.forget_bias = forget_bias
        self.add_parameters(
            options,
            weight_ih=(4 * hidden_size, input_size),
            weight_hh=(4 * hidden_size, hidden_size),
            bias=(4 * hidden_size,),
            gain_ih=(4 * hidden_size,),
            gain_hh=(4 * hidden_size,),
            gain_c=(hidden_size,),
            bias_c=(hidden_size,),
        )

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            for gain in (self.gain_ih, self.gain_hh, self.gain_c):
                gain.fill_(1.0)
            if self.bias_c is not None:
                self.bias_c.zero_()

    def forward(self, x: Tensor, state: State) -> State:
        h, c = state
        four, one = self.gain_ih.shape, self.gain_c.shape
        from_x = layer_norm(linear(x, self.weight_ih), four, self.gain_ih)
        from_h = layer_norm(linear(h, self.weight_hh), four, self.gain_hh, self.bias)
        i, f, g, o = (from_x + from_h).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(layer_norm(c, one, self.gain_c, self.bias_c)), c
