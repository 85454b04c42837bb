"""The meaning of `unroll`: a Python loop that calls the cell once a step. Every other backend must agree with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unrolled.cells import State
from unrolled.errors import ConfigurationError
from unrolled.unroll.adapt import stepper, title
from unrolled.unroll.padding import choose, fill_padding, fill_states, show, steps_inside


def unroll_eager(
    cell: nn.Module, inputs: Tensor, state: State, lengths: Tensor | None, reverse: bool
) -> tuple[Tensor, State]:
    """Arguments as `unroll` has checked them: `inputs [T, B, I]`, a tuple of states, `lengths [B]` on their device.

    Where a sequence has ended the cell is given its first step again, input and state, and what it makes of them is
    thrown away.
    """
    inside, first = None, state
    if lengths is not None:
        inside = steps_inside(len(inputs), lengths)
        inputs, first = fill_padding(inputs, lengths, inside, reverse), fill_states(state, lengths)
    counts = None if inside is None else inside.unbind(0)
    # Backward joins the gradients of unbind once; each of those of inputs[t] is as large as the whole input.
    steps = inputs.unbind(0)
    step = stepper(cell)
    outputs: list[Tensor] = []
    if counts is None:
        for x in reversed(steps) if reverse else steps:
            output, state = step(x, state)
            outputs.append(output)
    else:
        for t in reversed(range(len(steps))) if reverse else range(len(steps)):
            output, new = step(steps[t], choose(counts[t], state, first))
            state = choose(counts[t], new, state)
            outputs.append(output)
    if not isinstance(outputs[0], Tensor):
        raise ConfigurationError(
            f"the output of {title(cell)} must be a tensor [B, size], got a {type(outputs[0]).__name__}"
        )
    return show(torch.stack(outputs[::-1] if reverse else outputs), inside, False), state
