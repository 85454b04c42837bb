"""Steps after a sequence's length: which they are, and what a cell is given there in place of the padding.

A cell is called for a whole batch, also where a sequence has ended. The result is thrown away there, and its gradient
is zero; yet zero times a derivative that is infinite or NaN is NaN. So nothing of the padding is ever read: where a
sequence has ended, a cell is given that sequence's first step again, whose derivative is as good as that step's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unrolled.cells import State


def steps_inside(steps: int, lengths: Tensor) -> Tensor:
    """Which steps count, `[T, B, 1]`."""
    return (torch.arange(steps, device=lengths.device).unsqueeze(-1) < lengths).unsqueeze(-1)


def fill_padding(inputs: Tensor, lengths: Tensor, inside: Tensor, reverse: bool) -> Tensor:
    """`inputs [T, B, I]` with each sequence's first step in place of what stands after its length.

    A sequence without any step gets that of the longest one; ones, where no sequence has any: a number at which few
    functions lack a derivative. Of indices, which are whole numbers, those are zeros.
    """
    given = inputs.detach()
    if _all_have_steps(lengths):
        first = given[lengths - 1, torch.arange(len(lengths), device=lengths.device)] if reverse else given[0]
    else:
        rows = _rows_with_steps(lengths)
        first = _or_ones(given[(lengths[rows] - 1).clamp(min=0) if reverse else 0, rows], lengths)
    return torch.where(inside, inputs, first)


def without_padding(inputs: Tensor, lengths: Tensor | None, reverse: bool = False) -> Tensor:
    """As `fill_padding`, for lengths that are checked, or None."""
    if lengths is None or not len(inputs):
        return inputs
    return fill_padding(inputs, lengths, steps_inside(len(inputs), lengths), reverse)


def fill_states(state: State, lengths: Tensor) -> State:
    """The states `[B, size]` before the first steps, constant.

    Of a sequence without any they are those of the longest one; ones, where no sequence has any.
    """
    if _all_have_steps(lengths):
        return tuple(part.detach() for part in state)
    rows = _rows_with_steps(lengths)
    return tuple(_or_ones(part.detach()[rows], lengths) for part in state)


def _all_have_steps(lengths: Tensor) -> bool:
    """Whether that is known: a graph that is captured for any values, and vmap, cannot look at these."""
    if torch.compiler.is_compiling() or torch._C._functorch.is_batchedtensor(lengths):
        return False
    return int(lengths.min()) > 0


def _rows_with_steps(lengths: Tensor) -> Tensor:
    own = torch.arange(len(lengths), device=lengths.device)
    return torch.where(lengths > 0, own, lengths.argmax())


def _or_ones(values: Tensor, lengths: Tensor) -> Tensor:
    return torch.where((lengths > 0).any(), values, torch.full_like(values, int(values.is_floating_point())))


def choose(condition: Tensor, state: State, other: State) -> State:
    """`state` where the condition `[B, 1]` holds, and `other` elsewhere."""
    return tuple(torch.where(condition, part, instead) for part, instead in zip(state, other, strict=True))


def show(outputs: Tensor, inside: Tensor | None, reverse: bool) -> Tensor:
    """The outputs `[T, B, size]` in the order of the input, zeros if no step counts."""
    if reverse:
        outputs = outputs.flip(0)
    return outputs if inside is None else torch.where(inside, outputs, torch.zeros_like(outputs))
