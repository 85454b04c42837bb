"""The parts of a step's C: places in memory, products, and loops over a row's columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import fx

Level = tuple[int, int]


def size(count: int, of: str = "") -> str:
    """Return the placeholder of a number of columns in C. `Program.source` turns it into an argument of the program.

    One library then serves every size of a cell. Equal numbers share one argument if they have the same `of`. 0 and 1
    stay literal, because a loop over one column has different code.
    """
    return f"@{of}{count}@" if count > 1 else str(count)


@dataclass(frozen=True)
class Place:
    """The place of a row value: C for the address of its row `r`, the stride between rows, and the first column.

    The C may use the step `t` and the batch size `B`.
    """

    pointer: str
    stride: int
    offset: int = 0


@dataclass(frozen=True)
class Product:
    """`[rows, depth] @ matrix [depth, width]`, plus a vector if there is a bias. The matrix is packed beforehand."""

    node: fx.Node
    operand: Place
    matrix: fx.Node
    bias: fx.Node | None
    result: Place
    depth: int
    width: int


@dataclass
class Loop:
    """A loop over the columns of one width, at one level of a step."""

    level: Level
    width: int
    stores: list[tuple[fx.Node, int, Place]] = field(default_factory=list)
    reductions: list[fx.Node] = field(default_factory=list)


class Values(Protocol):
    """The places of a step's values, as a loop reads them."""

    places: dict[fx.Node, Place]
    vectors: dict[fx.Node, str]

    def ready(self, node: fx.Node, level: Level) -> bool:
        """Return whether a loop of `level` can read `node` from memory instead of computing it."""
