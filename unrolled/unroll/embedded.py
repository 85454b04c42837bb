"""Inputs that are rows of a table: what is hoisted out of the loop is computed once a row of the table.

A plan's hoisted values are made of each input by itself. Where T·B inputs are picked from a table of V rows, as
embedded characters are, V of each hoisted value are enough; the loop is given those of its steps. And where a sequence
is unrolled step by step with the same weights, as in a search, they can be kept from one step to the next.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from unrolled.cells import Cell, State
from unrolled.errors import CompilerError, UntraceableError
from unrolled.unroll.adapt import WithOutput, WrapperCell
from unrolled.unroll.fallback import why_not_native
from unrolled.unroll.padding import without_padding
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

    def read(self, lengths: Tensor | None) -> Embedded:
        """The same, where steps within the lengths are all that counts: of the padding no row is picked.

        And where a gradient is wanted, rows that nothing picks are replaced by one that is picked: what is computed
        of a whole table has a gradient of zero there, which times a derivative of NaN is NaN.
        """
        tokens = without_padding(self.tokens.unsqueeze(-1), lengths).squeeze(-1)
        table = self.table
        if torch.is_grad_enabled() and tokens.numel():
            picked = torch.zeros(len(table), dtype=torch.bool, device=table.device)
            picked = picked.index_fill(0, tokens.reshape(-1), True).unsqueeze(-1)
            table = torch.where(picked, table, table.detach()[tokens[0, 0]])
        return Embedded(table, tokens)

    def dense(self) -> Tensor:
        return embedding(self.tokens, self.table)

    @property
    def repeats(self) -> bool:
        """Whether a row comes twice on average, so that work on the table is less than on the input."""
        return 2 * len(self.table) <= self.tokens.numel()


class Hoisted(NamedTuple):
    """What a layer's cell hoists of its input, `values [T, B, ·]`, and the cell that takes them in its place."""

    cell: Cell
    values: Tensor

    def through(self, module: nn.Module) -> Hoisted:
        """Itself: the values lie after what there is between input and cell."""
        return self


def feed(cell: Cell, inputs: Embedded | Hoisted, backend: str) -> tuple[Cell, Tensor]:
    """A cell and an input `[T, B, ·]` that unroll to what `cell` does over `inputs`: as little as possible is left.

    That is the cell itself, over the dense input, where nothing can be gained or native code does not serve.
    """
    if isinstance(inputs, Hoisted):
        return inputs
    found = _split(cell, inputs.table, backend) if inputs.repeats else None
    if found is None:
        return cell, inputs.dense()
    fed, parameters = found
    return fed, embedding(inputs.tokens, fed.hoist(parameters, inputs.table))


def _split(cell: Cell, table: Tensor, backend: str) -> tuple[_Fed, list[Tensor]] | None:
    """The cell after what it hoists of a row, and its parameters; None if nothing can be gained."""
    plain = isinstance(cell, WrapperCell | WithOutput) or torch.compiler.is_compiling()
    if backend in ("auto", "native") and not plain and why_not_native(table, None) is None:
        try:
            planned, parameters, cell = find_plan(cell, table.dtype, table.device, native=True)
        except (UntraceableError, CompilerError):  # which `unroll` will say
            return None
        if planned.schedule.hoisted_sizes:
            return _Fed(cell, planned.schedule), parameters
    return None


class _Fed(WrapperCell):
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
        prepared = parts.prepare(len(x), *describe(self.cell).tensors.values())[: parts.prepared]
        return tuple(parts.core(len(x), *prepared, *x.split(parts.hoisted_sizes, -1), *state))


class KeptRows:
    """What a cell hoists of each row of a table, made when it is asked for first: for searches, which go step by step.

    They are made again when a weight has changed in place. Nothing can be differentiated through them.
    """

    def __init__(
        self, cell: _Fed, parameters: list[Tensor], table: Tensor, scale: float, projection: nn.Module
    ) -> None:
        self.cell, self._parameters = cell, parameters
        self._table, self._scale, self._projection = table, scale, projection
        self._versions: list[int] = []
        with torch.inference_mode(False):  # they outlive this call, and are written to
            self._values = torch.empty(len(table), cell.input_size, dtype=table.dtype, device=table.device)
            self._made = torch.zeros(len(table), dtype=torch.bool, device=table.device)

    @torch.no_grad()
    def at(self, tokens: Tensor) -> Hoisted:
        """The input of `tokens`, `[T, B]` or as the layer's inputs are."""
        watched = [self._table, *self._projection.parameters(), *self._parameters]
        versions = [tensor._version for tensor in watched if not tensor.is_inference()]
        if versions != self._versions:
            self._made.zero_()
            self._versions = versions
        missing = tokens[~self._made[tokens]].unique()
        if len(missing):
            rows = self._projection(self._scale * self._table[missing])
            self._values[missing] = self.cell.hoist(self._parameters, rows)
            self._made[missing] = True
        return Hoisted(self.cell, embedding(tokens, self._values))


def keep_rows(cell: Cell, table: Tensor, scale: float, projection: nn.Module, backend: str = "auto") -> KeptRows | None:
    """For a cell that is fed rows of `projection(scale * table)`; None if native code does not serve."""
    found = _split(cell, table, backend)
    return None if found is None else KeptRows(*found, table, scale, projection)
