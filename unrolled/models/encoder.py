"""An encoder: layers of any cell that read a sequence, and what they made of it."""

from __future__ import annotations

from collections.abc import Callable
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
    """What an encoder made of a batch of sequences.

    annotations: the last layer's outputs, `[S, B, C]`, in the order in which the sequence was read. lengths: `[B]`.
    states: the last states, a tuple a layer of `[B, size]`, those of the backward direction after the forward one's.
    """

    annotations: Tensor
    lengths: Tensor
    states: list[State]


class Encoder(Recurrent):
    """Layers of the cell called `cell`, a name from `CELLS`, over sequences of different lengths.

    hidden_size: units a layer and direction. bidirectional: read both ways. forget_bias: see `GatedCell`.
    reverse: read each sequence from the last step to the first, but for its end mark, which stays last (Sutskever,
        Vinyals & Le 2014).
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
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
        """The widths of `Encoded.states`, layer by layer."""
        layers: Any = self.cells
        return [flatten([cell.state_sizes for cell in directions]) for directions in layers]

    def read(self, sequence: Tensor, lengths: Tensor, prepare: Callable[[Tensor], Tensor] | None = None) -> Encoded:
        """Read `sequence [S, B, I]` of `lengths [B]`.

        prepare: makes the input `[S, B, I]` of a sequence in the order in which it is read: then `sequence` is anything
        `[S, B, ...]`, such as tokens.
        """
        if self.reverse:
            sequence = _backwards(sequence, lengths)
        inputs = sequence if prepare is None else prepare(sequence)
        annotations, finals = self.run(inputs, lengths=lengths)
        directions = 2 if self.bidirectional else 1
        states = [flatten(finals[first : first + directions]) for first in range(0, len(finals), directions)]
        return Encoded(annotations, lengths, states)


def _backwards(sequence: Tensor, lengths: Tensor) -> Tensor:
    """`sequence [S, B, ...]` from the last step to the first; the end of each, and what follows it, stays in place."""
    time = torch.arange(len(sequence), device=lengths.device).unsqueeze(-1)
    order = torch.where(time < lengths - 1, lengths - 2 - time, time)
    return sequence[order, torch.arange(len(lengths), device=lengths.device)]
