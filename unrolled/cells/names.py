"""The names that users give to cells. A class is imported when it is looked up."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unrolled.cells.own import FORM, find_own, parse_own
from unrolled.errors import ConfigurationError
from unrolled.lazy import Place, Table

if TYPE_CHECKING:
    from unrolled.cells.base import Cell
    from unrolled.cells.tree import TreeCell


def _at(place: str, **options: Any) -> Any:
    """Return where a class of this package is, `module:Class`, with the options for the constructor."""
    return Place(f"unrolled.cells.{place}", options)


#: Cells by name, such as `gru`.
CELLS: Table[Callable[..., Cell]] = Table(
    {
        "elman": _at("elman:ElmanCell"),
        "relu": _at("elman:ElmanCell", nonlinearity="relu"),
        "pascanu": _at("elman:PascanuCell"),
        "lstm": _at("lstm:LSTMCell"),
        "peephole": _at("lstm:PeepholeLSTMCell"),
        "peephole-full": _at("lstm:PeepholeLSTMCell", full=True),
        "coupled": _at("lstm:CoupledLSTMCell"),
        "ln-lstm": _at("lstm:LayerNormLSTMCell"),
        "gru": _at("gru:GRUCell"),
        "gru-swapped": _at("gru:GRUCell", update_keeps=False),
        "gru-after": _at("gru:GRUResetAfterCell"),
        "ln-gru": _at("gru:LayerNormGRUCell"),
        "mut1": _at("mutations:MUT1Cell"),
        "mut2": _at("mutations:MUT2Cell"),
        "mut3": _at("mutations:MUT3Cell"),
    }
)

#: Cells of recursive nets over binary trees, by name.
TREE_CELLS: Table[type[TreeCell]] = Table(
    {"composed": _at("tree:ComposedTreeCell"), "tree-lstm": _at("tree:TreeLSTMCell")}
)


#: The names that a cell may have, for help texts.
CELL_NAMES = f"{', '.join(CELLS)}, or {FORM} of your own"


def require_cell(name: str) -> None:
    """Raise ConfigurationError, which lists the names, if `name` cannot be a cell's name.

    This imports nothing. Of a user's class it checks only the form of the name.
    """
    if name in CELLS or parse_own(name) is not None:
        return
    if name.endswith(".py"):
        raise ConfigurationError(f"cell {name!r}: also name the class in that file, {name}:CLASS", setting="cell")
    close = difflib.get_close_matches(name.lower(), CELLS, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ConfigurationError(f"unknown cell {name!r}{hint}: choose from {CELL_NAMES}", setting="cell")


def find_cell(name: str) -> Callable[..., Any]:
    """Return the constructor of the cell `name`. It makes a `Cell`; a user's class may also be another module.

    Raises ConfigurationError, which lists the names, if there is no such cell.
    """
    require_cell(name)
    own = parse_own(name)
    return CELLS[name] if own is None else find_own(own)
