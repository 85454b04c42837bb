"""The interface of executors, which run a plan, and the executor that uses PyTorch's operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor

from unrolled.cells import State
from unrolled.unroll.schedule import rows_from, rows_of

if TYPE_CHECKING:
    from unrolled.unroll.plan import Gradients, Plan

Tensors = Sequence[Tensor]
Maybe = Sequence[Tensor | None]
T = TypeVar("T")


class HasChosen(Protocol):
    """What an executor prepared for the wanted gradients: `chosen` has the numbers of those that exist."""

    @property
    def chosen(self) -> tuple[int, ...]: ...


class Executor(Protocol):
    """Runs a plan without autograd.

    A state of all steps is `[T + 1, B, size]`. Only the plan's visible states are returned for all steps.
    """

    def gradients(self, wanted: tuple[bool, ...]) -> HasChosen:
        """Prepare `wanted` gradients, a flag for each parameter and one for the input; nothing can fail after it."""

    def run(self, parameters: Tensors, inputs: Tensor, state: State | None) -> tuple[Tensors, State]:
        """Return the visible states of all steps and the last states; start from zeros if `state` is None."""

    def forward(
        self, gradients: Any, parameters: Tensors, inputs: Tensor, state: State | None
    ) -> tuple[Tensors, State, Tensors]:
        """Return the results of `run`, and the tensors to pass to `backward` as `kept`."""

    def backward(
        self,
        gradients: Any,
        parameters: Tensors,
        inputs: Tensor,
        kept: Tensors,
        of_steps: Maybe,
        of_states: Maybe,
        wants_first: bool,
    ) -> tuple[Tensors, State]:
        """Return the gradients that `gradients.chosen` numbers, and those of the first states if `wants_first`.

        of_steps: the gradients of the visible states after every step. of_states: the gradients of the last states.
        None in either means zeros.
        """


class TorchExecutor:
    """Runs a plan's loops with PyTorch's operations, step by step."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def gradients(self, wanted: tuple[bool, ...]) -> Gradients:
        return self.plan.gradients(wanted)

    def run(self, parameters, inputs, state):
        states = self.plan.schedule.run_steps(parameters, inputs, state)
        return self.plan.schedule.visible_steps(states), states[-1]

    def forward(self, gradients, parameters, inputs, state):
        plan, derivative = self.plan, gradients.derivative
        steps, batch = inputs.shape[:2]
        prepared, hoisted = plan.schedule.hoist_steps(parameters, inputs)
        constants = derivative.constants.forward(batch, *prepared)
        states, saved = [plan.schedule.first(inputs, state)], []
        for t in range(steps):
            now = [value[t] for value in hoisted]
            result = derivative.forward.forward(batch, *prepared, *now, *states[-1], *constants)
            states.append(tuple(result[: plan.states]))
            saved.append(result[plan.states :])
        trajectories = [torch.stack(parts) for parts in zip(*states, strict=True)]
        kept = [*prepared, *hoisted, *trajectories, *constants, *_stack(saved)]
        return [trajectories[k] for k in plan.visible], states[-1], kept

    def backward(self, gradients, parameters, inputs, kept, of_steps, of_states, wants_first):
        plan, derivative = self.plan, gradients.derivative
        steps, batch = inputs.shape[:2]
        sizes = [plan.prepared, plan.hoisted, plan.states, derivative.constant_count]
        prepared, hoisted, trajectories, constants, saved = cut(kept, sizes)
        like = [trajectory[0] for trajectory in trajectories]
        carried = [torch.zeros_like(z) if g is None else g for g, z in zip(of_states, like, strict=True)]
        every = []
        for t in reversed(range(steps)):
            for k, of_step in zip(plan.visible, of_steps, strict=True):
                if of_step is not None:
                    carried[k] = carried[k] + of_step[t]
            now = [value[t] for value in (*hoisted, *trajectories)]
            result = derivative.backward.forward(
                batch, *prepared, *now, *constants, *(value[t] for value in saved), *carried
            )
            for k, value in zip(derivative.per_step, result, strict=False):
                if k >= plan.prepared + plan.hoisted:
                    carried[k - plan.prepared - plan.hoisted] = value
            every.append(result)
        stacked, count = _stack(every[::-1]), len(derivative.per_step)
        of_hoisted = [stacked[j] for j, k in enumerate(derivative.per_step) if k < plan.prepared + plan.hoisted]
        before = [trajectory[:-1] for trajectory in trajectories]
        values = rows_from(derivative.row_values, [*prepared, *hoisted, *before], saved, stacked[count:])
        found = []
        if gradients.finish is not None:
            rows = rows_of(inputs)
            flat = [value.reshape(len(rows), -1) for value in (*values, *of_hoisted)]
            found = gradients.finish.forward(len(rows), *parameters, rows, *prepared, *constants, *flat)
        return found, carried if wants_first else ()


def cut(values: Sequence[T], sizes: Sequence[int]) -> list[Sequence[T]]:
    """Cut `values` into pieces of the given sizes, and return them with the rest."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(values[start : start + size])
        start += size
    return [*pieces, values[start:]]


def _stack(steps: list) -> list[Tensor]:
    return [torch.stack(values) for values in zip(*steps, strict=True)]
