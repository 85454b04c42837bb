"""One step's graph as C: products with packed matrices, and between them loops over a row's columns.

Every operation but a product treats its rows one by one. A *level* `(segment, pass)` says when a value is ready: a
product opens a new segment, a reduction over a row's columns a new pass. Values of one level and width are computed in
one loop, each pulled from what it depends on and held in registers; memory is written only for what a product, a later
loop or the caller reads.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from torch import fx

from unrolled.errors import UntraceableError
from unrolled.unroll.columns import LoopCode, operation_title, shape_title, width
from unrolled.unroll.operations import ALIASES, CHEAP, ELEMENTWISE, PRODUCTS, REDUCTIONS, SPLITS
from unrolled.unroll.trace import ROWS, aten, placeholders

Level = tuple[int, int]


@dataclass(frozen=True)
class Place:
    """Where a row value lies: `pointer`, C for its row `r` (at step `t`, of `B` rows); `stride` from row to row."""

    pointer: str
    stride: int
    offset: int = 0


@dataclass(frozen=True)
class Product:
    """`[rows, depth] @ matrix [depth, width]`, the matrix packed beforehand."""

    node: fx.Node
    operand: Place
    matrix: fx.Node
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


class Step:
    """The C of one step.

    `places`: where the row values among the graph's inputs lie; `vectors`: the C names of those without rows.
    `outputs`: what to compute, and where to put it.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        places: dict[fx.Node, Place],
        vectors: dict[fx.Node, str],
        outputs: Sequence[tuple[fx.Node, Place]],
        panel: int,
    ) -> None:
        self.places, self.vectors, self.panel = dict(places), vectors, panel
        self.scratch = 0  # elements a row
        self.inputs = set(placeholders(graph))
        self.loops: dict[tuple[Level, int], Loop] = {}
        self.products: list[Product] = []
        self._levels: dict[fx.Node, Level] = {}
        self._operands: dict[fx.Node, Place] = {}  # where a product with a bias lies complete, for another to read
        self._stored: set[tuple[fx.Node, Place]] = set()
        nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
        for node, place in outputs:
            if node not in self.places and node not in self.inputs:
                self.places[node] = place
        self._needed = [node for node in nodes if node.target not in (operator.getitem,)]
        for node in self._needed:
            self._place(node)
        for node, place in outputs:
            self._store(node, place)
        for node in self._needed:
            if node in self.places:
                self._fill(node)
        for node, place in self._operands.items():
            self._store(node, place)
        self._share()

    # Where values lie

    def _place(self, node: fx.Node) -> None:
        if node.target in PRODUCTS:
            left = node.args[-2]
            base, _ = self._base(left)
            if base.target is aten.addmm.default:  # its place lacks the bias
                self._operands[base] = self._new(width(base))
            elif base not in self.places:
                self.places[base] = self._new(width(base))
            columns = -(-width(node) // self.panel) * self.panel
            self.places[node] = self._new(columns)
        elif node.target in REDUCTIONS:
            self.places[node] = self._new(1)
        elif node.target is aten.cat.default and node not in self.places and any(map(_reads_whole, node.users)):
            self.places[node] = self._new(width(node))

    def _new(self, columns: int) -> Place:
        start = self.scratch
        self.scratch += columns
        return Place(f"s + {start} * N + (r - first) * {columns}", columns)

    def _fill(self, node: fx.Node) -> None:
        """See to it that a placed value gets to its place."""
        if node.target in PRODUCTS:
            matrix = node.args[-1]
            if node.kwargs:
                raise UntraceableError(f"{operation_title(node)} with {', '.join(node.kwargs)} has no C form")
            if matrix not in self.vectors:
                raise UntraceableError(
                    f"{operation_title(node)} multiplies two values that both change from step to step"
                )
            base, offset = self._base(node.args[-2])
            place = self._operands.get(base) or self.places[base]
            operand = replace(place, offset=place.offset + offset)
            depth, columns = matrix.meta["val"].shape
            self.products.append(Product(node, operand, matrix, self.places[node], depth, columns))
        elif node.target in REDUCTIONS:
            self._loop(self._before(node), width(node.args[0])).reductions.append(node)
        else:
            self._store(node, self.places[node])

    def _store(self, node: fx.Node, place: Place) -> None:
        if (node, place) in self._stored:
            return
        self._stored.add((node, place))
        if node.target is aten.cat.default:
            offset = place.offset
            for part in node.args[0]:
                self._loop(self.level(part), width(part)).stores.append((part, 0, replace(place, offset=offset)))
                offset += width(part)
        else:
            self._loop(self.level(node), width(node)).stores.append((node, 0, place))

    def _loop(self, level: Level, columns: int) -> Loop:
        return self.loops.setdefault((level, columns), Loop(level, columns))

    def _base(self, node: fx.Node) -> tuple[fx.Node, int]:
        """The value that `node` is a view of, and the column where it starts there."""
        offset = 0
        while node not in self.places and node not in self.inputs:
            source, start = self.view(node)
            if source is None:
                break
            node, offset = source, offset + start
        return node, offset

    def view(self, node: fx.Node, offset: int = 0) -> tuple[fx.Node | None, int]:
        """One step from a view to what it shows: the source, and its column 0's column there."""
        if node.target in ALIASES and not _broadcasts(node):
            return node.args[0], 0
        if node.target is aten.slice.Tensor:
            source, dim, start, _, step = (*node.args, *(0, 0, None, 1)[len(node.args) - 1 :])
            if dim % source.meta["val"].dim() != 1 or step != 1:
                raise UntraceableError(f"{operation_title(node)} takes rows, or every {step}th column")
            first, _, _ = slice(start, None).indices(width(source))
            return source, first
        if node.target is operator.getitem:
            split, index = node.args
            source = split.args[0]
            dim = split.args[2] if len(split.args) > 2 else split.kwargs.get("dim", 0)
            if split.target not in SPLITS or dim % source.meta["val"].dim() != 1:
                raise UntraceableError(f"{operation_title(split)} has no C form")
            sizes = [part.shape[1] for part in split.meta["val"]]
            return source, sum(sizes[:index])
        return None, 0

    # When values are ready

    def level(self, node: fx.Node) -> Level:
        if node in self.inputs:
            return (0, 0)
        if node not in self._levels:
            segment, passes = self._before(node)
            if node.target in PRODUCTS:
                segment, passes = segment + 1, 0
            elif node.target in REDUCTIONS or (node.target is aten.cat.default and node in self.places):
                passes += 1
            self._levels[node] = (segment, passes)
        return self._levels[node]

    def _before(self, node: fx.Node) -> Level:
        return max((self.level(argument) for argument in node.all_input_nodes), default=(0, 0))

    def ready(self, node: fx.Node, level: Level) -> bool:
        """Whether a loop of `level` can read `node` from memory, rather than compute it."""
        if node not in self.places:
            return False
        lasting = node in self.inputs or node.target in PRODUCTS or node.target in REDUCTIONS
        return lasting or (self.level(node) < level or node.target is aten.cat.default)

    def _share(self) -> None:
        """Put in memory what is dear and would be computed in more than one loop."""
        while True:
            users: dict[fx.Node, set[tuple[Level, int]]] = {}
            for key, loop in self.loops.items():
                roots = [node for node, _, _ in loop.stores] + [node.args[0] for node in loop.reductions]
                for node in self.computed(roots, loop.level):
                    users.setdefault(node, set()).add(key)
            cheap = CHEAP.union(ALIASES)
            dear = [
                node
                for node, keys in users.items()
                if node not in self.places
                and node.target not in cheap
                and any(level > self.level(node) for level, _ in keys)
            ]
            if not dear:
                return
            node = min(dear, key=self.level)
            self.places[node] = self._new(width(node))
            self._store(node, self.places[node])

    def computed(self, roots: Iterable[fx.Node], level: Level) -> set[fx.Node]:
        """What a loop of `level` computes, rather than loads, to arrive at `roots`."""
        found: set[fx.Node] = set()
        left = list(roots)
        while left:
            node = left.pop()
            if node in found or node in self.vectors or self.ready(node, level) or node in self.inputs:
                continue
            if node.target in ELEMENTWISE or node.target in ALIASES:
                found.add(node)
            left += node.all_input_nodes
        return found

    # C

    def code(self, packed: dict[fx.Node, str]) -> list[str]:
        """The statements of step `t` for rows `first` to `first + N`; `packed` names the packed matrices."""
        lines: list[str] = []
        segments = {level[0] for level, _ in self.loops} | {self.level(product.node)[0] for product in self.products}
        for segment in sorted(segments):
            for product in self.products:
                if self.level(product.node)[0] == segment:
                    lines.append(self._product(product, packed[product.matrix]))
            loops = sorted((loop for loop in self.loops.values() if loop.level[0] == segment), key=_order)
            if loops:
                lines.append("for (long r = first; r < first + N; r++) {")
                for loop in loops:
                    lines += ["  " + line for line in LoopCode(self, loop).lines()]
                lines.append("}")
        return lines

    def _product(self, product: Product, packed: str) -> str:
        return (
            f"{{ const long r = first; product({_at(product.operand)}, {product.operand.stride}, {packed}, "
            f"{product.depth}, {product.width}, {_at(product.result)}, {product.result.stride}, N); }}"
        )


def _order(loop: Loop) -> tuple:
    return loop.level, loop.width


def _at(place: Place) -> str:
    return f"{place.pointer} + {place.offset}" if place.offset else place.pointer


def _reads_whole(user: fx.Node) -> bool:
    return user.target not in (aten.slice.Tensor, *SPLITS)


def _broadcasts(node: fx.Node) -> bool:
    """Whether an alias shows one value a row as many."""
    before, after = node.args[0].meta["val"].shape, node.meta["val"].shape
    if not after or after[0] != ROWS or len(after) > 2:
        raise UntraceableError(f"{operation_title(node)} makes {shape_title(after)} of {shape_title(before)}")
    return before[:1] != after[:1] or math.prod(before[1:]) != math.prod(after[1:])
