"""An encoder: layers of any cell that read a sequence, and their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unrolled.cells import State
from unrolled.layers import Recurrent
from unrolled.layers.nest import flatten
from unrolled.models.parts import named_cell


@dataclass(frozen=True)
class Encoded:
    """An encoder's results for a batch of sequences.

    annotations: the last layer's outputs, `[S, B, C]`, in the order in which the sequence was read. lengths: `[B]`.
    states: the last states: for each layer a tuple of tensors `[B, size]`, first those of the forward direction, then
        those of the backward direction.
    """

    annotations: Tensor
    lengths: Tensor
    states: list[State]


class Encoder(Recurrent):
    """An encoder of sequences of different lengths, with layers of the cell called `cell`, a name from `CELLS`.

    hidden_size: the number of units in each direction of a layer: one for all layers, or one for each.
    bidirectional: whether to read in both directions.
    forget_bias: see `GatedCell`.
    reverse: read each sequence from the last step to the first, except that its end mark stays last (Sutskever, Vinyals
        & Le 2014).
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int | None = None,
        *,
        bidirectional: bool = True,
        reverse: bool = False,
        dropout: float = 0.0,
        forget_bias: float = 1.0,
    ) -> None:
        make, options, equal = named_cell(cell, forget_bias)
        super().__init__(
            make,
            input_size,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            input_projection=equal,
            **options,
        )
        self.reverse = reverse

    @property
    def final_sizes(self) -> list[tuple[int, ...]]:
        """The widths of `Encoded.states` for each layer."""
        layers: Any = self.cells
        return [flatten([cell.state_sizes for cell in directions]) for directions in layers]

    def read(self, sequence: Tensor, lengths: Tensor, prepare: Callable[[Tensor], Tensor] | None = None) -> Encoded:
        """Read `sequence [S, B, I]` of `lengths [B]`.

        prepare: a function that computes the input `[S, B, I]` from the sequence in the order in which it is read. With
            it, `sequence` may be any tensor `[S, B, ...]`, such as tokens.
        """
        if self.reverse:
            sequence = _backwards(sequence, lengths)
        inputs = sequence if prepare is None else prepare(sequence)
        annotations, finals = self.run(inputs, lengths=lengths)
        directions = 2 if self.bidirectional else 1
        states = [flatten(finals[first : first + directions]) for first in range(0, len(finals), directions)]
        return Encoded(annotations, lengths, states)


def _backwards(sequence: Tensor, lengths: Tensor) -> Tensor:
    """Reverse `sequence [S, B, ...]` in time. The end mark of each item, and the padding after it, stay in place."""
    time = torch.arange(len(sequence), device=lengths.device).unsqueeze(-1)
    order = torch.where(time < lengths - 1, lengths - 2 - time, time)
    return sequence[order, torch.arange(len(lengths), device=lengths.device)]
