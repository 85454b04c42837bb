"""Unrolls a cell by its plan: finds the plan and runs its executor under autograd."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unrolled.cells import Cell, State
from unrolled.errors import UntraceableError
from unrolled.unroll.adapt import Held
from unrolled.unroll.cpu import NativeExecutor
from unrolled.unroll.eager import unroll_eager
from unrolled.unroll.executor import Executor, Tensors, TorchExecutor, cut
from unrolled.unroll.fallback import guarded, in_new_thread, is_followed
from unrolled.unroll.fingerprint import fingerprint
from unrolled.unroll.graph import Graph
from unrolled.unroll.known import Known
from unrolled.unroll.native import compiler
from unrolled.unroll.observe import Observer, Seen, seen_by
from unrolled.unroll.padding import choose, fill_padding, fill_states, show, steps_inside
from unrolled.unroll.schedule import Schedule
from unrolled.unroll.signature import describe_module, settings
from unrolled.unroll.store import Record
from unrolled.unroll.trial import trial_copy
from unrolled.unroll.watch import Watch

if TYPE_CHECKING:
    from unrolled.unroll.plan import Plan


class Planned:
    """A plan's schedule and its executor, for cells of one signature."""

    def __init__(self, schedule: Schedule, executor: Executor) -> None:
        self.schedule, self.executor = schedule, executor


_planned: Known[Planned] = Known()


def find_plan(
    cell: Cell, dtype: torch.dtype, device: torch.device, native: bool = False
) -> tuple[Planned, list[Tensor], Cell]:
    """Return the plan of a cell, the parameters in the plan's order, and the cell that these belong to.

    The plan is made at first use and cached in the process. Its native programs are also cached on disk. If a plan
    cannot be made, the error is cached in the process.
    """

    def make(cell: Cell) -> tuple[Planned, Watch]:
        return _make(cell, dtype, device, native)

    return guarded(_planned.find, cell, (dtype, device, native, torch.get_default_dtype()), make)


def _make(cell: Cell, dtype: torch.dtype, device: torch.device, native: bool) -> tuple[Planned, Watch]:
    described = describe_module(cell)
    seen = seen_by(described.modules)
    plan = _Traced(cell, dtype, device, seen)
    verified = False
    if native:
        compiler()
        kept = fingerprint(described.structure, settings(described), str(dtype))
        record = Record.find(kept)
        verified = record is not None and _is_for(record, cell, dtype, device, seen)
        if record is None or not verified:
            record = Record(plan().schedule, kept)
        made = Planned(record.schedule, NativeExecutor(record, plan, dtype))
    else:
        made = Planned(plan().schedule, TorchExecutor(plan()))
    if seen is None:
        if not verified:
            check_values(made.schedule, cell, dtype, device)
        return made, Watch(None, (), described.modules)
    watch = seen.unchanged(described.modules, lambda: check_values(made.schedule, cell, dtype, device))
    if seen.asks_type and "lifted" in vars(cell):
        raise UntraceableError("it checks the type of a value, which may be a number that has become a tensor")
    return made, watch


class _Traced:
    """The plan of a cell, traced at the first call."""

    def __init__(self, cell: Cell, dtype: torch.dtype, device: torch.device, seen: Seen | None) -> None:
        # A copy of the cell without the values of its tensors, which may be large and would otherwise be kept alive.
        empty = {id(tensor): _without_memory(tensor) for tensor in describe_module(cell).tensors.values()}
        self._cell = trial_copy(cell, empty)[0]
        self._dtype, self._device, self._seen = dtype, device, seen
        self._plan: Plan | None = None

    def __call__(self) -> Plan:
        if self._plan is None:
            from unrolled.unroll.plan import Plan  # it imports much of PyTorch that a cached plan does not need

            self._plan = Plan(self._cell, self._dtype, self._device, self._seen)
        return self._plan


