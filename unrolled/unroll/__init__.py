"""The engine: unrolls any cell over time, by one of several backends that compute the same thing."""

from __future__ import annotations

import torch
from torch import Tensor

from unrolled.cells import Cell, State
from unrolled.errors import ConfigurationError, ShapeError
from unrolled.unroll.eager import unroll_eager
from unrolled.unroll.kernels import has_kernel, unroll_kernel

__all__ = ["BACKENDS", "unroll"]

#: "eager" is the meaning; "torch" is PyTorch's fused kernels where it has one; "auto" takes the fastest that applies.
BACKENDS = ("auto", "eager", "torch")


def unroll(
    cell: Cell,
    inputs: Tensor,
    state: State | Tensor | None = None,
    *,
    lengths: Tensor | list[int] | None = None,
    reverse: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, State]:
    """Run `cell` over `inputs` one step after the other.

    inputs: `[T, B, I]`, time first.
    state: the state before the first step, a tensor `[B, size]` for each of `cell.state_names`; zeros where None.
    lengths: `[B]`, on any device: the steps of each sequence that count. Behind its length a sequence keeps its state
        and its outputs are zero.
    reverse: read from the last step to the first; with lengths, from each sequence's own last step.
    backend: one of `BACKENDS`.

    Returns `(outputs [T, B, state_sizes[0]], state)`; outputs stand at the step of their input, also in reverse.
    Raises ShapeError on tensors that do not fit the cell, ConfigurationError on a backend that cannot run it.
    """
    if backend not in BACKENDS:
        raise ConfigurationError(f"unknown backend {backend!r}: choose from {', '.join(BACKENDS)}")
    if backend == "torch" and not has_kernel(cell):
        raise ConfigurationError(f"PyTorch has no kernel for {type(cell).__name__}: use backend='auto' or 'eager'")
    check_inputs(cell, inputs)
    state = _check_state(cell, inputs, state)
    lengths = _check_lengths(inputs, lengths)
    run = unroll_eager if backend == "eager" or not has_kernel(cell) else unroll_kernel
    return run(cell, inputs, state, lengths, reverse)


def check_inputs(cell: Cell, inputs: Tensor) -> None:
    """ShapeError where `inputs` is not `[T, B, input_size]` with T at least 1."""
    if inputs.dim() != 3 or inputs.size(2) != cell.input_size:
        raise ShapeError(f"inputs must be [T, B, {cell.input_size}] for {cell}, got {list(inputs.shape)}")
    if inputs.size(0) == 0:
        raise ShapeError("cannot unroll over no steps: inputs has T = 0")


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


def _check_lengths(inputs: Tensor, lengths: Tensor | list[int] | None) -> Tensor | None:
    if lengths is None:
        return None
    lengths = torch.as_tensor(lengths).to(inputs.device)
    steps, batch = inputs.shape[:2]
    if list(lengths.shape) != [batch]:
        raise ShapeError(f"lengths must be [{batch}], one a sequence, got {list(lengths.shape)}")
    if lengths.is_floating_point() or int(lengths.min()) < 0 or int(lengths.max()) > steps:
        raise ShapeError(f"lengths must be whole numbers from 0 to {steps}, got {lengths.tolist()}")
    return lengths
