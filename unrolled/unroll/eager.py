"""The reference for `unroll`: a Python loop that calls the cell once a step. Every other backend must agree with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unrolled.cells import Cell, State
from unrolled.errors import ConfigurationError, ShapeError
from unrolled.unroll.adapt import Foreign, stepper, title
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
            output, new = step(x, state)
            if not outputs:
                _check_sizes(cell, state, new)
            state = new
            outputs.append(output)
    else:
        for t in reversed(range(len(steps))) if reverse else range(len(steps)):
            output, new = step(steps[t], choose(counts[t], state, first))
            if not outputs:
                _check_sizes(cell, state, new)
            state = choose(counts[t], new, state)
            outputs.append(output)
    if not isinstance(outputs[0], Tensor):
        raise ConfigurationError(
            f"the output of {title(cell)} must be a tensor [B, size], got a {type(outputs[0]).__name__}"
        )
    return show(torch.stack(outputs[::-1] if reverse else outputs), inside, False), state


def _check_sizes(cell: nn.Module, before: State, after: State) -> None:
    """Raise ShapeError if a cell's first step changes the size of its state, which would grow without bound.

    A user's module may do so: the sizes of its states are not declared.
    """
    if not isinstance(cell, Cell) or isinstance(cell, Foreign):
        return
    for name, one, other in zip(cell.state_names, before, after, strict=False):
        if one.shape[1:] != other.shape[1:]:
            raise ShapeError(
                f"{title(cell)}.forward must not change the size of its states: {name} was {list(one.shape)} and "
                f"became {list(other.shape)}"
            )
