"""What the C of a step is made of: places in memory, products, and loops over a row's columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import fx

Level = tuple[int, int]


def size(count: int, of: str = "") -> str:
    """A number of columns in the C of a program, which takes it as an argument: see `Program.source`.

    One library then serves every size of a cell. Equal numbers are one argument, unless they are sizes of different
    things, `of`. 0 and 1 stay as they are, since a loop over one column is other code.
    """
    return f"@{of}{count}@" if count > 1 else str(count)


@dataclass(frozen=True)
class Place:
    """Where a row value lies: `pointer`, C for its row `r` (at step `t`, of `B` rows); `stride` from row to row."""

    pointer: str
    stride: int
    offset: int = 0


@dataclass(frozen=True)
class Product:
    """`[rows, depth] @ matrix [depth, width]`, the matrix packed beforehand, plus a vector if there is a bias."""

    node: fx.Node
    operand: Place
    matrix: fx.Node
    bias: fx.Node | None
    result: Place
    depth: int
    width: int


@dataclass
class Loop:
    """What is computed column by column at one level, for one width."""

    level: Level
    width: int
    stores: list[tuple[fx.Node, int, Place]] = field(default_factory=list)
    reductions: list[fx.Node] = field(default_factory=list)


class Values(Protocol):
    """Where the values of a step lie, as a loop asks for them."""

    places: dict[fx.Node, Place]
    vectors: dict[fx.Node, str]

    def ready(self, node: fx.Node, level: Level) -> bool:
        """Whether a loop of `level` can read `node` from memory, rather than compute it."""
