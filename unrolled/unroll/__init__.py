"""The engine. It unrolls any cell over time with one of several backends, which all compute the same result."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unrolled.cells import Cell, State
from unrolled.errors import CompilerError, ConfigurationError, ShapeError, UntraceableError
from unrolled.unroll.adapt import Foreign, Form, adapt, check_module, first_step, pack, returned, title, unpack
from unrolled.unroll.eager import unroll_eager
from unrolled.unroll.exported import unroll_exported
from unrolled.unroll.fallback import (
    is_about_types,
    is_followed,
    is_refused,
    refuse,
    say_fallback,
    tensors_of,
    why_not_native,
)
from unrolled.unroll.kernels import has_kernel, unroll_kernel
from unrolled.unroll.planned import unroll_planned
from unrolled.unroll.recompute import in_segments
from unrolled.unroll.signature import PassingError, describe_module
from unrolled.unroll.versions import BEFORE_2_12, is_exporting

__all__ = ["BACKENDS", "unroll"]

#: "eager" defines the result. "native" compiles the cell for the CPU; "planned" runs its plan with PyTorch's
#: operations; "torch" uses PyTorch's fused kernels, which exist for three cells. "auto" uses the first of native,
#: torch and eager that can run the cell.
BACKENDS = ("auto", "eager", "native", "planned", "torch")


def unroll(
    cell: nn.Module,
    inputs: Tensor,
    state: State | Tensor | None = None,
    *,
    lengths: Tensor | Sequence[int] | None = None,
    reverse: bool = False,
    backend: str = "auto",
    recompute_every: int | None = None,
) -> tuple[Tensor, State]:
    """Run `cell` over `inputs`, one step after another.

    inputs: `[T, B, I]`, time first.
    state: the state before the first step, a tensor `[B, size]` for each of `cell.state_names`. Default: zeros.
    lengths: `[B]`, the number of valid steps of each sequence, of any integer type and on any device. After its last
        valid step a sequence keeps its state, its outputs are zero, and its inputs are not read.
    reverse: read from the last step to the first; with lengths, from each sequence's own last step.
    backend: one of `BACKENDS`.
    recompute_every: keep states for the backward pass only every k steps and recompute the others there. This needs
        memory for T/k states and k steps instead of T steps, and computes the forward pass twice. √T is a good choice.

    Returns `(outputs [T, B, state_sizes[0]], state)`. Each output is at the step of its input, also in reverse.
    Raises ShapeError if a tensor does not fit the cell, ConfigurationError if the backend cannot run it.
    """
    check_module(cell)
    _check_dimensions(inputs)
    if backend not in BACKENDS:
        raise ConfigurationError(f"unknown backend {backend!r}: choose from {', '.join(BACKENDS)}")
    if backend == "torch" and not has_kernel(cell):
        raise ConfigurationError(f"PyTorch has no kernel for {type(cell).__name__}: use backend='auto' or 'eager'")
    if backend in ("auto", "native") and inputs.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # Autocast is meant for single operations. A whole loop is fastest and most accurate in its weights' dtype.
        dtype = next((p.dtype for p in cell.parameters() if p.is_floating_point()), inputs.dtype)
        with torch.autocast("cpu", enabled=False):
            given = None if state is None else pytree.tree_map(lambda part: part.to(dtype), state)
            return unroll(
                cell,
                inputs.to(dtype),
                given,
                lengths=lengths,
                reverse=reverse,
                backend=backend,
                recompute_every=recompute_every,
            )
    lengths = check_lengths(inputs, lengths)
    exporting = is_exporting()
    if recompute_every is not None and not exporting and (state is not None or isinstance(cell, Cell)):
        pieces = cell, inputs, state, lengths, reverse, backend, recompute_every
        if torch.compiler.is_compiling():
            from unrolled.unroll.operator import outside_graph

            return outside_graph(_in_segments, *pieces)
        return _in_segments(*pieces)
    if torch.compiler.is_compiling() and backend != "torch" and not exporting:
        # This imports torch._dynamo, which takes seconds.
        from unrolled.unroll.operator import outside_graph, runs_own_code, unroll_captured

        # PyTorch 2.11 does not accept a module as a constant, and a graph would miss changed settings of user code.
        if backend in ("auto", "native") and (BEFORE_2_12 or runs_own_code(cell)):
            return outside_graph(unroll, cell, inputs, state, lengths=lengths, reverse=reverse, backend=backend)
        captured = unroll_captured(cell, inputs, state, lengths, reverse) if backend in ("auto", "native") else None
        if captured is not None:
            return captured
        backend = "eager"
    form: Form = None
    if isinstance(cell, Cell):
        check_inputs(cell, inputs)
        if state is not None or type(cell).initial_state is not Cell.initial_state:  # zeros need no memory
            state = _check_state(cell, inputs, state)
    elif state is None:
        if exporting:
            raise ConfigurationError(
                f"torch.export cannot capture how {type(cell).__name__} creates its first state: give unroll a state"
            )
        return _start(cell, inputs, lengths, reverse, backend, recompute_every)
    else:
        cell, state = adapt(cell, inputs, state)
        form = cell.form
    if exporting:
        start = cell.initial_state(inputs.size(1), like=inputs) if state is None else state
        outputs, final = unroll_exported(cell, inputs, start, lengths, reverse, backend)
    else:
        outputs, final = _run(cell, inputs, state, lengths, reverse, backend)
    return outputs, returned(final, form)


def _run(
    cell: Cell, inputs: Tensor, state: State | None, lengths: Tensor | None, reverse: bool, backend: str
) -> tuple[Tensor, State]:
    """Run `cell` with the first backend that can."""
    # The loop broadcasts a state of one row; for another number of rows it raises its own error.
    if any(part.size(0) != inputs.size(1) for part in state or ()):
        if backend in ("planned", "native") or lengths is not None:
            raise ShapeError(f"the states of {title(cell)} must have {inputs.size(1)} rows, like the input")
        return unroll_eager(cell, inputs, tuple(state or ()), None, reverse)
    failed: UntraceableError | CompilerError | None = None
    reason = why_not_native(inputs, state, cell) if backend in ("auto", "native") else None
    if backend in ("planned", "native"):
        try:
            if reason:
                raise UntraceableError(reason)
            return unroll_planned(cell, inputs, state, lengths, reverse, native=backend == "native")
        except (UntraceableError, CompilerError) as error:
            raise ConfigurationError(f"{title(cell)}: {error}: use backend='eager'") from error
    # Running one step of a user's module takes less time than looking up its plan.
    single = isinstance(cell, Foreign) and len(inputs) == 1
    if backend == "auto" and reason is None and not single and not is_refused(cell, inputs, lengths):
        try:
            return unroll_planned(cell, inputs, state, lengths, reverse, native=True)
        except (UntraceableError, CompilerError) as error:
            failed = error
    if state is None:
        state = cell.initial_state(inputs.size(1), like=inputs)
    # PyTorch's kernels have no batching rule for vmap and no useful rules for the other transforms.
    plain = backend == "eager" or not has_kernel(cell)
    plain = plain or (backend == "auto" and is_followed(chain((inputs, *state), tensors_of(cell))))
    result = (unroll_eager if plain else unroll_kernel)(cell, inputs, state, lengths, reverse)
    if failed is not None:  # after the run: if the step itself is wrong, its own error says more
        say_fallback(title(cell), failed)
        if not isinstance(failed, PassingError):
            refuse(cell, inputs, lengths)
    elif plain and backend == "auto" and reason is not None and is_about_types(inputs, state):
        say_fallback(title(cell), reason)
    return result


def _in_segments(
    cell: nn.Module,
    inputs: Tensor,
    state: State | Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
    backend: str,
    recompute_every: int,
) -> tuple[Tensor, State]:
    if isinstance(cell, Cell):
        check_inputs(cell, inputs)
        state = _check_state(cell, inputs, state)
    first, form = unpack(state)

    def run(piece: Tensor, start: State, left: Tensor | None, followed: bool) -> tuple[Tensor, State]:
        chosen = "eager" if followed else backend
        outputs, final = unroll(cell, piece, pack(start, form), lengths=left, reverse=reverse, backend=chosen)
        return outputs, unpack(final)[0]

    tensors = list(describe_module(cell).tensors.values())
    outputs, final = in_segments(run, tensors, inputs, first, lengths, reverse, recompute_every)
    return outputs, returned(final, form)


def _start(
    module: nn.Module,
    inputs: Tensor,
    lengths: Tensor | None,
    reverse: bool,
    backend: str,
    recompute_every: int | None,
) -> tuple[Tensor, State]:
    """Unroll a user's module that creates its own first state, by running its first step directly."""
    if lengths is not None and (reverse or bool((lengths == 0).any())):
        raise ConfigurationError(
            f"{type(module).__name__} creates its first state in its first step, but with these lengths some sequence "
            "does not take that step: give unroll a state"
        )
    output, state = first_step(module, inputs[-1] if reverse else inputs[0])
    if inputs.size(0) == 1:
        return output.unsqueeze(0), returned(*unpack(state))
    rest = inputs[:-1] if reverse else inputs[1:]
    left = None if lengths is None else lengths - 1
    outputs, final = unroll(
        module, rest, state, lengths=left, reverse=reverse, backend=backend, recompute_every=recompute_every
    )
    parts = [outputs, output.unsqueeze(0)] if reverse else [output.unsqueeze(0), outputs]
    return torch.cat(parts), final


