"""Runs a plan in native code."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from unrolled.unroll.executor import finish, hoist
from unrolled.unroll.layout import Backward, Forward, Layout
from unrolled.unroll.plan import Gradients, Plan
from unrolled.unroll.program import Program
from unrolled.unroll.signature import planning
from unrolled.unroll.workspace import empty

_LITTLE = 1 << 19  # elements that are cheaper to keep in one tensor than in several


class NativeExecutor:
    """As `TorchExecutor`, in native code."""

    def __init__(self, plan: Plan, dtype: torch.dtype) -> None:
        self.plan, self.layout = plan, Layout(plan, dtype)
        self._inference: Forward | None = None
        self._training: dict[tuple[int, ...], tuple[Forward, Backward]] = {}

    def run(self, parameters, inputs, state):
        if self._inference is None:
            with planning:
                forward = self.layout.inference()
                forward.program.compile()
                self._inference = forward
        trajectories, final, _ = self._call(self._inference, parameters, inputs, state)
        return trajectories, final

    def forward(self, gradients: Gradients, parameters, inputs, state, apart: bool = False):
        """`apart`: keep one tensor for each of `kept_columns`, however little."""
        forward, _ = self._pair(gradients)
        trajectories, final, kept = self._call(forward, parameters, inputs, state, apart)
        return [trajectories[k] for k in self.plan.visible], final, [*trajectories, *kept]

    def kept_columns(self, gradients: Gradients) -> list[int]:
        """The sizes for each row, of what `forward` keeps beside the states."""
        return self._pair(gradients)[0].kept

    def _call(self, forward: Forward, parameters, inputs, state, apart: bool = False):
        plan = self.plan
        steps, batch = inputs.shape[:2]
        inputs = inputs.contiguous()
        first = [part.contiguous() for part in state] if state else []
        trajectories = [empty(inputs, steps + 1, batch, columns) for columns in forward.trajectories.values()]
        final = tuple([inputs.new_empty(batch, columns) for columns in plan.state_sizes])
        sizes = [steps * batch * columns for columns in forward.kept]
        rest: list[Tensor] = []
        if forward.hoists:
            kept = _room(inputs, sizes, apart)
        else:
            _, hoisted = hoist(plan, parameters, inputs)
            hoisted = [value.to(inputs.dtype).contiguous() for value in hoisted]
            rest = [hoisted[k] for k in forward.rest]
            kept = [hoisted[k].view(-1) for k in forward.kept_hoisted]
            kept += [empty(inputs, size) for size in sizes[len(kept) :]]
        places = [part.data_ptr() for part in first] or [None] * plan.states
        places += [value.data_ptr() for value in (*trajectories, *final)]
        places += [*_places(kept, sizes), *(value.data_ptr() for value in rest)]
        vectors, strides, _alive = forward.vectors.find(parameters)
        forward.program(steps, batch, vectors, strides, [inputs.data_ptr(), *places])
        return trajectories, final, kept

    def _pair(self, gradients: Gradients) -> tuple[Forward, Backward]:
        """Forward and backward; both at once, so that what cannot be compiled is known before anything has run."""
        key = (*gradients.derivative.wanted, *gradients.chosen)
        if key not in self._training:
            with planning:
                pair = self.layout.training(gradients)
                with ThreadPoolExecutor(2) as pool:
                    list(pool.map(Program.compile, [part.program for part in pair]))
                self._training[key] = pair
        return self._training[key]

    def backward(self, gradients: Gradients, parameters, inputs, kept, of_steps, of_states, wants_first):
        plan = self.plan
        forward, back = self._pair(gradients)
        steps, batch = inputs.shape[:2]
        inputs = inputs.contiguous()
        trajectories, kept = kept[: plan.states], kept[plan.states :]
        every = [
            trajectories[k][1:].new_zeros(steps, batch, plan.state_sizes[k]) if value is None else value.contiguous()
            for k, value in zip(plan.visible, of_steps, strict=True)
        ]
        last = [None if value is None else value.contiguous() for value in of_states]
        of_first = [inputs.new_empty(batch, columns) for columns in plan.state_sizes] if wants_first else []
        slots = [value.data_ptr() for value in (inputs, *trajectories)]
        slots += _places(kept, [steps * batch * columns for columns in forward.kept])
        slots += [value.data_ptr() for value in every]
        slots += [None if value is None else value.data_ptr() for value in last]
        slots += [value.data_ptr() for value in of_first] or [None] * plan.states
        vectors, strides, _alive = back.vectors.find(parameters)
        if back.finish is None:
            rows = [empty(inputs, steps, batch, columns) for columns in back.rows]
            back.program(steps, batch, vectors, strides, [*slots, *(value.data_ptr() for value in rows)])
            return self._finish(gradients, parameters, inputs, trajectories, kept, rows), of_first
        of_input = [empty(inputs, *inputs.shape)] if back.finish.of_input else []
        sums = [empty(inputs, *shape) for shape in back.finish.shapes]
        back.program(steps, batch, vectors, strides, [*slots, *(value.data_ptr() for value in (*of_input, *sums))])
        if back.finish.order is not None:
            return [*(sums[k] for k in back.finish.order), *of_input], of_first
        given = self.layout.outside(gradients)(parameters)
        return [*back.finish.after.forward(1, *parameters, *given, *sums), *of_input], of_first

    def _finish(self, gradients: Gradients, parameters, inputs, trajectories, kept, rows):
        """What is behind the loop, by PyTorch's operations."""
        plan, derivative = self.plan, gradients.derivative
        forward, back = self._pair(gradients)
        steps, batch = inputs.shape[:2]
        parts = kept
        if len(kept) != len(forward.kept):
            parts = kept[0].split([steps * batch * columns for columns in forward.kept])
        parts = [part.view(steps, batch, columns) for part, columns in zip(parts, forward.kept, strict=True)]
        of_hoisted = dict(zip(forward.kept_hoisted, parts, strict=False))
        hoisted = [of_hoisted.get(k, inputs) for k in range(plan.hoisted)]  # what is not kept is the input, or not read
        before = [trajectory[:-1] for trajectory in trajectories]
        given = self.layout.outside(gradients)(parameters)
        inner = [*given[: plan.prepared], *hoisted, *before]
        found = [rows[k] for k in back.row_of]
        late = found[len(found) - derivative.late :]
        values = derivative.rows_from(inner, parts[len(of_hoisted) :], late)
        return finish(gradients, parameters, inputs, given, values, found[: len(found) - derivative.late])


def _room(like: Tensor, sizes: Sequence[int], apart: bool) -> list[Tensor]:
    """Memory of these sizes: of little ones in one tensor, unless they must be `apart`."""
    if not apart and len(sizes) > 1 and sum(sizes) < _LITTLE:
        return [empty(like, sum(sizes))]
    return [empty(like, size) for size in sizes]


def _places(kept: Sequence[Tensor], sizes: Sequence[int]) -> list[int]:
    """Where each of the sizes begins."""
    if len(kept) == len(sizes):
        return [value.data_ptr() for value in kept]
    start, width = kept[0].data_ptr(), kept[0].element_size()
    places = []
    for size in sizes:
        places.append(start)
        start += size * width
    return places
