"""Dropout as `torch.nn` has it, with masks that are drawn several times as fast on the CPU.

PyTorch draws a double for every element; 16 of a random integer's bits are enough.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unrolled.unroll.versions import is_exporting

_LEVELS = 1 << 16


def dropout(values: Tensor, rate: float) -> Tensor:
    """Zeros with probability `rate`, to the next of 65,536 levels, and the other values scaled to the same mean."""
    level = max(1, round(rate * _LEVELS)) if rate else 0
    plain = is_exporting()  # a program that is saved is another process's, and of any size
    if plain or values.device.type != "cpu" or not 0 < level < _LEVELS:
        return nn.functional.dropout(values, rate)
    count = values.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = draws[:count].view(values.shape) >= level - _LEVELS // 2
    return values * kept.to(values.dtype).mul_(_LEVELS / (_LEVELS - level))


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` by `dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p) if self.training else input
