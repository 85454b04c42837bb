"""Inputs that are rows of a table, such as embedded characters: hoisted values are computed once per row of the table.

A plan computes its hoisted values from each input independently. If the T·B inputs are picked from a table of V rows,
computing V rows is enough, and the loop reads the rows of its steps. If a sequence is unrolled step by step with the
same weights, as in a search, the rows can also be kept from one step to the next.
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
from unrolled.unroll.signature import describe_module


class Embedded(NamedTuple):
    """The input `table[tokens]`, `[T, B, I]`: `table [V, I]`, `tokens [T, B]`."""

    table: Tensor
    tokens: Tensor

    def through(self, module: nn.Module) -> Embedded:
        """Return the result of a module that treats each row independently."""
        return Embedded(module(self.table), self.tokens)

    def read(self, lengths: Tensor | None) -> Embedded:
        """Return an input of which only the steps within the lengths count: no row is picked for the padding.

        If gradients are enabled, rows that no step picks are replaced by a row that is picked. Such a row has a
        gradient of zero, but zero times a derivative of NaN would be NaN.
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
        """Whether rows repeat twice on average, so that computing on the table is less work than on the input."""
        return 2 * len(self.table) <= self.tokens.numel()


class Hoisted(NamedTuple):
    """The values `[T, B, ·]` that a layer's cell hoists from its input, and the cell that reads them instead of it."""

    cell: Cell
    values: Tensor

    def through(self, module: nn.Module) -> Hoisted:
        """Return `self`: the values were computed after every module between the input and the cell."""
        return self


def feed(cell: Cell, inputs: Embedded | Hoisted, backend: str) -> tuple[Cell, Tensor]:
    """Return a cell and an input `[T, B, ·]` that unroll to the result of `cell` over `inputs`, with less work.

    Returns the cell itself and the dense input if that saves nothing or if native code cannot run the cell.
    """
    if isinstance(inputs, Hoisted):
        return inputs
    found = _split(cell, inputs.table, backend) if inputs.repeats else None
    if found is None:
        return cell, inputs.dense()
    fed, parameters = found
    return fed, embedding(inputs.tokens, fed.hoist(parameters, inputs.table))


def _split(cell: Cell, table: Tensor, backend: str) -> tuple[_Fed, list[Tensor]] | None:
    """Return the cell that reads hoisted values, and its parameters; None if nothing is saved."""
    plain = isinstance(cell, WrapperCell | WithOutput) or torch.compiler.is_compiling()
    if backend in ("auto", "native") and not plain and why_not_native(table, None) is None:
        try:
            planned, parameters, cell = find_plan(cell, table.dtype, table.device, native=True)
        except (UntraceableError, CompilerError):  # `unroll` reports it
            return None
        if planned.schedule.hoisted_sizes:
            return _Fed(cell, planned.schedule), parameters
    return None


class _Fed(WrapperCell):
    """A cell whose input is its plan's hoisted values, concatenated."""

    def __init__(self, cell: Cell, schedule: Schedule) -> None:
        super().__init__(cell)
        self.schedule, self.input_size = schedule, sum(schedule.hoisted_sizes)
        self.recurring = cell.recurring  # type: ignore[misc]

    def hoist(self, parameters: list[Tensor], table: Tensor) -> Tensor:
        """Return the hoisted values of every row of a table, `[V, input_size]`."""
        values = self.schedule.hoist(len(table), *self.schedule.prepare(len(table), *parameters), table)
        return values[0] if len(values) == 1 else torch.cat(values, -1)

    def forward(self, x: Tensor, state: State) -> State:
        parts = self.schedule
        prepared = parts.prepare(len(x), *describe_module(self.cell).tensors.values())[: parts.prepared]
        return tuple(parts.core(len(x), *prepared, *x.split(parts.hoisted_sizes, -1), *state))


class KeptRows:
    """The values that a cell hoists from each row of a table, computed on first use, for searches step by step.

    They are computed again when a weight has changed in place. They carry no gradient.
    """

    def __init__(
        self, cell: _Fed, parameters: list[Tensor], table: Tensor, scale: float, projection: nn.Module
    ) -> None:
        self.cell, self._parameters = cell, parameters
        self._table, self._scale, self._projection = table, scale, projection
        self._versions: list[int] = []
        with torch.inference_mode(False):  # they outlive this call and are written to later
            self._values = torch.empty(len(table), cell.input_size, dtype=table.dtype, device=table.device)
            self._made = torch.zeros(len(table), dtype=torch.bool, device=table.device)

    @torch.no_grad()
    def at(self, tokens: Tensor) -> Hoisted:
        """Return the input for `tokens`, `[T, B]` or in the layout of the layer's inputs."""
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
    """Return the kept rows of a cell that reads rows of `projection(scale * table)`; None without native code."""
    found = _split(cell, table, backend)
    return None if found is None else KeptRows(*found, table, scale, projection)
