"""Generates the C of one loop over the columns of a row. It computes each value from its inputs, in registers."""

from __future__ import annotations

import math
import operator
from collections.abc import Container, Sequence

import torch
from torch import fx

from unrolled.errors import UntraceableError
from unrolled.unroll.operations import ALIASES, ELEMENTWISE, FILLS, REDUCTIONS, SPLITS, Reduction
from unrolled.unroll.places import Loop, Place, Values, size
from unrolled.unroll.trace import aten
from unrolled.unroll.words import ROWS, operation, without_rows


def width(node: fx.Node) -> int:
    """Return the number of columns of a value with rows, 1 if it is `[B]`; UntraceableError if it is not `[B, n]`."""
    shape = node.meta["val"].shape
    if not shape or shape[0] != ROWS or len(shape) > 2:
        raise operation(f"makes a {shape_title(shape)} ({node.target})", node, "[B, features] compiles")
    return shape[1] if len(shape) == 2 else 1


class LoopCode:
    """The C of one loop over the columns of row `r`."""

    def __init__(self, step: Values, loop: Loop) -> None:
        self.step, self.loop = step, loop
        self.before: list[str] = []
        self.body: list[str] = []
        self.after: list[str] = []
        self._names: dict[tuple[fx.Node, int, bool], str] = {}
        self._pointers: dict[str, str] = {}

    def lines(self) -> list[str]:
        for node, offset, place in self.loop.stores:
            value = self.value(node, offset)
            self.body.append(f"{self._pointer(place)}[{_index(place.offset, alone=False)}] = {value};")
        accumulators = []
        for k, node in enumerate(self.loop.reductions):
            reduction: Reduction = REDUCTIONS[node.target](node)
            value = self.value(node.args[0], 0)
            self.before.append(f"REAL sum{k} = {reduction.start};")
            self.body.append(reduction.combine.format(f"sum{k}", value))
            accumulators.append(f"reduction({reduction.symbol}:sum{k})")
            target = self._pointer(self.step.places[node])
            self.after.append(f"{target}[0] = {reduction.result.format(f'sum{k}')};")
        simd = [f"#pragma omp simd {' '.join(accumulators)}".rstrip()] if self.loop.width > 1 else []
        head = f"for (long j = 0; j < {size(self.loop.width)}; j++) {{"
        return ["{", *self.before, *simd, head, *("  " + line for line in self.body), "}", *self.after, "}"]

    def _pointer(self, place: Place) -> str:
        if place.pointer not in self._pointers:
            name = f"p{len(self._pointers)}"
            self._pointers[place.pointer] = name
            self.before.insert(0, f"REAL *restrict const {name} = (REAL *)({place.pointer});")
        return self._pointers[place.pointer]

    def value(self, node, offset: int, alone: bool = False) -> str:
        """Return the C for column `j + offset` of `node`, or for column `offset`, independent of j, if `alone`."""
        if not isinstance(node, fx.Node):
            return literal(node)
        if self._columns(node) == 1:
            offset, alone = 0, True
        key = (node, offset, alone)
        if key not in self._names:
            text = self._text(node, offset, alone)
            name = f"v{len(self._names)}"
            kind = "MASK" if is_mask(node) else "REAL"
            # A value that is the same in every column is computed before the loop.
            (self.before if alone and self.loop.width > 1 else self.body).append(f"const {kind} {name} = {text};")
            self._names[key] = name
        return self._names[key]

    def _columns(self, node: fx.Node) -> int:
        if "val" not in node.meta:
            raise operation("computes with the size of the batch", node)
        if node in self.step.vectors:
            shape = node.meta["val"].shape
            if len(shape) > 1 and any(size != 1 for size in shape[:-1]):
                raise operation(f"uses a parameter {shape_title(shape)} as one row", next(iter(node.users)))
            return shape[-1] if shape else 1
        shape = node.meta["val"].shape
        if shape and shape[0] == ROWS:
            return width(node)
        return shape[-1] if shape else 1

    def _text(self, node: fx.Node, offset: int, alone: bool) -> str:
        if node in self.step.vectors:
            return f"{self.step.vectors[node]}[{_index(offset, alone)}]"
        if self.step.ready(node, self.loop.level):
            place = self.step.places[node]
            loaded = f"{self._pointer(place)}[{_index(place.offset + offset, alone)}]"
            return f"({loaded} != 0)" if is_mask(node) else loaded
        if node.target in FILLS:
            return literal(FILLS[node.target](node))
        source, start = view(node)
        if source is not None:
            return self.value(source, offset + start, alone)
        if node.target in ALIASES:
            return self.value(node.args[0], offset, alone)
        if node.target is aten.cat.default:
            return self._part(node, offset, alone)
        if node.target not in ELEMENTWISE:
            raise operation(f"uses {node.target}, which has no C form", node)
        arguments = [*node.args, *node.kwargs.values()]
        values = ["" if isinstance(a, torch.dtype) else self.value(a, offset, alone) for a in arguments]
        return ELEMENTWISE[node.target](*values)

    def _part(self, node: fx.Node, offset: int, alone: bool) -> str:
        start = 0
        for part in node.args[0]:
            if start <= offset and offset + (1 if alone else self.loop.width) <= start + width(part):
                return self.value(part, offset - start, alone)
            start += width(part)
        raise operation("cuts joined tensors across their parts", node, "torch.split at the same places compiles")