def _without_memory(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape that has one element in memory."""
    if tensor.layout is not torch.strided:
        raise UntraceableError("it holds a sparse tensor; use a dense one")
    made = tensor.new_empty(()).expand(tensor.shape)
    return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made


def check_values(schedule: Schedule, cell: Cell, dtype: torch.dtype, device: torch.device) -> None:
    """Check that two steps of the plan compute what the cell computes; else UntraceableError."""
    if not _agrees(schedule, cell, dtype, device):
        raise UntraceableError("its step depends on the size of the batch, or on something that is not its argument")


def _is_for(record: Record, cell: Cell, dtype: torch.dtype, device: torch.device, seen: Seen | None) -> bool:
    """Return whether a cached plan is this cell's. A plan from a file may be another cell's, and may not even run."""
    try:
        return _agrees(record.schedule, cell, dtype, device, seen)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, OverflowError, MemoryError):
        return False  # the plan is made again; an error of the cell itself is raised again then


def _agrees(schedule: Schedule, cell: Cell, dtype: torch.dtype, device: torch.device, seen: Seen | None = None) -> bool:
    """Return whether two steps of the plan compute what the cell computes. `seen` records what these steps read."""
    described = describe_module(cell)
    named = described.tensors
    if tuple(named) != schedule.parameter_names or cell.state_sizes != schedule.state_sizes:
        return False

    def compare() -> bool:
        generator = torch.Generator().manual_seed(0)
        sizes = [(2, 2, cell.input_size), *((2, size) for size in schedule.state_sizes)]
        inputs, *state = (torch.randn(size, generator=generator, dtype=dtype).to(device) for size in sizes)
        trial, uncopied = trial_copy(cell, {id(tensor): tensor for tensor in named.values()})
        with torch.no_grad(), Observer(uncopied) as observer:
            outputs, expected = unroll_eager(trial, inputs, tuple(state), None, False)
        observer.settled()
        if seen is not None:
            seen.add(observer, described.modules, describe_module(trial).modules)
        with torch.no_grad():
            states = schedule.run_steps(list(named.values()), inputs, tuple(state))
            found = _outputs(schedule, list(named.values()), inputs, tuple(state), schedule.visible_steps(states[1:]))
        return all(
            torch.allclose(value, other, rtol=1e-2, atol=1e-3, equal_nan=True)
            for value, other in zip((outputs, *expected), (found, *states[-1]), strict=True)
        )

    return in_new_thread(compare)


def unroll_planned(
    cell: Cell, inputs: Tensor, state: State | None, lengths: Tensor | None, reverse: bool, native: bool = False
) -> tuple[Tensor, State]:
    """Do what `unroll_eager` does; UntraceableError if the cell's step cannot be planned."""
    if lengths is not None:
        cell = Held(cell)
    inside, fed = hold(inputs, lengths, reverse)
    given, moved = state, None
    if lengths is not None and state is not None and bool((lengths == 0).any()):
        moved = (lengths > 0).unsqueeze(-1)
        state = choose(moved, state, fill_states(state, lengths))
    planned, parameters, _ = find_plan(cell, inputs.dtype, inputs.device, native)
    schedule, executor = planned.schedule, planned.executor
    if reverse:
        fed = fed.flip(0)
    tensors = (*parameters, fed, *(state or ()))
    if not native and is_followed(tensors):
        states = schedule.run_steps(parameters, fed, state)
        after, final = schedule.visible_steps(states[1:]), states[-1]
    elif torch.is_grad_enabled() and _wants_gradients(schedule, tensors):
        made = _Unroll.apply(planned, *tensors)
        after, final = made[: len(schedule.visible)], made[len(schedule.visible) :]
    else:
        trajectories, final = executor.run(parameters, fed, state)
        after = [trajectory[1:] for trajectory in trajectories]
    outputs = _outputs(schedule, parameters, fed, state, after)
    if moved is not None and given is not None:
        final = choose(moved, final, given)
    return show(outputs, inside, reverse), tuple(final)


def _wants_gradients(schedule: Schedule, tensors: Tensors) -> bool:
    """Return whether one of `tensors` that the states depend on wants a gradient."""
    reaching = (*schedule.reaching, *(True for _ in tensors[len(schedule.reaching) :]))
    return any(tensor.requires_grad for tensor in itertools.compress(tensors, reaching))


def _outputs(schedule: Schedule, parameters: Tensors, inputs: Tensor, state: State | None, after: Tensors) -> Tensor:
    """Return the output of every step. `after` are the visible states after each step."""
    if schedule.sink is None:
        return after[0]
    outputs = sink(schedule.sink, schedule.visible, parameters, inputs, schedule.first(inputs, state), after)
    # The outputs never share memory with the input, even if the output is the input.
    return outputs.clone() if outputs.untyped_storage().data_ptr() == inputs.untyped_storage().data_ptr() else outputs


def hold(inputs: Tensor, lengths: Tensor | None, reverse: bool) -> tuple[Tensor | None, Tensor]:
    """Return which steps are inside their sequence, `[T, B, 1]`, and the input for the `Held` cell."""
    if lengths is None:
        return None, inputs
    inside = steps_inside(len(inputs), lengths)
    if torch.is_grad_enabled():  # only gradients depend on the padding; values do not
        inputs = fill_padding(inputs, lengths, inside, reverse)
    return inside, torch.cat([inputs, inside.to(inputs.dtype)], -1)


def sink(
    graph: Graph, visible: Sequence[int], parameters: Tensors, inputs: Tensor, state: State, after: Tensors
) -> Tensor:
    """Return the output of every step, for a cell whose output is not a state. `after` are the visible states."""
    steps, batch = inputs.shape[:2]
    every = [part.expand(steps, -1, -1) for part in state]  # invisible states are not read
    before = list(every)
    for k, states in zip(visible, after, strict=True):
        before[k], every[k] = torch.cat([state[k].unsqueeze(0), states[:-1]]), states
    flat = [value.reshape(steps * batch, -1) for value in (inputs, *before, *every)]
    (outputs,) = graph(steps * batch, *parameters, *flat)
    return outputs.reshape(steps, batch, -1)


class _Unroll(torch.autograd.Function):
    """A plan's executor under autograd.

    Takes parameters, the input and the first states. Returns the visible states of every step and the last states.
    """

    @staticmethod
    def forward(ctx, planned: Planned, *tensors: Tensor):
        count = len(planned.schedule.parameter_names)
        parameters, inputs, state = tensors[:count], tensors[count], tensors[count + 1 :]
        gradients = planned.executor.gradients(ctx.needs_input_grad[1 : 2 + count])
        trajectories, final, kept = planned.executor.forward(gradients, parameters, inputs, state)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *kept)
        ctx.planned, ctx.gradients = planned, gradients
        # The outputs share memory with the kept values. They are not views as autograd sees it, because then it would
        # forbid changing them in place. If they have been changed, backward computes the kept values again.
        shown = [trajectory[1:].data for trajectory in trajectories]
        ctx.versions = [_Version(value) for value in shown]
        return *shown, *final

    @staticmethod
    def backward(ctx, *incoming: Tensor | None):
        planned, needed = ctx.planned, ctx.needs_input_grad[1:]
        schedule, count = planned.schedule, len(planned.schedule.parameter_names)
        parameters, (inputs,), state, kept = cut(ctx.saved_tensors, [count, 1, len(needed) - count - 1])
        if torch.is_grad_enabled() or is_followed(value for value in incoming if value is not None):
            return None, *_differentiable(schedule, parameters, inputs, state, incoming, needed)
        if any(version.has_changed() for version in ctx.versions):
            kept = planned.executor.forward(ctx.gradients, parameters, inputs, state)[2]
        of_steps, of_states = incoming[: len(schedule.visible)], incoming[len(schedule.visible) :]
        made, of_first = planned.executor.backward(
            ctx.gradients, parameters, inputs, kept, of_steps, of_states, wants_first=bool(state)
        )
        found: list[Tensor | None] = [None] * (count + 1)
        for k, gradient in zip(ctx.gradients.chosen, made, strict=True):
            found[k] = gradient.reshape(inputs.shape) if k == count else gradient
        of_state = (value if needs else None for value, needs in zip(of_first, needed[count + 1 :], strict=True))
        return None, *found, *of_state


