"""The native programs of a plan, as they are called and kept: a pass forward, and one back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unrolled.unroll.compiled import Native
from unrolled.unroll.graph import Graph
from unrolled.unroll.vectors import Outside, Vectors


@dataclass(eq=False)
class Forward:
    """Slots: the input, first states, states of all steps, last states, what is kept, the rest of the hoisted values.

    A program that `hoists` computes the hoisted values itself, and has no argument for that rest.
    """

    program: Native
    vectors: Vectors
    hoists: bool
    rest: list[int]
    #: Columns of the states that are kept for all steps, by their number.
    trajectories: dict[int, int]
    #: Columns of what backward reads beside those, for all steps: hoisted values, then saved ones.
    kept: list[int]
    #: Which hoisted values those are.
    kept_hoisted: list[int]


@dataclass(eq=False)
class Epilogue:
    """How the contractions after the loop, of `shapes`, become gradients: in `order`, or else by `after`.

    `after(rows, parameters..., prepared..., constants..., contractions...)`. `of_input`: the input's gradient comes
    with them.
    """

    shapes: list[tuple[int, ...]]
    order: list[int] | None
    after: Graph
    of_input: bool


@dataclass(eq=False)
class Backward:
    """Slots: the input, what forward kept, gradients of every step's states, of the last and of the first ones; then
    the input's gradient and the contractions, or, if there is no `epilogue`, the row values that they are made of.
    """

    program: Native
    vectors: Vectors
    epilogue: Epilogue | None = None
    #: Columns of the row values, and which of them each gradient of a hoisted value and each deferred value is.
    rows: Sequence[int] = ()
    row_of: Sequence[int] = ()


@dataclass(eq=False)
class Training:
    """Both passes for one choice of those that want a gradient: `chosen`, by number. The rest as in `Gradients`."""

    forward: Forward
    backward: Backward
    chosen: tuple[int, ...]
    outside: Outside
    finish: Graph | None
    deferred: int
    row_values: tuple[tuple[str, int], ...]
