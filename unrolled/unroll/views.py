"""Shortens chains of views, such as those that einsum writes before and after a product."""

from __future__ import annotations

import torch
from torch import fx

aten = torch.ops.aten
#: For each axis of a value, the axis of its source; None for an axis of one element, which a view may add or remove.
_Axes = tuple[int | None, ...]


def shorten_views(graph: fx.GraphModule) -> None:
    """Replace chains of views between values of at most two axes, through more axes, by one view or by the source."""
    sources: dict[fx.Node, tuple[fx.Node, _Axes]] = {}
    deep: set[fx.Node] = set()
    for node in list(graph.graph.nodes):
        axes = _axes(node)
        if axes is None:
            continue
        (argument,) = node.all_input_nodes
        source, before = sources.get(argument, (argument, tuple(range(argument.meta["val"].dim()))))
        sources[node] = source, tuple(None if axis is None else before[axis] for axis in axes)
        if node.meta["val"].dim() > 2 or argument in deep:
            deep.add(node)
        if node in deep and node.meta["val"].dim() <= 2 and source.meta["val"].dim() <= 2:
            node.replace_all_uses_with(_view(graph.graph, node, *sources[node]))
    graph.graph.eliminate_dead_code()


def _axes(node: fx.Node) -> _Axes | None:
    """Return, for each axis of the node's value, the axis of its argument; None if it is not such a view."""
    if node.target == aten.permute.default:
        dims = len(node.args[1])
        return tuple(axis % dims for axis in node.args[1])
    if node.target not in (aten.unsqueeze.default, aten.squeeze.dims, aten.squeeze.dim, aten.view.default):
        return None
    before, after = node.all_input_nodes[0].meta["val"].shape, node.meta["val"].shape
    long = [axis for axis, size in enumerate(before) if size != 1]
    if [before[axis] for axis in long] != [size for size in after if size != 1]:
        return None
    left = iter(long)
    return tuple(None if size == 1 else next(left) for size in after)


def _view(graph: fx.Graph, node: fx.Node, source: fx.Node, axes: _Axes) -> fx.Node:
    """Return `node` as a direct view of its source."""
    with graph.inserting_before(node):
        value = source.meta["val"]
        order = [axis for axis in axes if axis is not None]
        if order != sorted(order):
            source = graph.call_function(aten.permute.default, (source, [1, 0]))
            value = value.t()
            source.meta = {**node.meta, "val": value}
        if value.shape == node.meta["val"].shape:
            return source
        made = graph.call_function(aten.view.default, (source, list(node.meta["val"].shape)))
    made.meta = dict(node.meta)
    return made
