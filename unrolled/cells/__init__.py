"""The maths of one step: every cell of the lectures, one class for each.

The classes are imported when they are first used. The names in `CELLS` do not need PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unrolled.cells.names import CELL_NAMES, CELLS, TREE_CELLS, find_cell, require_cell
from unrolled.cells.own import cell_label
from unrolled.lazy import door

if TYPE_CHECKING:
    from unrolled.cells.base import Cell, Gate, State
    from unrolled.cells.elman import ElmanCell, PascanuCell
    from unrolled.cells.gru import GRUCell, GRUResetAfterCell, LayerNormGRUCell
    from unrolled.cells.lstm import CoupledLSTMCell, GatedCell, LayerNormLSTMCell, LSTMCell, PeepholeLSTMCell
    from unrolled.cells.mutations import MUT1Cell, MUT2Cell, MUT3Cell
else:
    __getattr__ = door(
        __name__,
        {
            "base": ("Cell", "Gate", "State"),
            "elman": ("ElmanCell", "PascanuCell"),
            "gru": ("GRUCell", "GRUResetAfterCell", "LayerNormGRUCell"),
            "lstm": ("CoupledLSTMCell", "GatedCell", "LayerNormLSTMCell", "LSTMCell", "PeepholeLSTMCell"),
            "mutations": ("MUT1Cell", "MUT2Cell", "MUT3Cell"),
        },
    )

__all__ = [
    "CELLS",
    "CELL_NAMES",
    "TREE_CELLS",
    "Cell",
    "CoupledLSTMCell",
    "ElmanCell",
    "GRUCell",
    "GRUResetAfterCell",
    "Gate",
    "GatedCell",
    "LSTMCell",
    "LayerNormGRUCell",
    "LayerNormLSTMCell",
    "MUT1Cell",
    "MUT2Cell",
    "MUT3Cell",
    "PascanuCell",
    "PeepholeLSTMCell",
    "State",
    "cell_label",
    "find_cell",
    "require_cell",
]
