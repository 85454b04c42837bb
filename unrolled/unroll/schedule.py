"""What is left of a plan when its cell has been traced: enough to run it, and to be kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from unrolled.cells import State
from unrolled.unroll.graph import Graph

T = TypeVar("T")


@dataclass(eq=False)
class Schedule:
    """The parts of a step, with their graphs: see `Plan`.

    parameter_names: of the parameters and buffers, in the order in which `prepare` takes them.
    reaching: which of the parameters, and whether the input, the states depend on: others have no gradient of them.
    prepared, hoisted: how many of the prepared and of the hoisted values the core reads.
    hoisted_sizes: the columns of each hoisted value, where products are among them that can be done once for like
        inputs; else none.
    visible: which states' every step is read outside the loop.
    """

    name: str
    parameter_names: tuple[str, ...]
    state_sizes: tuple[int, ...]
    reaching: tuple[bool, ...]
    prepared: int
    hoisted: int
    hoisted_sizes: tuple[int, ...]
    visible: tuple[int, ...]
    prepare: Graph
    hoist: Graph
    core: Graph
    sink: Graph | None

    @property
    def states(self) -> int:
        return len(self.state_sizes)

    def __deepcopy__(self, memo: object) -> Schedule:
        """Itself, in the copy of a cell that holds it."""
        return self

    def first(self, inputs: Tensor, state: State | None) -> State:
        """The states to start from: zeros, if there are none."""
        if state:
            return tuple(state)
        return tuple(inputs.new_zeros(inputs.size(1), size) for size in self.state_sizes)

    def hoist_steps(self, parameters: Sequence[Tensor], inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The prepared values that the core reads, and the hoisted ones, `[T, B, ...]`."""
        steps, batch = inputs.shape[:2]
        prepared = self.prepare(batch, *parameters)
        hoisted = self.hoist(steps * batch, *prepared, rows_of(inputs))
        return prepared[: self.prepared], [value.reshape(steps, batch, *value.shape[1:]) for value in hoisted]

    def run_steps(self, parameters: Sequence[Tensor], inputs: Tensor, state: State | None) -> list[State]:
        """The states before the first step and after each, by PyTorch's operations, which autograd can follow."""
        prepared, hoisted = self.hoist_steps(parameters, inputs)
        states = [self.first(inputs, state)]
        for t in range(len(inputs)):
            now = [value[t] for value in hoisted]
            states.append(tuple(self.core(states[0][0].size(0), *prepared, *now, *states[-1])))
        return states

    def visible_steps(self, states: Sequence[State]) -> list[Tensor]:
        """Of states one step after the other, each of the visible ones in one tensor."""
        return [torch.stack([parts[k] for parts in states]) for k in self.visible]


def rows_from(
    row_values: Sequence[tuple[str, int]], inputs: Sequence[T], saved: Sequence[T], deferred: Sequence[T]
) -> list[T]:
    """Those of the given values that a derivative's `row_values` name."""
    sources = {"input": inputs, "saved": saved, "deferred": deferred}
    return [sources[kind][k] for kind, k in row_values]


def rows_of(inputs: Tensor) -> Tensor:
    return inputs.reshape(-1, inputs.size(-1))
