"""Finds the steps after a sequence's length, and replaces the padding there.

A cell is called for the whole batch, including sequences that have ended. The result is discarded there, and its
gradient is zero. But zero times an infinite or NaN derivative is NaN, so the padding is never read: after its end, a
sequence's first step is the cell's input again, where the derivative is as finite as at that step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unrolled.cells import State


def steps_inside(steps: int, lengths: Tensor) -> Tensor:
    """Return which steps are inside their sequence, `[T, B, 1]`."""
    return (torch.arange(steps, device=lengths.device).unsqueeze(-1) < lengths).unsqueeze(-1)


def fill_padding(inputs: Tensor, lengths: Tensor, inside: Tensor, reverse: bool) -> Tensor:
    """Return `inputs [T, B, I]` with each sequence's first step in place of its padding.

    An empty sequence gets the first step of the longest one. If all sequences are empty, they get ones, because few
    functions lack a derivative there; integer inputs, which are indices, get zeros.
    """
    given = inputs.detach()
    if _all_have_steps(lengths):
        first = given[lengths - 1, torch.arange(len(lengths), device=lengths.device)] if reverse else given[0]
    else:
        rows = _rows_with_steps(lengths)
        first = _or_ones(given[(lengths[rows] - 1).clamp(min=0) if reverse else 0, rows], lengths)
    return torch.where(inside, inputs, first)


def without_padding(inputs: Tensor, lengths: Tensor | None, reverse: bool = False) -> Tensor:
    """Do what `fill_padding` does, given checked lengths or None."""
    if lengths is None or not len(inputs):
        return inputs
    return fill_padding(inputs, lengths, steps_inside(len(inputs), lengths), reverse)


def fill_states(state: State, lengths: Tensor) -> State:
    """Return the states `[B, size]` before the first step, detached.

    An empty sequence gets the states of the longest one. If all sequences are empty, they get ones.
    """
    if _all_have_steps(lengths):
        return tuple(part.detach() for part in state)
    rows = _rows_with_steps(lengths)
    return tuple(_or_ones(part.detach()[rows], lengths) for part in state)


def _all_have_steps(lengths: Tensor) -> bool:
    """Return whether all lengths are known to be positive. Their values are unknown under torch.compile and vmap."""
    if torch.compiler.is_compiling() or torch._C._functorch.is_batchedtensor(lengths):
        return False
    return int(lengths.min()) > 0


def _rows_with_steps(lengths: Tensor) -> Tensor:
    own = torch.arange(len(lengths), device=lengths.device)
    return torch.where(lengths > 0, own, lengths.argmax())


def _or_ones(values: Tensor, lengths: Tensor) -> Tensor:
    return torch.where((lengths > 0).any(), values, torch.full_like(values, int(values.is_floating_point())))


def choose(condition: Tensor, state: State, other: State) -> State:
    """Return `state` where the condition `[B, 1]` holds, and `other` elsewhere."""
    return tuple(torch.where(condition, part, instead) for part, instead in zip(state, other, strict=True))


def show(outputs: Tensor, inside: Tensor | None, reverse: bool) -> Tensor:
    """Return the outputs `[T, B, size]` in the order of the input, with zeros in the padding."""
    if reverse:
        outputs = outputs.flip(0)
    return outputs if inside is None else torch.where(inside, outputs, torch.zeros_like(outputs))
