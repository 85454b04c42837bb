"""Layers that read forwards and a readout, as one cell whose scores are the same for one step as for many."""

from __future__ import annotations

from torch import Tensor, nn

from unrolled.cells import Cell, State
from unrolled.layers import Recurrent


class ReadoutCell(Cell):
    """A linear readout over layers that read forwards, as one cell, for use outside training.

    project: a module that computes the layers' input from the cell's, which has `input_size` values; None for none.

    The scores are the cell's first state. The engine computes the states of one step exactly as those of many. So a
    sequence that is read in pieces has the scores of one that is read at once, bit for bit.
    """

    def __init__(
        self, recurrent: Recurrent, readout: nn.Linear, input_size: int, project: nn.Module | None = None
    ) -> None:
        nn.Module.__init__(self)
        self.stack, self.readout, self.project = recurrent.stack(), readout, project
        self.input_size, self.hidden_size = input_size, readout.out_features
        self.state_names = ("scores", *self.stack.state_names)  # type: ignore[misc]
        self.training = False

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return (self.hidden_size, *self.stack.state_sizes)

    def initial_state(self, batch_size: int, *, like: Tensor) -> State:
        return (like.new_zeros(batch_size, self.hidden_size), *self.stack.initial_state(batch_size, like=like))

    def forward(self, x: Tensor, state: State) -> State:
        inputs = x if self.project is None else self.project(x)
        output, new = self.stack.step(inputs, state[1:])
        return (self.readout(output), *new)
