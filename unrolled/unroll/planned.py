"""Runs a cell's plan: what needs no state before and behind the loop, and the loop itself by an executor.

Two executors run the loop: `TorchExecutor` here, by PyTorch's operations, and `NativeExecutor` by compiled code. Both
need no autograd within the loop, take products with the input out of it, and leave the gradients of weights to one
reduction.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from unrolled.cells import Cell, State
from unrolled.errors import CompilerError, UntraceableError
from unrolled.unroll.adapt import Held
from unrolled.unroll.cpu import NativeExecutor
from unrolled.unroll.native import compiler
from unrolled.unroll.plan import Derivative, Plan
from unrolled.unroll.signature import named_tensors, signature

Tensors = Sequence[Tensor]


class Executor(Protocol):
    """Runs the loop over a plan's core. Values of all steps are `[T, B, ...]`, trajectories `[T + 1, B, size]`."""

    def run(self, steps: int, batch: int, prepared: Tensors, hoisted: Tensors, state: State) -> tuple[Tensors, State]:
        """The trajectories of the plan's visible states, and the last states; without gradients."""

    def forward(
        self, derivative: Derivative, steps: int, batch: int, prepared: Tensors, hoisted: Tensors, state: State,
        constants: Tensors,
    ) -> tuple[Tensors, Tensors]:  # fmt: skip
        """The trajectories of all states, and what backward needs to be saved."""

    def backward(
        self, derivative: Derivative, steps: int, batch: int, prepared: Tensors, hoisted: Tensors,
        trajectories: Tensors, constants: Tensors, saved: Tensors, of_steps: Mapping[int, Tensor], of_states: Tensors,
    ) -> tuple[Tensors, Tensors, Tensors]:  # fmt: skip
        """Gradients of the first states, of those hoisted values that want one, and the late values of all steps.

        `of_steps` are the gradients of visible states after every step, `of_states` those of the last ones.
        """


class Planned:
    """A plan and its executor, for cells of one signature."""

    def __init__(self, cell: Cell, dtype: torch.dtype, device: torch.device, native: bool) -> None:
        self.plan = Plan(cell, dtype, device)
        self.executor: Executor = NativeExecutor(self.plan, dtype) if native else TorchExecutor(self.plan)


_planned: dict[Hashable, Planned | UntraceableError | CompilerError] = {}


def find_plan(cell: Cell, dtype: torch.dtype, device: torch.device, native: bool = False) -> Planned:
    """The plan for cells like this one, made at first use and kept for the life of the process.

    So is the error, where there can be none.
    """
    key = (signature(cell), dtype, device, native)
    found = _planned.get(key)
    if found is None:
        try:
            if native:
                compiler()
            found = Planned(cell, dtype, device, native)
        except (UntraceableError, CompilerError) as error:
            found = error
        _planned[key] = found
    if isinstance(found, Exception):
        raise found
    return found


def unroll_planned(
    cell: Cell, inputs: Tensor, state: State, lengths: Tensor | None, reverse: bool, native: bool = False
) -> tuple[Tensor, State]:
    """As `unroll_eager`; UntraceableError where the cell's step cannot be planned."""
    inside = None
    if lengths is not None:
        time = torch.arange(inputs.size(0), device=inputs.device).unsqueeze(-1)
        inside = (time < lengths).unsqueeze(-1)
        cell, inputs = Held(cell), torch.cat([inputs, inside.to(inputs.dtype)], -1)
    planned = find_plan(cell, inputs.dtype, inputs.device, native)
    outputs, final = run_plan(planned, cell, inputs.flip(0) if reverse else inputs, state)
    outputs = outputs.flip(0) if reverse else outputs
    return outputs if inside is None else torch.where(inside, outputs, torch.zeros_like(outputs)), final


