"""Dropout as in `torch.nn`, with masks that are drawn several times as fast on the CPU.

PyTorch draws a double for every element. 16 bits of a random integer are enough.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unrolled.unroll.versions import is_exporting

_LEVELS = 1 << 16


def dropout(values: Tensor, rate: float) -> Tensor:
    """Set values to zero with probability `rate`, rounded to 1/65,536, and scale the others to the same mean."""
    level = max(1, round(rate * _LEVELS)) if rate else 0
    plain = is_exporting()  # a saved program must run in any process and with any size
    if plain or values.device.type != "cpu" or not 0 < level < _LEVELS:
        return nn.functional.dropout(values, rate)
    count = values.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = draws[:count].view(values.shape) >= level - _LEVELS // 2
    return values * kept.to(values.dtype).mul_(_LEVELS / (_LEVELS - level))


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` that uses the function `dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p) if self.training else input
