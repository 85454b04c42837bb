"""Splits the work after the loop for native code: the gradients of the parameters and of the input.

before        values of parameters and constants alone, which the rows are multiplied with
rows          values computed row by row: the gradient of the input, and the arguments of contractions
contractions  over the rows of all steps: products of two values with rows, and sums of one
after         the parameters' gradients, computed from the contractions; usually they are equal
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from unrolled.unroll.columns import width
from unrolled.unroll.trace import ROWS, aten, extract, has_rows, placeholders, results
from unrolled.unroll.words import operation


@dataclass(frozen=True)
class Contraction:
    """`left^T @ right` over the rows, or the sum of `left` if `right` is None."""

    node: fx.Node
    left: fx.Node
    right: fx.Node | None


class Finish:
    """The parts of `graph`, a plan's `Gradients.traced`; `fixed` has the numbers of its inputs without rows.

    Raises UntraceableError if an operation belongs to none of the parts.
    """

    def __init__(self, graph: fx.GraphModule, fixed: Sequence[int], of_input: bool) -> None:
        self.of_input = of_input
        nodes = placeholders(graph)
        given = [nodes[k] for k in fixed]
        known: dict[tuple, Contraction] = {}
        for node in list(graph.graph.nodes):
            if node.op == "call_function" and not _of_rows(node) and any(map(_of_rows, node.all_input_nodes)):
                new = _contraction(graph, node)
                same = known.setdefault((new.left, new.right, new.node.meta["val"].shape), new)
                if same is not new:
                    new.node.replace_all_uses_with(same.node)
        self.contractions = list(known.values())
        found = results(graph)
        of_parameters = found[:-1] if of_input else found
        sums = [contraction.node for contraction in self.contractions]
        values = [contraction.left for contraction in self.contractions]
        values += [contraction.right for contraction in self.contractions if contraction.right is not None]
        #: The results of `rows`: the input's gradient first, if it is wanted.
        self.wanted = list(dict.fromkeys([*found[len(of_parameters) :], *values]))
        rows = [node for node in graph.graph.nodes if node.op == "call_function" and _of_rows(node)]
        read = dict.fromkeys(argument for node in rows for argument in node.all_input_nodes)
        matrices = [node for node in read if not _of_rows(node)]
        self.inputs = [node for node in nodes if has_rows(node)]
        self.before = extract(graph, given, matrices)
        self.rows = extract(graph, [*matrices, *self.inputs], self.wanted)
        self.after = extract(graph, [*given, *sums], of_parameters)
        self.shapes = [tuple(node.meta["val"].shape) for node in sums]
        self.order = self._order(sums)

    def _order(self, sums: list[fx.Node]) -> list[int] | None:
        """Return the numbers of the contractions that are the results of `after`; None if they need computing."""
        given = placeholders(self.after)[-len(sums) :]
        order: dict[int, tuple[int, ...]] = {}
        for node in results(self.after):
            source = node
            while source.target is aten.view.default:
                (source,) = source.all_input_nodes
            if source not in given or given.index(source) in order:
                return None
            order[given.index(source)] = tuple(node.meta["val"].shape)
        for k, shape in order.items():
            self.shapes[k] = shape
        return list(order)


def _of_rows(node: fx.Node) -> bool:
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(value, torch.Tensor) and ROWS in value.shape for value in values)


def _contraction(graph: fx.GraphModule, node: fx.Node) -> Contraction:
    if node.target is aten.mm.default:
        left, right = node.args
        if left.target in (aten.permute.default, aten.t.default) and has_rows(left.args[0]) and has_rows(right):
            width(left.args[0])
            return Contraction(node, left.args[0], right)
    if node.target is aten.sum.dim_IntList and not node.kwargs:
        value, dims = node.args[:2]
        every = [dim % value.meta["val"].dim() for dim in dims or range(value.meta["val"].dim())]
        if has_rows(value) and 0 in every:
            width(value)
            if every == [0]:
                return Contraction(node, value, None)
            with graph.graph.inserting_before(node):  # sum over the rows first, then over the columns
                first = graph.graph.call_function(aten.sum.dim_IntList, (value, [0], True))
            first.meta = {**node.meta, "val": value.meta["val"].sum(0, keepdim=True)}
            node.args = (first, *node.args[1:])
            return Contraction(first, value, None)
    raise operation(f"has a derivative by {node.target}, which has no native form", node)
