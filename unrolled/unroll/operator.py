"""A plan's native programs as PyTorch operators, for the graphs that torch.compile captures.

A graph cannot hold a plan, so `unrolled::unroll` and `unrolled::unroll_backward` take the name of a plan of this
process. The name is derived from what the plan computes. In another process it names the same cell's plan, or none.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unrolled.cells import Cell, State
from unrolled.errors import CompilerError, ConfigurationError, ShapeError, UntraceableError
from unrolled.unroll.adapt import Foreign, Form, Held, WrapperCell, title
from unrolled.unroll.cpu import NativeExecutor
from unrolled.unroll.fallback import say_fallback
from unrolled.unroll.fingerprint import fingerprint
from unrolled.unroll.padding import show
from unrolled.unroll.passes import Training
from unrolled.unroll.planned import Planned, find_plan, hold
from unrolled.unroll.signature import describe_module, settings
from unrolled.unroll.watch import has_code_of_its_own

T = TypeVar("T")
_plans: dict[str, Planned] = {}


def unroll_captured(
    cell: nn.Module,
    inputs: Tensor,
    state: State | Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, State] | None:
    """Do what `unroll` does, in a graph that is being captured. Return None if the operator cannot do it."""
    if isinstance(cell, WrapperCell) or torch.is_autocast_enabled("cpu"):  # created within the graph, with its dropout
        return None
    first = [] if state is None else [state] if isinstance(state, Tensor) else list(state)
    tensors = (inputs, *first)
    if any(value.device.type != "cpu" or value.dtype not in (torch.float32, torch.float64) for value in tensors):
        return None
    if any(part.size(0) != inputs.size(1) for part in first):
        return None
    form, prefix = None, "cell." if lengths is not None else ""
    if not isinstance(cell, Cell):
        if not first:
            return None
        takes = None if isinstance(state, Tensor) else len(first)
        form, prefix = (takes, inputs.size(-1), tuple(part.size(1) for part in first)), prefix + "module."
    found = _find(getattr(cell, "origin", cell), form, inputs.dtype, lengths is not None)
    if found is None:
        return None
    plan, names, visible, sizes = found
    values = {**dict(cell.named_parameters()), **dict(cell.named_buffers())}
    parameters = [values[name.removeprefix(prefix)] for name in names]
    inside, fed = hold(inputs, lengths, reverse)
    if reverse:
        fed = fed.flip(0)
    wanted = [value.requires_grad for value in (*parameters, fed)]
    if not torch.is_grad_enabled() or not (any(wanted) or any(part.requires_grad for part in first)):
        wanted = []
    _prepare(plan, tuple(wanted))
    made = torch.ops.unrolled.unroll(parameters, fed, first, plan, wanted)
    count = len(sizes) if wanted else len(visible)
    return show(made[visible[0] if wanted else 0][1:], inside, reverse), tuple(made[count : count + len(sizes)])


@torch.compiler.disable
def outside_graph(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call `function(*arguments, **options)` outside the graph."""
    return function(*arguments, **options)


# torch.compile must not trace the functions below: it takes their results as constants.


@torch.compiler.assume_constant_result
def runs_own_code(cell: nn.Module) -> bool:
    """Return whether the step runs the user's code, which may read values that a graph does not check again."""
    return has_code_of_its_own(list(cell.modules()))


@torch.compiler.assume_constant_result
def _find(
    module: nn.Module, form: tuple[Form, int, tuple[int, ...]] | None, dtype: torch.dtype, held: bool
) -> tuple[str, tuple[str, ...], tuple[int, ...], tuple[int, ...]] | None:
    """Return a plan's name, its parameters' names, its visible states and all state sizes, or None if there is no plan.

    There is also none for a cell whose output is not one of its states.
    """
    if any(parameter.is_meta for parameter in module.parameters()):  # the template of a drop-in layer
        module = copy.deepcopy(module).to_empty(device="cpu").requires_grad_(False)
        for tensor in module.parameters():
            tensor.zero_()
    cell: Any = Foreign(module, *form) if form else module
    cell = Held(cell) if held else cell
    try:
        planned, _, found = find_plan(cell, dtype, torch.device("cpu"), native=True)
    except (UntraceableError, CompilerError) as error:
        say_fallback(title(cell), error)
        return None
    schedule = planned.schedule
    if schedule.sink is not None or found is not cell:
        return None
    return _name(planned, cell, dtype), schedule.parameter_names, schedule.visible, schedule.state_sizes


def _name(planned: Planned, cell: Cell, dtype: torch.dtype) -> str:
    """Return the plan's name in `_plans`, adding the plan if it has none."""
    for name, known in _plans.items():
        if known is planned:
            return name
    described = describe_module(cell)
    name = fingerprint(described.structure, settings(described), str(dtype)) or secrets.token_hex(16)
    while name in _plans:  # another plan for the same content has this name
        name = secrets.token_hex(16)
    _plans[name] = planned
    return name


