"""Gates: initial values with which they keep memory, and how open they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unrolled.analysis.states import Layer
from unrolled.cells import Cell


@torch.no_grad()
def keep_memory(cell: Cell, bias: float) -> bool:
    """Set the gates' biases so that a cell keeps its memory at the start of training. Return whether this is possible.

    With no other input, the gate that keeps a unit is σ(bias) open. `Cell.gates` says which gates keep: the forget gate
    of LSTMs and the update gate of GRUs and MUTs. An LSTM's input gate has its own bias and starts at σ(-bias).
    A cell without such gates or without biases stays unchanged, and the result is False.
    Source: Gers et al. 2000; Tallec & Ollivier 2018, "Can recurrent neural networks warp time?", who give the rule
    bias = log(number of steps to remember).
    """
    moved = [(gate.keeps, cell.gate_bias(gate.name)) for gate in cell.gates if gate.keeps]
    for keeps, part in moved:
        if part is None:
            return False
        part.fill_(keeps * bias)
    return bool(moved)


class _Gates(TorchDispatchMode):
    """A mode that records the result of every logistic function."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.sigmoid.default:
            self.seen.append(result)
        return result


@torch.no_grad()
def gate_values(layer: Layer) -> dict[str, Tensor]:
    """Return the gates of each step by name, `[T, B, H]` each: every result of a logistic function in the cell.

    If the cell does not declare its gates, they are called "gate 1", "gate 2" and so on. A cell without gates gives an
    empty dict.
    """
    steps, batch = layer.inputs.shape[:2]
    with _Gates() as gates:  # the state before each step is known, so all steps can run as rows of one batch
        layer.cell(layer.inputs.flatten(0, 1), tuple(part.flatten(0, 1) for part in layer.before))
    size = layer.cell.hidden_size
    whole = [part for seen in gates.seen if seen.size(-1) % size == 0 for part in seen.split(size, -1)]
    inner = getattr(layer.cell, "cell", None)
    cell = inner if isinstance(inner, Cell) else layer.cell  # without a wrapper such as noise
    names = cell.gate_order or tuple(gate.name for gate in cell.gates if gate.activation == "sigmoid")
    if len(names) != len(whole):
        names = tuple(f"gate {k}" for k in range(1, len(whole) + 1))
    return {name: part.unflatten(0, (steps, batch)) for name, part in zip(names, whole, strict=True)}


@dataclass(frozen=True)
class Saturation:
    """The shares of steps at which each unit of a gate is nearly closed (left) and nearly open (right), `[H]` each."""

    layer: int
    gate: str
    left: Tensor
    right: Tensor


def saturation(layers: Sequence[Layer], below: float = 0.1, above: float = 0.9) -> list[Saturation]:
    """Return the saturation of every gate: left-saturated is below `below`, right-saturated above `above`.

    Source: Karpathy et al. 2016, figure 3.
    """
    return [
        Saturation(number, name, (part < below).float().mean((0, 1)), (part > above).float().mean((0, 1)))
        for number, layer in enumerate(layers, 1)
        for name, part in gate_values(layer).items()
    ]


def draw_saturation(found: Sequence[Saturation]):
    """Draw each unit of each gate as a point: how often it is nearly open, and how often nearly closed."""
    from unrolled.analysis.figures import canvas, literal

    layers = sorted({part.layer for part in found})
    figure = canvas(4 * len(layers) + 0.5, 4)
    every = figure.subplots(1, len(layers), sharey=True, squeeze=False)[0]
    for axes, number in zip(every, layers, strict=True):
        axes.plot([0, 1], [1, 0], color="grey", linewidth=0.6)
        for part in found:
            if part.layer == number:
                share_open, share_closed = part.right.numpy(), part.left.numpy()
                axes.plot(share_open, share_closed, ".", markersize=4, alpha=0.6, label=literal(f"gate {part.gate}"))
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="share of steps above 0.9", title=f"layer {number}")
        axes.set_aspect("equal")
        axes.legend(fontsize=8)
    every[0].set_ylabel("share of steps below 0.1")
    return figure
