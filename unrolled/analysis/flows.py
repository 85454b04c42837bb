"""Gradient flow of untrained cells and of a trained model's layers, and tables of it."""

from __future__ import annotations

import torch
from torch import Tensor

from unrolled.analysis.gradients import GradientFlow, gradient_flow, recurrent_matrices
from unrolled.analysis.states import trace
from unrolled.cells import Cell, State
from unrolled.models import LanguageModel

#: A table's heads and its rows.
Table = tuple[tuple[str, ...], list[list[object]]]


def flow_from_several_ends(cell: Cell, inputs: Tensor, first: State | None, of: str | None) -> GradientFlow:
    """Return the gradient flow over one sequence `[T, I]`.

    A small cell is measured from several ends at all distances. A large cell is measured from the last step only, at
    distances that grow by about a quarter from one to the next.
    """
    length = len(inputs)
    if sum(cell.state_sizes) <= 256:
        return gradient_flow(cell, inputs, first, of=of, ends=list({length - k * (length // 10) for k in range(5)}))
    distances = [0]
    while distances[-1] < length:
        distances.append(min(length, max(distances[-1] + 1, distances[-1] * 5 // 4)))
    return gradient_flow(cell, inputs, first, of=of, ends=[length], distances=[*distances, min(10, length)])


@torch.no_grad()
def flows_over(
    model: LanguageModel, tokens: Tensor, length: int, of: str | None
) -> tuple[dict[str, GradientFlow], dict[str, Cell]]:
    """Return the gradient flow of each layer over the last `length` of `tokens [N]`, and the layers' cells.

    The model first reads the tokens before these.
    """
    stack = model.recurrent
    cut = len(tokens) - min(length, len(tokens) - 1)
    states = stack.by_layer(model.start(tokens[:cut, None]))
    layers = trace(stack, model.embed(tokens[cut:, None]), states)
    flows, cells = {}, {}
    for number, layer in enumerate(layers, 1):
        first = tuple(part[0, 0] for part in layer.before)
        name = f"layer {number}"
        flows[name] = flow_from_several_ends(layer.cell, layer.inputs.squeeze(1), first, of)
        cells[name] = layer.cell
    return flows, cells


def flow_table(flows: dict[str, GradientFlow]) -> Table:
    """Build a table with each flow's norm 1, 10 and the most steps back, and its bound for a step's factor."""
    rows: list[list[object]] = []
    for name, flow in flows.items():
        norms = dict(zip(flow.distances, flow.by_distance(flow.spectral).tolist(), strict=True))
        last = flow.distances[-1]
        rows.append([name, *(norms[min(n, last)] for n in (1, 10, last)), flow.rate, flow.rate_of])
    steps = max(max(flow.ends) for flow in flows.values())
    return ("norm", "1 back", "10 back", f"{steps} back", "bound a step", "from"), rows


def matrix_table(cells: dict[str, Cell]) -> Table:
    """Build a table of the spectral radius and the largest singular value of each recurrent matrix of the cells."""
    matrices = [(name, m) for name, cell in cells.items() for m in recurrent_matrices(cell)]
    rows: list[list[object]] = [[name, m.name, m.spectral_radius, m.largest_singular_value] for name, m in matrices]
    return ("recurrent weights", "", "spectral radius", "largest singular value"), rows
