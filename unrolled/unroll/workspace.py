"""Memory that native programs need while they run, kept from call to call: fresh pages cost more than their use."""

from __future__ import annotations

import torch
from torch import Tensor

_MOST = 1 << 26  # bytes that are kept of one dtype, at most
_idle: dict[torch.dtype, list[Tensor]] = {}


def take(size: int, dtype: torch.dtype) -> Tensor:
    """At least `size` elements, of no particular values, that nobody else uses until they are given back."""
    try:
        found = _idle.setdefault(dtype, []).pop()
        if found.numel() >= size:
            return found
    except IndexError:
        pass
    return torch.empty(size + 16, dtype=dtype)


def give(memory: Tensor) -> None:
    """Give back what was taken."""
    idle = _idle[memory.dtype]
    if not idle and memory.numel() * memory.itemsize <= _MOST:
        idle.append(memory)