@torch.compiler.assume_constant_result
def _prepare(name: str, wanted: tuple[bool, ...]) -> None:
    """Compile the programs that a call needs, because this cannot be done while a graph is captured."""
    if wanted:
        _found(name, wanted)


def _plan(name: str) -> Planned:
    try:
        return _plans[name]
    except KeyError:
        raise ConfigurationError(
            f"this process has no plan {name}: the graph was captured in another process; call torch.compile in this "
            "process, or save the layer with torch.export"
        ) from None


def _found(name: str, wanted: Sequence[bool]) -> tuple[NativeExecutor, Training]:
    executor = _plan(name).executor
    assert isinstance(executor, NativeExecutor)
    return executor, executor.gradients(tuple(wanted))


@torch.library.custom_op("unrolled::unroll", mutates_args=(), device_types="cpu")
def _unroll(
    parameters: Sequence[Tensor], inputs: Tensor, state: Sequence[Tensor], plan: str, wanted: Sequence[bool]
) -> list[Tensor]:
    """Return the states of all steps `[T + 1, B, size]`, the last states, and what `unroll_backward` needs.

    wanted: which parameters want a gradient, followed by whether the input does. If it is empty, the result holds only
        the visible states of all steps and the last states.
    """
    if not wanted:
        trajectories, final = _plan(plan).executor.run(parameters, inputs, tuple(state))
        return [*trajectories, *final]
    executor, gradients = _found(plan, wanted)
    _, final, kept = executor.forward(gradients, parameters, inputs, tuple(state), apart=True)
    return [*kept[: len(final)], *final, *kept[len(final) :]]


@_unroll.register_fake
def _(parameters, inputs, state, plan, wanted):
    steps, batch = inputs.shape[:2]
    schedule = _plan(plan).schedule
    sizes = schedule.state_sizes
    shown = sizes if wanted else [sizes[k] for k in schedule.visible]
    kept = _found(plan, wanted)[1].forward.kept if wanted else []
    return [
        *(inputs.new_empty(steps + 1, batch, columns) for columns in shown),
        *(inputs.new_empty(batch, columns) for columns in sizes),
        *(inputs.new_empty(steps * batch * columns) for columns in kept),
    ]


@torch.library.custom_op("unrolled::unroll_backward", mutates_args=(), device_types="cpu")
def _unroll_backward(
    parameters: Sequence[Tensor],
    inputs: Tensor,
    kept: Sequence[Tensor],
    of_steps: Sequence[Tensor | None],
    of_states: Sequence[Tensor | None],
    plan: str,
    wanted: Sequence[bool],
    wants_first: bool,
) -> list[Tensor]:
    """Return the wanted gradients and those of the first states."""
    executor, gradients = _found(plan, wanted)
    found, of_first = executor.backward(gradients, parameters, inputs, kept, of_steps, of_states, wants_first)
    return [*found, *of_first]


@_unroll_backward.register_fake
def _(parameters, inputs, kept, of_steps, of_states, plan, wanted, wants_first):
    values = [*parameters, inputs]
    found = [values[k].new_empty(values[k].shape) for k in _found(plan, wanted)[1].chosen]
    sizes = _plan(plan).schedule.state_sizes if wants_first else ()
    return [*found, *(inputs.new_empty(inputs.size(1), columns) for columns in sizes)]


def _setup(ctx, inputs, output) -> None:
    parameters, x, state, plan, wanted = inputs
    states = _plan(plan).schedule.states
    ctx.set_materialize_grads(False)
    ctx.counts = len(parameters), len(state), states
    ctx.plan, ctx.wanted = plan, list(wanted)
    ctx.save_for_backward(*parameters, x, *output[:states], *output[2 * states :])


def _backward(ctx, of_output):
    count, given, states = ctx.counts
    saved = ctx.saved_tensors
    of_steps = [None if of_output[k] is None else of_output[k][1:] for k in _plan(ctx.plan).schedule.visible]
    made = torch.ops.unrolled.unroll_backward(
        *(list(saved[:count]), saved[count], list(saved[count + 1 :]), of_steps, list(of_output[states : 2 * states])),
        *(ctx.plan, ctx.wanted, given > 0),
    )
    found: list[Tensor | None] = [None] * (count + 1)
    chosen = _found(ctx.plan, ctx.wanted)[1].chosen
    for k, gradient in zip(chosen, made, strict=False):
        found[k] = gradient
    return found[:count], found[count], list(made[len(chosen) :]), None, None


_unroll.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op("unrolled::check_lengths", mutates_args=())
def check_lengths(lengths: Tensor, steps: int) -> Tensor:
    """Return a copy of `lengths`; ShapeError if one is below 0 or above `steps`."""
    if lengths.numel() and (int(lengths.min()) < 0 or int(lengths.max()) > steps):
        raise ShapeError(f"lengths must be whole numbers from 0 to {steps}, got {lengths.tolist()}")
    return lengths.clone()


@check_lengths.register_fake
def _(lengths, steps):
    return torch.empty_like(lengths)
