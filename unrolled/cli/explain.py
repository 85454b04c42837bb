"""The command `unrolled explain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from unrolled.cells import CELL_NAMES
from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError, UntraceableError
from unrolled.settings import require

_DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Arguments:
    """Show how a cell is compiled: what is computed once, what for all steps together, and what at each step."""

    cell: Annotated[str, arg(metavar="NAME", help=f"One of {CELL_NAMES}.")] = "lstm"
    hidden_size: int = 128
    """Hidden size of the cell."""
    input_size: Annotated[int | None, arg(metavar="N")] = None
    """Input size of the cell (default: the hidden size)."""
    dtype: str = "float32"
    """Data type: float32 or float64."""


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    import torch

    from unrolled.layers.wrap import make_cell
    from unrolled.unroll.explain import explain

    if arguments.dtype not in _DTYPES:
        raise ConfigurationError(f"--dtype: unknown value {arguments.dtype!r}, choose from {', '.join(_DTYPES)}")
    for name in ("hidden_size", "input_size"):
        value = getattr(arguments, name)
        require(value is None or 1 <= value <= 65_536, name, "from 1 to 65,536", value)
    dtype = getattr(torch, arguments.dtype)
    cell = make_cell(arguments.cell, arguments.input_size or arguments.hidden_size, arguments.hidden_size, dtype)
    try:
        print(explain(cell, dtype))
    except UntraceableError as error:
        raise ConfigurationError(str(error)) from error
    return 0
