"""The highway layer: gates without recurrence, between a ResNet and an LSTM."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Highway(nn.Module):
    """`g = σ(W_T x + b_T)`, `y = g∘tanh(W_H x + b_H) + (1-g)∘x`.

    A layer over features, not a recurrent cell: `[..., size] -> [..., size]`. `gate_bias` is the initial bias of the
    transform gate. It is negative so that a new layer passes its input on.
    Source: Srivastava, Greff & Schmidhuber 2015, "Highway Networks", eq. 3.
    """

    def __init__(
        self,
        size: int,
        *,
        gate_bias: float = -1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.gate = nn.Linear(size, size, device=device, dtype=dtype)
        self.transform = nn.Linear(size, size, device=device, dtype=dtype)
        nn.init.constant_(self.gate.bias, gate_bias)

    def forward(self, x: Tensor) -> Tensor:
        g = torch.sigmoid(self.gate(x))
        return g * torch.tanh(self.transform(x)) + (1 - g) * x