def view(node: fx.Node) -> tuple[fx.Node | None, int]:
    """Return what a view shows, one step back: its source, and the source's column that is its column 0."""
    if node.target in ALIASES and not _broadcasts(node):
        return node.args[0], 0
    if node.target is aten.slice.Tensor:
        source, dim, start, _, step = (*node.args, *(0, 0, None, 1)[len(node.args) - 1 :])
        if dim % source.meta["val"].dim() != 1 or step != 1:
            raise operation("selects rows, or columns that are not adjacent", node, "x[:, a:b] compiles")
        first, _, _ = slice(start, None).indices(width(source))
        return source, first
    if node.target is operator.getitem:
        split, index = node.args
        source = split.args[0]
        dim = split.args[2] if len(split.args) > 2 else split.kwargs.get("dim", 0)
        if split.target not in SPLITS or dim % source.meta["val"].dim() != 1:
            raise operation(f"uses {split.target}, which has no C form", split)
        sizes = [part.shape[1] for part in split.meta["val"]]
        return source, sum(sizes[:index])
    return None, 0


def shown(node: fx.Node, stop: Container[fx.Node]) -> tuple[fx.Node, int]:
    """Return the value in `stop`, or the computed value, that `node` is a view of, and its first column there."""
    offset = 0
    while node not in stop:
        source, start = view(node)
        if source is None:
            break
        node, offset = source, offset + start
    return node, offset


def _broadcasts(node: fx.Node) -> bool:
    """Return whether an alias repeats one value per row as many columns."""
    before, after = node.args[0].meta["val"].shape, node.meta["val"].shape
    if not after or after[0] != ROWS or len(after) > 2:
        raise operation(f"makes a {shape_title(after)} of a {shape_title(before)}", node, "[B, features] compiles")
    return before[:1] != after[:1] or math.prod(before[1:]) != math.prod(after[1:])


def _index(offset: int, alone: bool) -> str:
    return size(offset) if alone else f"j + {size(offset)}" if offset else "j"


def literal(value) -> str:
    """Return a Python number as C."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float):
        if math.isinf(value):
            return "(REAL)INFINITY" if value > 0 else "(-(REAL)INFINITY)"
        if math.isnan(value):
            return "(REAL)NAN"
        # A whole number in a step is usually a size that a mean divides by, so it becomes an argument of the C.
        whole = float(value).is_integer() and 2 < value < 1 << 24
        return f"((REAL){size(int(value))})" if whole else f"((REAL){float(value)!r})"
    raise UntraceableError(f"{value!r} has no C form")


def is_mask(node: fx.Node) -> bool:
    return node.meta["val"].dtype == torch.bool


def shape_title(shape: Sequence[int]) -> str:
    return "[" + ", ".join(without_rows(str(size)) for size in shape) + "]"
