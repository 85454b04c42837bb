"""The native programs of a plan, for the forward and the backward pass, as they are called and cached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unrolled.unroll.compiled import Native
from unrolled.unroll.graph import Graph
from unrolled.unroll.vectors import Outside, Vectors


@dataclass(eq=False)
class Forward:
    """The forward pass.

    Arguments: the input, first states, states of all steps, last states, values kept for backward, the remaining
    hoisted values. A program that `hoists` computes the hoisted values itself, and takes no remaining ones.
    """

    program: Native
    vectors: Vectors
    hoists: bool
    #: The numbers of the remaining hoisted values.
    rest: list[int]
    #: Columns of each state that is kept for all steps, by the number of the state.
    trajectories: dict[int, int]
    #: Columns of the other values that backward reads, for all steps: hoisted values, then saved ones.
    kept: list[int]
    #: The numbers of the hoisted values among these.
    kept_hoisted: list[int]


@dataclass(eq=False)
class Epilogue:
    """How the contractions after the loop become gradients.

    shapes: of the contractions.
    order: the number of each gradient's contraction; None if gradients are more than contractions.
    after: `after(rows, parameters..., prepared..., constants..., contractions...)`, which then computes the gradients.
    of_input: whether the program also computes the input's gradient.
    """

    shapes: list[tuple[int, ...]]
    order: list[int] | None
    after: Graph
    of_input: bool


@dataclass(eq=False)
class Backward:
    """The backward pass.

    Arguments: the input, values kept by forward, gradients of every step's states, of the last and of the first states;
    then the input's gradient and the contractions or, without an `epilogue`, the row values that these are made of.
    """

    program: Native
    vectors: Vectors
    epilogue: Epilogue | None = None
    #: Columns of each row value, and the row value that each gradient of a hoisted value and each deferred value is.
    rows: Sequence[int] = ()
    row_of: Sequence[int] = ()


@dataclass(eq=False)
class Training:
    """Both passes for one choice of what wants a gradient: `chosen`, by number. For the rest see `Gradients`."""

    forward: Forward
    backward: Backward
    chosen: tuple[int, ...]
    outside: Outside
    finish: Graph | None
    deferred: int
    row_values: tuple[tuple[str, int], ...]
