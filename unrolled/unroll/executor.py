"""What runs a plan, and the first of the two that do: by PyTorch's operations, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from unrolled.cells import State
from unrolled.unroll.plan import Gradients, Plan

Tensors = Sequence[Tensor]
Maybe = Sequence[Tensor | None]
T = TypeVar("T")


class Executor(Protocol):
    """Runs a plan, without autograd. The states of all steps are `[T + 1, B, size]`, those of a plan's visible ones."""

    def run(self, parameters: Tensors, inputs: Tensor, state: State | None) -> tuple[Tensors, State]:
        """The visible states of all steps, and the last states; from zeros where `state` is None."""

    def forward(
        self, gradients: Gradients, parameters: Tensors, inputs: Tensor, state: State | None
    ) -> tuple[Tensors, State, Tensors]:
        """As `run`, and what `backward` is to be given back."""

    def backward(
        self,
        gradients: Gradients,
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


def hoist(plan: Plan, parameters: Tensors, inputs: Tensor) -> tuple[Tensors, Tensors]:
    """The prepared values that the core reads, and the hoisted ones, `[T, B, ...]`."""
    steps, batch = inputs.shape[:2]
    prepared = plan.prepare.forward(batch, *parameters)
    hoisted = plan.hoist.forward(steps * batch, *prepared, rows_of(inputs))
    return prepared[: plan.prepared], [value.reshape(steps, batch, *value.shape[1:]) for value in hoisted]


def finish(
    gradients: Gradients, parameters: Tensors, inputs: Tensor, given: Tensors, values: Tensors, of_hoisted: Tensors
) -> Tensors:
    """The chosen gradients; `given` are prepared values and constants, `values` the rows that they are made of."""
    if gradients.finish is None:
        return []
    rows = rows_of(inputs)
    flat = [value.reshape(len(rows), -1) for value in (*values, *of_hoisted)]
    return gradients.finish.forward(len(rows), *parameters, rows, *given, *flat)


def rows_of(inputs: Tensor) -> Tensor:
    return inputs.reshape(-1, inputs.size(-1))


class TorchExecutor:
    """Runs a plan's loops with PyTorch's operations, step by step."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def run(self, parameters, inputs, state):
        prepared, hoisted = hoist(self.plan, parameters, inputs)
        states = self.plan.core_steps(len(inputs), prepared, hoisted, self.plan.first(inputs, state))
        return [torch.stack([parts[k] for parts in states]) for k in self.plan.visible], states[-1]

    def forward(self, gradients, parameters, inputs, state):
        plan, derivative = self.plan, gradients.derivative
        steps, batch = inputs.shape[:2]
        prepared, hoisted = hoist(plan, parameters, inputs)
        constants = derivative.constants.forward(batch, *prepared)
        states, saved = [plan.first(inputs, state)], []
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
        values = derivative.rows_from([*prepared, *hoisted, *before], saved, stacked[count:])
        found = finish(gradients, parameters, inputs, [*prepared, *constants], values, of_hoisted)
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
