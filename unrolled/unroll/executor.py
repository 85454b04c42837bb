"""What runs a plan, and the first of the two that do: by PyTorch's operations, step by step."""

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
    """What an executor knows of the gradients that are wanted: `chosen` numbers those that there are."""

    @property
    def chosen(self) -> tuple[int, ...]: ...


class Executor(Protocol):
    """Runs a plan, without autograd. The states of all steps are `[T + 1, B, size]`, those of a plan's visible ones."""

    def gradients(self, wanted: tuple[bool, ...]) -> HasChosen:
        """For `wanted`, one flag for each parameter and one for the input; all that can fail has been done then."""

    def run(self, parameters: Tensors, inputs: Tensor, state: State | None) -> tuple[Tensors, State]:
        """The visible states of all steps, and the last states; from zeros if `state` is None."""

    def forward(
        self, gradients: Any, parameters: Tensors, inputs: Tensor, state: State | None
    ) -> tuple[Tensors, State, Tensors]:
        """As `run`, and what `backward` is to be given back."""

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
        """The gradients that `gradients.chosen` numbers, and those of the first states, if they are wanted.

        `of_steps` are the gradients of the visible states after every step, `of_states` those of the last states; None
        stands for zeros.
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
    """`values` in pieces of the given sizes, and the rest."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(values[start : start + size])
        start += size
    return [*pieces, values[start:]]


def _stack(steps: list) -> list[Tensor]:
    return [torch.stack(values) for values in zip(*steps, strict=True)]