def run_plan(planned: Planned, cell: nn.Module, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    """Unroll over `inputs [T, B, I]` from the first step to the last."""
    plan = planned.plan
    values = named_tensors(cell)
    parameters = [values[name] for name in plan.parameter_names]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*parameters, inputs, *state)):
        made = _Unroll.apply(planned, *parameters, inputs, *state)
        after, final = made[: len(plan.visible)], made[len(plan.visible) :]
    else:
        _, prepared, hoisted = _outside(plan, parameters, inputs)
        steps, batch = inputs.shape[:2]
        trajectories, final = planned.executor.run(steps, batch, prepared, hoisted, state)
        after = [trajectory[1:] for trajectory in trajectories]
    if plan.sink is None:
        return after[0], tuple(final)
    return _sunk(plan, parameters, inputs, state, after), tuple(final)


def _outside(plan: Plan, parameters: Tensors, inputs: Tensor) -> tuple[Tensor, Tensors, Tensors]:
    """The input as rows, and the prepared and the hoisted values."""
    steps, batch = inputs.shape[:2]
    rows = inputs.reshape(steps * batch, -1)
    prepared = plan.prepare.forward(batch, *parameters)
    hoisted = plan.hoist.forward(steps * batch, *parameters, rows)
    return rows, prepared, [value.reshape(steps, batch, *value.shape[1:]) for value in hoisted]


def _sunk(plan: Plan, parameters: Tensors, inputs: Tensor, state: State, after: Tensors) -> Tensor:
    """The output of every step, of a cell whose output is none of its states."""
    steps, batch = inputs.shape[:2]
    every = [part.expand(steps, -1, -1) for part in state]  # the invisible are not looked at
    before = list(every)
    for k, states in zip(plan.visible, after, strict=True):
        before[k], every[k] = torch.cat([state[k].unsqueeze(0), states[:-1]]), states
    flat = [value.reshape(steps * batch, -1) for value in (inputs, *before, *every)]
    assert plan.sink is not None
    (outputs,) = plan.sink.forward(steps * batch, *parameters, *flat)
    return outputs.reshape(steps, batch, -1)


