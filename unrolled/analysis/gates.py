"""Gates: which of them keep memory, and how open they stand."""

from __future__ import annotations

import torch

from unrolled.cells import (
    Cell,
    GatedCell,
    GRUCell,
    GRUResetAfterCell,
    LayerNormGRUCell,
    MUT1Cell,
    MUT2Cell,
    MUT3Cell,
)


@torch.no_grad()
def keep_memory(cell: Cell, bias: float) -> bool:
    """Start with gates that keep: the keeping gate of each unit is σ(bias) open where nothing else moves it.

    That is the forget gate of LSTMs and the update gate of GRUs and MUTs; an LSTM's input gate, which has a bias of its
    own, starts at σ(-bias). False where the cell has none of these, or
    no biases; it is then left as it is.
    Source: Gers et al. 2000; Tallec & Ollivier 2018, "Can recurrent neural networks warp time?", from whom the rule
    bias = log(steps to remember) comes.
    """
    if isinstance(cell, MUT1Cell | MUT2Cell | MUT3Cell):
        part, sign = cell.bias_z, -1.0
    elif isinstance(cell, GatedCell) and cell.bias is not None:
        number, parts = cell.forget_part
        part, sign = cell.bias.chunk(parts)[number], 1.0
        if parts == 4:  # these write by a gate of its own, first of the four
            cell.bias.chunk(parts)[0].fill_(-bias)
    elif isinstance(cell, GRUCell | GRUResetAfterCell | LayerNormGRUCell) and cell.bias is not None:
        part, sign = cell.bias.chunk(3)[1], 1.0 if getattr(cell, "update_keeps", True) else -1.0
    else:
        return False
    if part is None:
        return False
    part.fill_(sign * bias)
    return True
