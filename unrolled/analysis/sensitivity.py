"""Sensitivity: how much the state of each step still depends on the first input, `∂h_t/∂x_1`.

Source: Graves 2012, "Supervised Sequence Labelling with Recurrent Neural Networks", figures 4.1 and 4.4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import jacfwd

from unrolled.analysis.states import every_state
from unrolled.cells import Cell, ElmanCell, LSTMCell, State
from unrolled.errors import ConfigurationError

#: The input that opens a gate: σ(10) = 0.99995.
_OPEN = 10.0


def sensitivity(cell: Cell, inputs: Tensor, first: State | None = None) -> Tensor:
    """Return `‖∂s_t/∂x_1‖` (Frobenius) for every step of `inputs [T, I]`: `[T, K]`, a column for each state."""
    start = None if first is None else tuple(part.unsqueeze(0) for part in first)

    def run(x: Tensor) -> tuple[Tensor, ...]:
        sequence = torch.cat([x.unsqueeze(0), inputs[1:]]).unsqueeze(1)
        begun = cell.initial_state(1, like=sequence) if start is None else start
        return tuple(part.squeeze(1) for part in every_state(cell, sequence, begun, backend="eager"))

    with torch.no_grad():
        return torch.stack([torch.linalg.matrix_norm(part) for part in jacfwd(run)(inputs[0])], 1)


def gates_by_hand(schedule: Sequence[str]) -> tuple[LSTMCell, Tensor]:
    """Build a one-unit LSTM whose gates follow `schedule`, and its input `[T, 4]`.

    schedule: for each step a string with the letters of the open gates: "i" writes, "f" keeps, "o" shows. "" closes all
    three gates.

    The first input feature is the signal: 1 at the first step, then 0. The other features drive the gates.
    """
    if not schedule or any(set(word) - set("ifo") for word in schedule):
        raise ConfigurationError(f"a schedule names the open gates of each step by the letters i, f, o: got {schedule}")
    cell = LSTMCell(4, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        cell.weight_hh.zero_()
        cell.weight_ih.zero_()
        for row, column in ((0, 1), (1, 2), (3, 3)):  # i, f and o each read one feature
            cell.weight_ih[row, column] = _OPEN
        cell.weight_ih[2, 0] = 1.0
    inputs = torch.tensor([[0.0, *(1.0 if gate in word else -1.0 for gate in "ifo")] for word in schedule])
    inputs[0, 0] = 1.0
    return cell, inputs.double()


def vanilla_by_hand(steps: int) -> tuple[ElmanCell, Tensor]:
    """Build a one-unit tanh net, and its input `[T, 1]`: 1 at the first step, then 0."""
    cell = ElmanCell(1, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        cell.weight_ih.fill_(1.0)
        cell.weight_hh.fill_(0.7)
    inputs = torch.zeros(steps, 1, dtype=torch.float64)
    inputs[0] = 1.0
    return cell, inputs


def draw_sensitivity(rows: dict[str, Tensor], ticks: dict[str, Sequence[str]] | None = None):
    """Draw a heat map for each group of adjacent rows of equal length. Each row is scaled by its own largest value.

    ticks: labels for the steps of a group, under the name of the group's first row.
    """
    from unrolled.analysis.figures import canvas, literal

    groups: list[list[str]] = []
    for name, row in rows.items():
        if groups and len(rows[groups[-1][0]]) == len(row):
            groups[-1].append(name)
        else:
            groups.append([name])
    figure = canvas(10, 0.6 + sum(0.7 + 0.42 * len(group) for group in groups))
    every = figure.subplots(len(groups), 1, squeeze=False, height_ratios=[len(group) + 1 for group in groups])[:, 0]
    for axes, group in zip(every, groups, strict=True):
        values = torch.stack([rows[name] / rows[name].max().clamp_min(1e-300) for name in group])
        image = axes.imshow(values.numpy(), aspect="auto", cmap="Greys", vmin=0, vmax=1)
        axes.set_yticks(range(len(group)), list(map(literal, group)), fontsize=9)
        steps = values.size(1)
        labels = (ticks or {}).get(group[0])
        if labels:
            axes.set_xticks(range(steps), list(map(literal, labels)), fontsize=8, family="monospace")
        else:
            axes.set_xlabel("step")
            axes.set_xticks(range(0, steps, max(1, steps // 12)), range(1, steps + 1, max(1, steps // 12)))
    figure.colorbar(image, ax=list(every), label="sensitivity to input 1, of its largest")
    return figure
