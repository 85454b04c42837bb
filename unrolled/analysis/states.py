"""The states after every step, which `unroll` itself does not return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unrolled.cells import Cell, State
from unrolled.errors import ConfigurationError
from unrolled.layers import Recurrent
from unrolled.layers.stack import through
from unrolled.unroll import unroll
from unrolled.unroll.adapt import WithOutput


class WholeState(WithOutput):
    """A cell whose output is its whole state, `[B, sum(state_sizes)]`."""

    def __init__(self, cell: Cell) -> None:
        nn.Module.__init__(self)
        self.cell = cell
        self.input_size, self.hidden_size, self.training = cell.input_size, cell.hidden_size, cell.training

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return self.cell.state_sizes

    def initial_state(self, batch_size: int, *, like: Tensor) -> State:
        return self.cell.initial_state(batch_size, like=like)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        new = self.cell(x, state)
        return torch.cat(new, -1), new


def every_state(cell: Cell, inputs: Tensor, state: State | None = None, backend: str = "auto") -> State:
    """Return the states after every step of `inputs [T, B, I]`: `[T, B, size]` for each of the cell's states."""
    outputs, _ = unroll(WholeState(cell), inputs, state, backend=backend)
    return outputs.split(cell.state_sizes, -1)


def before_each(states: State, first: State) -> State:
    """Return the states before every step, `[T, B, size]`, given those after every step and the first `[B, size]`."""
    return tuple(torch.cat([start.unsqueeze(0), part[:-1]]) for part, start in zip(states, first, strict=True))


@dataclass(frozen=True)
class Layer:
    """A record of one layer's run: its cell, its input `[T, B, I]`, and its states before and after each step.

    `before` and `after` hold a tensor `[T, B, size]` for each of the cell's states.
    """

    cell: Cell
    inputs: Tensor
    before: State
    after: State


def trace(stack: Recurrent, inputs: Tensor, states: Sequence[State | None] | None = None) -> list[Layer]:
    """Run `stack` over `inputs [T, B, I]` as in evaluation mode, and record each layer.

    states: the first state of each layer; None stands for the initial state.
    Raises ConfigurationError if the stack is bidirectional.
    """
    if stack.bidirectional:
        raise ConfigurationError("a bidirectional stack cannot be analysed: use a model with one direction")
    cells, layers = stack.stack(), []

    def run(number: int, cell: Cell, inputs: Tensor) -> tuple[Tensor, State]:
        first = (states and states[number]) or cell.initial_state(inputs.size(1), like=inputs)
        after = every_state(cell, inputs, first)
        layers.append(Layer(cell, inputs, before_each(after, first), after))
        return after[0], after

    through(cells.layers, cells.projections, inputs, run)
    return layers
