"""The meaning of `unroll`: a Python loop that calls the cell once a step. Every other backend must agree with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unrolled.cells import State
from unrolled.unroll.adapt import step


def unroll_eager(
    cell: nn.Module, inputs: Tensor, state: State, lengths: Tensor | None, reverse: bool
) -> tuple[Tensor, State]:
    """Arguments as `unroll` has checked them: `inputs [T, B, I]`, a tuple of states, `lengths [B]` on their device."""
    steps = range(inputs.size(0))
    outputs: list[Tensor] = []
    for t in reversed(steps) if reverse else steps:
        output, new = step(cell, inputs[t], state)
        if lengths is not None:
            inside = (t < lengths).unsqueeze(-1)
            output = torch.where(inside, output, torch.zeros_like(output))
            new = tuple(torch.where(inside, after, before) for after, before in zip(new, state, strict=True))
        outputs.append(output)
        state = new
    return torch.stack(outputs[::-1] if reverse else outputs), state
