"""Gates that keep, cell by cell: the first step passes on the share of the state that the bias says."""

import pytest
import torch

from unrolled.analysis.gates import keep_memory
from unrolled.cells import CELLS, find_cell

GATED = [name for name in CELLS if name not in ("elman", "relu", "pascanu")]


@pytest.mark.parametrize("name", GATED)
def test_a_kept_state_stays(name):
    cell = find_cell(name)(6, 6)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
    assert keep_memory(cell, 3.0)
    state = tuple(torch.rand(2, 6) for _ in cell.state_names)
    after = cell(torch.zeros(2, 6), state)
    assert torch.allclose(after[-1], torch.sigmoid(torch.tensor(3.0)) * state[-1], atol=1e-6)


@pytest.mark.parametrize("name", ["elman", "relu", "pascanu"])
def test_vanilla_cells_have_nothing_to_open(name):
    assert not keep_memory(find_cell(name)(6, 6), 3.0)


def test_without_biases_nothing_is_changed():
    assert not any(keep_memory(find_cell(name)(6, 6, bias=False), 3.0) for name in GATED)