class _Version:
    """Detects in-place changes of a tensor that autograd counts, which excludes changes by `.data` or NumPy."""

    def __init__(self, tensor: Tensor) -> None:
        self._counter = tensor.detach()  # both share one version counter
        self._counter.data = tensor.new_empty(0)  # but neither keeps the other's memory alive
        self._before = tensor._version

    def has_changed(self) -> bool:
        return self._counter._version != self._before


def _differentiable(schedule: Schedule, parameters, inputs, state, incoming, needed):
    """Return the gradients by autograd through every step, for higher-order gradients and transforms."""
    further, count = torch.is_grad_enabled(), len(parameters)
    with torch.enable_grad():
        # Aliases: if the state depends on the same parameters, the gradient through it must not be found here.
        own = [tensor.view_as(tensor) for tensor in (*parameters, inputs, *state)]
        wanted = [tensor for tensor, needs in zip(own, needed, strict=True) if needs]
        parameters, inputs, state = own[:count], own[count], tuple(own[count + 1 :])
        states = schedule.run_steps(parameters, inputs, state)
        made = (*schedule.visible_steps(states[1:]), *states[-1])
        pairs = [(v, g) for v, g in zip(made, incoming, strict=True) if v.requires_grad and g is not None]
        if not pairs:
            return [None] * len(needed)
        values, given = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(values, wanted, given, create_graph=further, allow_unused=True))
    return [next(found) if needs else None for needs in needed]
