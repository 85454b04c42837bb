"""The maths of one step: every cell of the lectures, a class each."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial

from unrolled.cells.base import Cell, Gate, State
from unrolled.cells.elman import ElmanCell, PascanuCell
from unrolled.cells.gru import GRUCell, GRUResetAfterCell, LayerNormGRUCell
from unrolled.cells.lstm import CoupledLSTMCell, GatedCell, LayerNormLSTMCell, LSTMCell, PeepholeLSTMCell
from unrolled.cells.mutations import MUT1Cell, MUT2Cell, MUT3Cell
from unrolled.errors import ConfigurationError

__all__ = [
    "CELLS",
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
    "find_cell",
]

#: The cells by the plain names that users give: `gru`.
CELLS: dict[str, Callable[..., Cell]] = {
    "elman": ElmanCell,
    "relu": partial(ElmanCell, nonlinearity="relu"),
    "pascanu": PascanuCell,
    "lstm": LSTMCell,
    "peephole": PeepholeLSTMCell,
    "peephole-full": partial(PeepholeLSTMCell, full=True),
    "coupled": CoupledLSTMCell,
    "ln-lstm": LayerNormLSTMCell,
    "gru": GRUCell,
    "gru-swapped": partial(GRUCell, update_keeps=False),
    "gru-after": GRUResetAfterCell,
    "ln-gru": LayerNormGRUCell,
    "mut1": MUT1Cell,
    "mut2": MUT2Cell,
    "mut3": MUT3Cell,
}


def find_cell(name: str) -> Callable[..., Cell]:
    """The constructor of the cell called `name`; ConfigurationError, listing the names, where there is none."""
    if name not in CELLS:
        close = difflib.get_close_matches(name.lower(), CELLS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigurationError(f"unknown cell {name!r}{hint}: choose from {', '.join(CELLS)}")
    return CELLS[name]