class TorchExecutor:
    """Runs a plan's loops with PyTorch's operations, step by step."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def run(self, steps, batch, prepared, hoisted, state):
        states = [tuple(state)]
        for t in range(steps):
            states.append(
                tuple(self.plan.core.forward(batch, *prepared, *(value[t] for value in hoisted), *states[-1]))
            )
        return [torch.stack([parts[k] for parts in states]) for k in self.plan.visible], states[-1]

    def forward(self, derivative, steps, batch, prepared, hoisted, state, constants):
        states, saved = [tuple(state)], []
        for t in range(steps):
            now = [value[t] for value in hoisted]
            result = derivative.forward.forward(batch, *prepared, *now, *states[-1], *constants)
            states.append(tuple(result[: len(state)]))
            saved.append(result[len(state) :])
        return [torch.stack(parts) for parts in zip(*states, strict=True)], _stack(saved)

    def backward(
        self, derivative, steps, batch, prepared, hoisted, trajectories, constants, saved, of_steps, of_states
    ):
        first, count = self.plan.prepared + self.plan.hoisted, len(derivative.per_step)
        gradients, every = list(of_states), []
        for t in reversed(range(steps)):
            for k, of_step in of_steps.items():
                gradients[k] = gradients[k] + of_step[t]
            now = [value[t] for value in (*hoisted, *trajectories)]
            kept = [value[t] for value in saved]
            result = derivative.backward.forward(batch, *prepared, *now, *constants, *kept, *gradients)
            for k, value in zip(derivative.per_step, result, strict=False):
                if k >= first:
                    gradients[k - first] = value
            every.append(result)
        stacked = _stack(every[::-1])
        of_hoisted = [stacked[j] for j, k in enumerate(derivative.per_step) if k < first]
        return gradients, of_hoisted, stacked[count : count + derivative.late]


def _stack(steps: list) -> list[Tensor]:
    return [torch.stack(values) for values in zip(*steps, strict=True)]


class _Unroll(torch.autograd.Function):
    """The loop over the core and the loop back over its derivative, with all that goes before and behind them.

    Takes parameters, the input and the first states; gives the visible states of every step, and the last states.
    """

    @staticmethod
    def forward(ctx, planned: Planned, *tensors: Tensor):
        plan, executor = planned.plan, planned.executor
        count = len(plan.parameter_names)
        parameters, inputs, state = tensors[:count], tensors[count], tensors[count + 1 :]
        steps, batch = inputs.shape[:2]
        gradients = plan.gradients(ctx.needs_input_grad[1 : 2 + count])
        rows, prepared, hoisted = _outside(plan, parameters, inputs)
        constants = gradients.derivative.constants.forward(batch, *prepared)
        trajectories, saved = executor.forward(gradients.derivative, steps, batch, prepared, hoisted, state, constants)
        kept = (rows, *prepared, *hoisted, *constants, *trajectories, *saved)
        ctx.save_for_backward(*tensors, *kept)
        ctx.planned, ctx.gradients = planned, gradients
        return *(trajectories[k][1:] for k in plan.visible), *(trajectory[steps].clone() for trajectory in trajectories)

    @staticmethod
    def backward(ctx, *incoming: Tensor):
        planned, needed = ctx.planned, ctx.needs_input_grad[1:]
        plan, derivative = planned.plan, ctx.gradients.derivative
        count = len(plan.parameter_names)
        sizes = [count, 1, plan.states, 1, plan.prepared, plan.hoisted, derivative.constant_count, plan.states]
        parameters, (inputs,), state, (rows,), prepared, hoisted, constants, trajectories, saved = _cut(
            ctx.saved_tensors, sizes
        )
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted
            return None, *_differentiable(plan, parameters, inputs, state, incoming, needed)
        steps, batch = inputs.shape[:2]
        of_steps = dict(zip(plan.visible, incoming, strict=False))
        of_first, of_hoisted, late = planned.executor.backward(
            derivative,
            steps,
            batch,
            prepared,
            hoisted,
            trajectories,
            constants,
            saved,
            of_steps,
            incoming[len(of_steps) :],
        )
        found: list[Tensor | None] = [None] * (count + 1)
        if ctx.gradients.finish is not None:
            sources = {
                "input": [*prepared, *hoisted, *(states[:-1] for states in trajectories)],
                "saved": saved,
                "late": late,
            }
            values = [sources[kind][k] for kind, k in derivative.row_values]
            flat = [value.reshape(steps * batch, -1) for value in (*values, *of_hoisted)]
            made = ctx.gradients.finish.forward(steps * batch, *parameters, rows, *prepared, *constants, *flat)
            for k, gradient in zip(ctx.gradients.chosen, made, strict=True):
                found[k] = gradient
        of_input = found[count]
        if of_input is not None:
            found[count] = of_input.reshape(inputs.shape)
        return (
            None,
            *found,
            *(value if needs else None for value, needs in zip(of_first, needed[count + 1 :], strict=True)),
        )


def _cut(tensors: Tensors, sizes: Sequence[int]) -> list[Tensors]:
    """`tensors` in pieces of the given sizes, and the rest."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(tensors[start : start + size])
        start += size
    return [*pieces, tensors[start:]]


def _differentiable(plan: Plan, parameters, inputs, state, incoming, needed):
    """The gradients by autograd through every step, for gradients of a higher order."""
    batch = inputs.size(1)
    _, prepared, hoisted = _outside(plan, parameters, inputs)
    states = [tuple(state)]
    for t in range(inputs.size(0)):
        states.append(tuple(plan.core.forward(batch, *prepared, *(value[t] for value in hoisted), *states[-1])))
    after = [torch.stack([parts[k] for parts in states[1:]]) for k in plan.visible]
    wanted = [tensor for tensor, needs in zip((*parameters, inputs, *state), needed, strict=True) if needs]
    pairs = [(v, g) for v, g in zip((*after, *states[-1]), incoming, strict=True) if v.requires_grad]
    values, given = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(values, wanted, given, create_graph=True, allow_unused=True))
    return [next(found) if needs else None for needs in needed]