def _check_dimensions(inputs: Tensor) -> None:
    if not isinstance(inputs, Tensor):
        raise ShapeError(f"inputs must be a tensor [T, B, features], got a {type(inputs).__name__}")
    if inputs.dim() != 3:
        raise ShapeError(f"inputs must be [T, B, features], got {list(inputs.shape)}")
    if inputs.size(0) == 0:
        raise ShapeError("cannot unroll over no steps: inputs has T = 0")


def check_inputs(cell: Cell, inputs: Tensor) -> None:
    """Raise ShapeError if `inputs` is not `[T, B, input_size]` with T at least 1."""
    if inputs.dim() != 3 or inputs.size(2) != cell.input_size:
        raise ShapeError(f"inputs must be [T, B, {cell.input_size}] for {cell}, got {list(inputs.shape)}")
    _check_dimensions(inputs)


def _check_state(cell: Cell, inputs: Tensor, state: State | Tensor | None) -> State:
    batch = inputs.size(1)
    if state is None:
        return cell.initial_state(batch, like=inputs)
    state = (state,) if isinstance(state, Tensor) else tuple(state)
    expected = [[batch, size] for size in cell.state_sizes]
    if [list(part.shape) for part in state] != expected:
        names = ", ".join(f"{name} {shape}" for name, shape in zip(cell.state_names, expected, strict=True))
        got = ", ".join(str(list(part.shape)) for part in state)
        raise ShapeError(f"state of {cell} must be {names}; got {got}")
    return state


