"""Ablation: how much the loss changes when a unit is held at zero."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unrolled.analysis.units import Unit
from unrolled.cells import Cell, State
from unrolled.layers.stack import through
from unrolled.models import LanguageModel
from unrolled.unroll import unroll
from unrolled.unroll.adapt import WrapperCell


class AblatedCell(WrapperCell):
    """A cell with some of its units held at zero in all of its states.

    The input `x` is `[B, I + H]`. Its last H features are a mask over the units: 1 keeps a unit, 0 holds it at zero.
    Each row of a batch has its own mask.
    """

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self.input_size += cell.hidden_size

    def forward(self, x: Tensor, state: State) -> State:
        x, kept = x.split((self.cell.input_size, self.hidden_size), -1)
        # A projected output is narrower than the units. It is computed from them, so it needs no mask.
        return tuple(part * kept if part.size(-1) == self.hidden_size else part for part in self.cell(x, state))


@torch.no_grad()
def ablate(model: LanguageModel, tokens: np.ndarray, units: Sequence[Unit]) -> tuple[float, list[float]]:
    """Return the mean loss over `tokens [N]` in nats, and for each of `units` how much it grows with that unit at zero.

    A unit is held at zero at every step and in all states, for example in both h and c of an LSTM. The text is read
    from the initial state, with one row of a batch for each unit.
    """
    stack = model.recurrent.stack()
    rows = len(units) + 1
    text = torch.from_numpy(tokens)
    embedded = model.embed(text[:-1, None])
    totals = torch.zeros(rows, dtype=torch.float64)
    states: list[State | None] = [None] * len(stack.layers)
    held = []
    for number, cell in enumerate(stack.layers, 1):
        kept = torch.ones(rows, cell.hidden_size)  # type: ignore[call-overload]
        for row, unit in enumerate(units, 1):
            if unit.layer == number:
                kept[row, unit.number] = 0.0
        held.append(kept)

    def run(number: int, cell: Cell, inputs: Tensor) -> tuple[Tensor, State]:
        fed = torch.cat([inputs, held[number].expand(len(inputs), -1, -1)], -1)
        return unroll(AblatedCell(cell), fed, states[number])

    window = 128
    for first in range(0, len(text) - 1, window):
        inputs = embedded[first : first + window].expand(-1, rows, -1)
        outputs, states[:] = through(stack.layers, stack.projections, inputs, run)
        logits = model.readout(outputs)
        targets = text[first + 1 : first + 1 + window]
        losses = cross_entropy(logits.flatten(0, 1), targets.repeat_interleave(rows), reduction="none")
        totals += losses.unflatten(0, (len(targets), rows)).double().sum(0)
    means = totals / (len(text) - 1)
    return float(means[0]), (means[1:] - means[0]).tolist()
