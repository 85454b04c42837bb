"""Sensitivity to the first input against finite differences, and Graves' figure: kept while f is open, shown by o."""

import pytest
import torch

from unrolled.analysis.sensitivity import gates_by_hand, sensitivity, vanilla_by_hand
from unrolled.cells import find_cell
from unrolled.errors import ConfigurationError


@pytest.mark.parametrize("name", ["elman", "lstm", "gru"])
def test_against_finite_differences(name):
    cell = find_cell(name)(3, 4, dtype=torch.float64)
    inputs, delta = torch.randn(5, 3, dtype=torch.float64), 1e-6
    found = sensitivity(cell, inputs)

    def run(x):
        state, outputs = cell.initial_state(1, like=x), []
        for step in x:
            state = cell(step.unsqueeze(0), state)
            outputs.append(state[0].squeeze(0))
        return torch.stack(outputs)

    columns = []
    for k in range(3):
        moved = inputs.clone()
        moved[0, k] += delta
        columns.append((run(moved) - run(inputs)) / delta)
    expected = torch.stack(columns, -1).flatten(1).norm(dim=1)
    assert torch.allclose(found[:, 0], expected, rtol=1e-4, atol=1e-8)


def test_an_open_forget_gate_keeps_and_the_output_gate_shows():
    cell, inputs = gates_by_hand(["i", "f", "f", "fo", "f", "", "o"])
    h, c = sensitivity(cell, inputs).T
    assert torch.allclose(c[:5] / c[0], torch.ones(5, dtype=torch.float64), atol=1e-3)
    assert c[5] < 1e-3 * c[0]
    shown = h / h.max()
    assert [value > 0.5 for value in shown.tolist()] == [False, False, False, True, False, False, False]


def test_a_vanilla_net_forgets():
    h = sensitivity(*vanilla_by_hand(10))[:, 0]
    assert (h[1:] < h[:-1]).all()
    assert h[-1] < 0.05 * h[0]


def test_a_gate_that_is_none():
    with pytest.raises(ConfigurationError, match="letters i, f, o"):
        gates_by_hand(["i", "x"])
