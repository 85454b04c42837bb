"""The part of a plan that remains after tracing: enough to run the plan and to cache it on disk."""

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
    """The graphs of a step's parts: see `Plan`.

    parameter_names: the names of the parameters and buffers, in the order in which `prepare` takes them.
    reaching: for each parameter and for the input, whether the states depend on it. Others get no gradient from them.
    prepared, hoisted: the numbers of prepared and of hoisted values that the core reads.
    hoisted_sizes: the columns of each hoisted value; empty if there is no product among them for equal inputs to share.
    visible: the states that are read outside the loop at every step.
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
        """Return the schedule itself, because copies of a cell share it."""
        return self

    def first(self, inputs: Tensor, state: State | None) -> State:
        """Return the states before the first step: `state`, or zeros if it is None or empty."""
        if state:
            return tuple(state)
        return tuple(inputs.new_zeros(inputs.size(1), size) for size in self.state_sizes)

    def hoist_steps(self, parameters: Sequence[Tensor], inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the prepared values that the core reads, and the hoisted values `[T, B, ...]`."""
        steps, batch = inputs.shape[:2]
        prepared = self.prepare(batch, *parameters)
        hoisted = self.hoist(steps * batch, *prepared, rows_of(inputs))
        return prepared[: self.prepared], [value.reshape(steps, batch, *value.shape[1:]) for value in hoisted]

    def run_steps(self, parameters: Sequence[Tensor], inputs: Tensor, state: State | None) -> list[State]:
        """Return the states before the first step and after each, computed with PyTorch's operations under autograd."""
        prepared, hoisted = self.hoist_steps(parameters, inputs)
        states = [self.first(inputs, state)]
        for t in range(len(inputs)):
            now = [value[t] for value in hoisted]
            states.append(tuple(self.core(states[0][0].size(0), *prepared, *now, *states[-1])))
        return states

    def visible_steps(self, states: Sequence[State]) -> list[Tensor]:
        """Return each visible state of consecutive steps as one tensor."""
        return [torch.stack([parts[k] for parts in states]) for k in self.visible]


def rows_from(
    row_values: Sequence[tuple[str, int]], inputs: Sequence[T], saved: Sequence[T], deferred: Sequence[T]
) -> list[T]:
    """Return the values whose sources are a derivative's `row_values`."""
    sources = {"input": inputs, "saved": saved, "deferred": deferred}
    return [sources[kind][k] for kind, k in row_values]


def rows_of(inputs: Tensor) -> Tensor:
    return inputs.reshape(-1, inputs.size(-1))