def check_lengths(inputs: Tensor, lengths: Tensor | Sequence[int] | None) -> Tensor | None:
    """Return the lengths as int64 on the device of `inputs [T, B, ...]`, or None if there are no lengths or sequences.

    Raises ShapeError if they do not fit the inputs.
    """
    if lengths is None:
        return None
    try:
        # PyTorch rejects NumPy arrays with negative strides or in another byte order.
        values = lengths if isinstance(lengths, Tensor) or not hasattr(lengths, "tolist") else lengths.tolist()
        given = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(f"lengths must be whole numbers, one per sequence: {error}") from error
    steps, batch = inputs.shape[:2]
    if list(given.shape) != [batch]:
        raise ShapeError(f"lengths must be [{batch}], one per sequence, got {list(given.shape)}")
    whole = given.dtype != torch.bool and not given.is_floating_point() and not given.is_complex()
    if torch.compiler.is_compiling():  # a captured graph serves any lengths, so it checks them when it runs
        if not whole:
            raise ShapeError(f"lengths must be whole numbers, got a tensor of {given.dtype}")
        return _checked_later(given.to(inputs.device, torch.int64), steps)
    if batch == 0:  # an empty list becomes a floating-point tensor
        return None
    lengths = given.to(inputs.device, torch.int64) if whole else given  # narrow integer types would overflow
    if whole and torch._C._functorch.is_batchedtensor(lengths):  # inside vmap there are no values to check
        return lengths
    if not whole or int(lengths.min()) < 0 or int(lengths.max()) > steps:
        raise ShapeError(f"lengths must be whole numbers from 0 to {steps}, got {given.tolist()}")
    return lengths


def _checked_later(lengths: Tensor, steps: int) -> Tensor:
    """Return the lengths for a graph that is being captured; when it runs, it raises an error if they do not fit."""
    if is_exporting():
        torch._assert_async(((lengths >= 0) & (lengths <= steps)).all(), "lengths must be whole numbers from 0 to T")
        return lengths
    from unrolled.unroll.operator import check_lengths as checked

    return checked(lengths, steps)


class _Room(types.ModuleType):
    """A module that can be called like its one function, since `from unrolled import unroll` may find the module."""

    __call__ = staticmethod(unroll)


sys.modules[__name__].__class__ = _Room
