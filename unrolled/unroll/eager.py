"""The reference for `unroll`: a Python loop that calls the cell once a step. Every other backend must agree with it."""

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
    """Run the loop on arguments that `unroll` has checked.

    inputs: `[T, B, I]`. state: a tuple of tensors. lengths: `[B]`, on the device of `inputs`.

    After the end of a sequence, the cell receives the input and the state of its first step again, and the result is
    discarded.
    """
    inside, first = None, state
    if lengths is not None:
        inside = steps_inside(len(inputs), lengths)
        inputs, first = fill_padding(inputs, lengths, inside, reverse), fill_states(state, lengths)
    counts = None if inside is None else inside.unbind(0)
    # Backward stacks the gradients of unbind once. The gradient of each inputs[t] would be as large as all inputs.
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
