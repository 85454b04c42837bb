"""The executor that runs a plan in native code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unrolled.unroll.compiled import Native
from unrolled.unroll.passes import Forward, Training
from unrolled.unroll.schedule import Schedule, rows_from, rows_of
from unrolled.unroll.signature import planning
from unrolled.unroll.store import Record
from unrolled.unroll.workspace import empty

if TYPE_CHECKING:
    from unrolled.unroll.plan import Plan

_LITTLE = 1 << 19  # up to this many elements, one tensor is cheaper to allocate than several


class NativeExecutor:
    """Runs a plan's loops in native code; its methods are those of `Executor`."""

    def __init__(self, record: Record, plan: Callable[[], Plan], dtype: torch.dtype) -> None:
        """Use the programs in `record`, the cached part of a plan; `plan` returns the plan if a program is missing."""
        self.schedule: Schedule = record.schedule
        self._record, self._plan, self._dtype = record, plan, dtype
        self._inference: Forward | None = None
        self._training: dict[tuple[bool, ...], Training] = {}

    def run(self, parameters, inputs, state):
        if self._inference is None:
            with planning:
                forward = self._record.inference
                if forward is None or not forward.program.find():
                    forward = self._layout().inference()
                    forward.program.compile()
                self._inference = forward
                self._record.add(inference=forward)
        trajectories, final, _ = self._call(self._inference, parameters, inputs, state)
        return trajectories, final

    def gradients(self, wanted: tuple[bool, ...]) -> Training:
        """Compile both passes at once, so that an error appears before anything has run."""
        if wanted not in self._training:
            with planning:
                training = self._record.training.get(wanted)
                if training is None or not all(part.program.find() for part in (training.forward, training.backward)):
                    training = self._layout().training(self._plan().gradients(wanted))
                    with ThreadPoolExecutor(2) as pool:
                        list(pool.map(Native.compile, [training.forward.program, training.backward.program]))
                self._training[wanted] = training
                self._record.add(training={wanted: training})
        return self._training[wanted]

    def _layout(self):
        from unrolled.unroll.layout import Layout

        return Layout(self._plan(), self._dtype)

    def forward(self, gradients: Training, parameters, inputs, state, apart: bool = False):
        """Run the forward pass; `apart`: allocate one tensor for each of `gradients.forward.kept`, however small."""
        trajectories, final, kept = self._call(gradients.forward, parameters, inputs, state, apart)
        return [trajectories[k] for k in self.schedule.visible], final, [*trajectories, *kept]

    def _call(self, forward: Forward, parameters, inputs, state, apart: bool = False):
        schedule = self.schedule
        steps, batch = inputs.shape[:2]
        inputs = inputs.contiguous()
        first = [part.contiguous() for part in state] if state else []
        trajectories = [empty(inputs, steps + 1, batch, columns) for columns in forward.trajectories.values()]
        final = tuple([inputs.new_empty(batch, columns) for columns in schedule.state_sizes])
        sizes = [steps * batch * columns for columns in forward.kept]
        rest: list[Tensor] = []
        if forward.hoists:
            kept = _room(inputs, sizes, apart)
        else:
            _, hoisted = schedule.hoist_steps(parameters, inputs)
            hoisted = [value.to(inputs.dtype).contiguous() for value in hoisted]
            rest = [hoisted[k] for k in forward.rest]
            kept = [hoisted[k].view(-1) for k in forward.kept_hoisted]
            kept += [empty(inputs, size) for size in sizes[len(kept) :]]
        places = [part.data_ptr() for part in first] or [None] * schedule.states
        places += [value.data_ptr() for value in (*trajectories, *final)]
        places += [*_places(kept, sizes), *(value.data_ptr() for value in rest)]
        vectors, strides, _alive = forward.vectors.find(parameters)
        forward.program(steps, batch, vectors, strides, [inputs.data_ptr(), *places])
        return trajectories, final, kept

    def backward(self, gradients: Training, parameters, inputs, kept, of_steps, of_states, wants_first):
        schedule, forward, back = self.schedule, gradients.forward, gradients.backward
        steps, batch = inputs.shape[:2]
        inputs = inputs.contiguous()
        trajectories, kept = kept[: schedule.states], kept[schedule.states :]
        every = [
            inputs.new_zeros(steps, batch, schedule.state_sizes[k]) if value is None else value.contiguous()
            for k, value in zip(schedule.visible, of_steps, strict=True)
        ]
        last = [None if value is None else value.contiguous() for value in of_states]
        of_first = [inputs.new_empty(batch, columns) for columns in schedule.state_sizes] if wants_first else []
        arguments = [value.data_ptr() for value in (inputs, *trajectories)]
        arguments += _places(kept, [steps * batch * columns for columns in forward.kept])
        arguments += [value.data_ptr() for value in every]
        arguments += [None if value is None else value.data_ptr() for value in last]
        arguments += [value.data_ptr() for value in of_first] or [None] * schedule.states
        vectors, strides, _alive = back.vectors.find(parameters)
        if back.epilogue is None:
            rows = [empty(inputs, steps, batch, columns) for columns in back.rows]
            back.program(steps, batch, vectors, strides, [*arguments, *(value.data_ptr() for value in rows)])
            return self._finish(gradients, parameters, inputs, trajectories, kept, rows), of_first
        of_input = [empty(inputs, *inputs.shape)] if back.epilogue.of_input else []
        sums = [empty(inputs, *shape) for shape in back.epilogue.shapes]
        back.program(steps, batch, vectors, strides, [*arguments, *(value.data_ptr() for value in (*of_input, *sums))])
        if back.epilogue.order is not None:
            return [*(sums[k] for k in back.epilogue.order), *of_input], of_first
        given = gradients.outside(parameters)
        return [*back.epilogue.after(1, *parameters, *given, *sums), *of_input], of_first

    def _finish(self, gradients: Training, parameters, inputs, trajectories, kept, rows):
        """Compute what follows the loop with PyTorch's operations."""
        schedule, forward = self.schedule, gradients.forward
        if gradients.finish is None:
            return []
        steps, batch = inputs.shape[:2]
        parts = kept
        if len(kept) != len(forward.kept):
            parts = kept[0].split([steps * batch * columns for columns in forward.kept])
        parts = [part.view(steps, batch, columns) for part, columns in zip(parts, forward.kept, strict=True)]
        of_hoisted = dict(zip(forward.kept_hoisted, parts, strict=False))
        # A hoisted value that is not kept is x, or is not read.
        hoisted = [of_hoisted.get(k, inputs) for k in range(schedule.hoisted)]
        before = [trajectory[:-1] for trajectory in trajectories]
        given = gradients.outside(parameters)
        found = [rows[k] for k in gradients.backward.row_of]
        deferred_from = len(found) - gradients.deferred
        inner = [*given[: schedule.prepared], *hoisted, *before]
        values = [
            *rows_from(gradients.row_values, inner, parts[len(of_hoisted) :], found[deferred_from:]),
            *found[:deferred_from],
        ]
        x = rows_of(inputs)
        return gradients.finish(len(x), *parameters, x, *given, *(value.reshape(len(x), -1) for value in values))


def _room(like: Tensor, sizes: Sequence[int], apart: bool) -> list[Tensor]:
    """Allocate memory of these sizes, in one tensor if they are small, unless they must be `apart`."""
    if not apart and len(sizes) > 1 and sum(sizes) < _LITTLE:
        return [empty(like, sum(sizes))]
    return [empty(like, size) for size in sizes]


def _places(kept: Sequence[Tensor], sizes: Sequence[int]) -> list[int]:
    """Return the address at which each of the sizes starts."""
    if len(kept) == len(sizes):
        return [value.data_ptr() for value in kept]
    start, width = kept[0].data_ptr(), kept[0].element_size()
    places = []
    for size in sizes:
        places.append(start)
        start += size * width
    return places
