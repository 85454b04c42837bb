"""Generates the C of one step: products with packed matrices, and loops over a row's columns between them.

Every operation except a product treats each row independently. The *level* `(segment, pass)` of a value says when the
value is ready: a product starts a new segment, and a reduction over a row's columns starts a new pass. One loop
computes all values of one level and width. It keeps them in registers and writes to memory only what a product, a
later loop or the caller reads.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import fx

from unrolled.unroll.columns import LoopCode, shown, width
from unrolled.unroll.operations import ALIASES, CHEAP, ELEMENTWISE, PRODUCTS, REDUCTIONS, SPLITS
from unrolled.unroll.places import Level, Loop, Place, Product, size
from unrolled.unroll.trace import aten, placeholders
from unrolled.unroll.words import operation


class Step:
    """The C of one step.

    places: the memory of those inputs of the graph that have rows.
    vectors: the C names of the inputs without rows.
    outputs: the values to compute, and the memory to write them to.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        places: dict[fx.Node, Place],
        vectors: dict[fx.Node, str],
        outputs: Sequence[tuple[fx.Node, Place]],
    ) -> None:
        self.places, self.vectors = dict(places), vectors
        self.scratch = 0  # elements per row
        self.inputs = set(placeholders(graph))
        self.loops: dict[tuple[Level, int], Loop] = {}
        self.products: list[Product] = []
        self._levels: dict[fx.Node, Level] = {}
        self._stored: set[tuple[fx.Node, Place]] = set()
        self.nodes = list(graph.graph.nodes)
        for node, place in outputs:
            if node not in self.places and node not in self.inputs:
                self.places[node] = place
        computed = [node for node in self.nodes if node.op == "call_function" and node.target is not operator.getitem]
        for node in computed:
            self._place(node)
        for node, place in outputs:
            self._store(node, place)
        for node in computed:
            if node in self.places:
                self._fill(node)
        self._share()

    # The memory of values

    def _place(self, node: fx.Node) -> None:
        if node.target in PRODUCTS:
            base, _ = self._base(node.args[-2])
            for value in (base, node):
                if value not in self.places:
                    self.places[value] = self._new(width(value))
        elif node.target in REDUCTIONS:
            self.places[node] = self._new(1)
        elif node.target is aten.cat.default and node not in self.places and any(map(_reads_whole, node.users)):
            self.places[node] = self._new(width(node))

    def _new(self, columns: int) -> Place:
        start = self.scratch
        self.scratch += columns
        return Place(f"s + {size(start, 'scratch')} * N + (r - first) * {size(columns)}", columns)

    def _fill(self, node: fx.Node) -> None:
        """Plan the code that writes a value with a place to that place."""
        if node.target in PRODUCTS:
            matrix, bias = node.args[-1], node.args[0] if node.target is aten.addmm.default else None
            if matrix not in self.vectors:
                raise operation("multiplies two values that both change from step to step", node)
            base, offset = self._base(node.args[-2])
            operand = replace(self.places[base], offset=self.places[base].offset + offset)
            depth, columns = matrix.meta["val"].shape
            self.products.append(Product(node, operand, matrix, bias, self.places[node], depth, columns))
        elif node.target in REDUCTIONS:
            self._loop(self._before(node), width(node.args[0])).reductions.append(node)
        else:
            self._store(node, self.places[node])

    def _store(self, node: fx.Node, place: Place) -> None:
        if (node, place) in self._stored or (node.target in PRODUCTS and self.places[node] == place):
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
        return shown(node, self.inputs | self.places.keys())

    # The levels of values

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
        """Return whether a loop of `level` can read `node` from memory instead of computing it."""
        if node not in self.places:
            return False
        lasting = node in self.inputs or node.target in PRODUCTS or node.target in REDUCTIONS
        return lasting or (self.level(node) < level or node.target is aten.cat.default)

    def _share(self) -> None:
        """Store in memory the expensive values that more than one loop would compute."""
        while True:
            users: dict[fx.Node, set[tuple[Level, int]]] = {}
            for key, loop in self.loops.items():
                roots = [node for node, _, _ in loop.stores] + [node.args[0] for node in loop.reductions]
                for node in self.computed(roots, loop.level):
                    users.setdefault(node, set()).add(key)
            cheap = CHEAP.union(ALIASES)
            expensive = [
                node
                for node, keys in users.items()
                if node not in self.places
                and node.target not in cheap
                and any(level > self.level(node) for level, _ in keys)
            ]
            if not expensive:
                return
            node = min(expensive, key=self.level)
            self.places[node] = self._new(width(node))
            self._store(node, self.places[node])

    def computed(self, roots: Iterable[fx.Node], level: Level) -> dict[fx.Node, None]:
        """Return the nodes that a loop of `level` computes, instead of loading them, to obtain `roots`."""
        found: dict[fx.Node, None] = {}  # a dict keeps one order, so the C is the same in every process
        left = list(roots)
        while left:
            node = left.pop()
            if node in found or node in self.vectors or self.ready(node, level) or node in self.inputs:
                continue
            if node.target in ELEMENTWISE or node.target in ALIASES:
                found[node] = None
            left += node.all_input_nodes
        return found

    # C

    def code(self, packed: dict[fx.Node, str], together: bool = False) -> list[str]:
        """Return the statements of step `t` for rows `first` to `first + N`; `packed` names the packed matrices.

        together: all threads work on the same rows. Each computes some columns of every product, and the first thread
            does everything else.
        """
        lines: list[str] = []
        write, barrier = (self._share_of_product, ["#pragma omp barrier"]) if together else (self._product, [])
        segments = {level[0] for level, _ in self.loops} | {self.level(product.node)[0] for product in self.products}
        for segment in sorted(segments):
            for product in self.products:
                if self.level(product.node)[0] == segment:
                    lines.append(write(product, packed[product.matrix]))
            lines += barrier if segment else []
            loops = sorted((loop for loop in self.loops.values() if loop.level[0] == segment), key=_order)
            if loops:
                lines.append(f"{'if (thread == 0) ' if together else ''}for (long r = first; r < first + N; r++) {{")
                for loop in loops:
                    lines += ["  " + line for line in LoopCode(self, loop).lines()]
                lines += ["}", *barrier]
        return lines

    def _share_of_product(self, product: Product, packed: str) -> str:
        bias = "0" if product.bias is None else f"{self.vectors[product.bias]} + from"
        depth, width = size(product.depth), size(product.width)
        panels = f"({width} + PANEL - 1) / PANEL"
        return (
            f"{{ const long r = first, from = {panels} * thread / all * PANEL, "
            f"end = {panels} * (thread + 1) / all * PANEL, to = end < {width} ? end : {width}; "
            f"tools->product({_at(product.operand)}, {size(product.operand.stride)}, {packed} + from * {depth}, "
            f"{depth}, to - from, {bias}, {_at(product.result)} + from, {size(product.result.stride)}, N); }}"
        )

    def _product(self, product: Product, packed: str) -> str:
        bias = "0" if product.bias is None else self.vectors[product.bias]
        return (
            f"{{ const long r = first; tools->product({_at(product.operand)}, {size(product.operand.stride)}, "
            f"{packed}, {size(product.depth)}, {size(product.width)}, {bias}, {_at(product.result)}, "
            f"{size(product.result.stride)}, N); }}"
        )


def _order(loop: Loop) -> tuple:
    return loop.level, loop.width


def _at(place: Place) -> str:
    return f"{place.pointer} + {size(place.offset)}" if place.offset else place.pointer


def _reads_whole(user: fx.Node) -> bool:
    return user.target not in (aten.slice.Tensor, *SPLITS)
