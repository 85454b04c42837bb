"""Inputs that are rows of a table: what is hoisted out of the loop is computed once a row of the table.

A plan's hoisted values are made of each input by itself. Where T·B inputs are picked from a table of V rows, as
embedded characters are, V of each hoisted value are enough; the loop is given those of its steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from unrolled.cells import Cell, State
from unrolled.errors import CompilerError, UntraceableError
from unrolled.unroll.adapt import Around, WithOutput
from unrolled.unroll.fallback import why_not_native
from unrolled.unroll.planned import find_plan
from unrolled.unroll.schedule import Schedule
from unrolled.unroll.signature import describe


class Embedded(NamedTuple):
    """The input `table[tokens]`, `[T, B, I]`: `table [V, I]`, `tokens [T, B]`."""

    table: Tensor
    tokens: Tensor

    def through(self, module: nn.Module) -> Embedded:
        """What a module that treats its rows one by one makes of it."""
        return Embedded(module(self.table), self.tokens)

    def dense(self) -> Tensor:
        return embedding(self.tokens, self.table)

    @property
    def repeats(self) -> bool:
        """Whether a row comes twice on average, so that work on the table is less than on the input."""
        return 2 * len(self.table) <= self.tokens.numel()


def feed(cell: Cell, inputs: Embedded, backend: str) -> tuple[Cell, Tensor]:
    """A cell and an input `[T, B, ·]` that unroll to what `cell` does over `inputs`: as little as possible is left.

    That is the cell itself, over the dense input, where nothing can be gained or native code does not serve.
    """
    plain = isinstance(cell, Around | WithOutput) or torch.compiler.is_compiling() or not inputs.repeats
    if backend in ("auto", "native") and not plain and why_not_native(inputs.table, None) is None:
        try:
            planned, parameters = find_plan(cell, inputs.table.dtype, inputs.table.device, native=True)
        except (UntraceableError, CompilerError):  # which `unroll` will say
            return cell, inputs.dense()
        if planned.schedule.hoisted_sizes:
            fed = _Fed(cell, planned.schedule)
            return fed, embedding(inputs.tokens, fed.hoist(parameters, inputs.table))
    return cell, inputs.dense()


class _Fed(Around):
    """A cell whose input is what its plan hoists, side by side."""

    def __init__(self, cell: Cell, schedule: Schedule) -> None:
        super().__init__(cell)
        self.schedule, self.input_size = schedule, sum(schedule.hoisted_sizes)
        self.recurring = cell.recurring  # type: ignore[misc]

    def hoist(self, parameters: list[Tensor], table: Tensor) -> Tensor:
        """The hoisted values of every row of a table, `[V, input_size]`."""
        made = self.schedule.hoist(len(table), *self.schedule.prepare(len(table), *parameters), table)
        return made[0] if len(made) == 1 else torch.cat(made, -1)

    def forward(self, x: Tensor, state: State) -> State:
        parts = self.schedule
        prepared = parts.prepare(len(x), *describe(self.cell)[1].values())[: parts.prepared]
        return tuple(parts.core(len(x), *prepared, *x.split(parts.hoisted_sizes, -1), *state))
