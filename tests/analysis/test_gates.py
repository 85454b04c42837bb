"""Gates that keep, cell by cell: the first step passes on the share of the state that the bias says."""

import pytest
import torch

from unrolled.analysis.gates import gate_values, keep_memory, saturation
from unrolled.analysis.states import trace
from unrolled.cells import CELLS, find_cell
from unrolled.layers import Recurrent

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


@pytest.mark.parametrize("name", GATED)
@torch.no_grad()
def test_gates_by_name(name):
    """Each name stands for the gate that its bias opens: a bias of 20 makes it 1, whatever else goes in."""
    parts = {"lstm": "ifgo", "peephole": "ifgo", "peephole-full": "ifgo", "ln-lstm": "ifgo", "coupled": "fgo"}
    stack = Recurrent(find_cell(name), 6, 6)
    for gate in ("i", "f", "o", "r", "z"):
        cell = find_cell(name)(6, 6)
        with torch.no_grad():
            if hasattr(cell, f"bias_{gate}"):
                getattr(cell, f"bias_{gate}").fill_(20.0)
            elif name in parts and gate in parts[name]:
                cell.bias.chunk(len(parts[name]))[parts[name].index(gate)].fill_(20.0)
            elif name not in parts and gate in "rz" and hasattr(cell, "bias"):
                cell.bias.chunk(3)["rz".index(gate)].fill_(20.0)
            else:
                continue
        stack.cells[0][0] = cell
        (layer,) = trace(stack, torch.randn(4, 2, 6))
        gates = gate_values(layer)
        assert gates[gate].shape == (4, 2, 6)
        assert (gates[gate] > 0.99).all()
        assert all((part < 0.99).all() for other, part in gates.items() if other != gate)
        open_all = next(found for found in saturation([layer]) if found.gate == gate)
        assert open_all.right.min() == 1.0
        assert open_all.left.max() == 0.0


def test_a_vanilla_cell_has_no_gates():
    (layer,) = trace(Recurrent("elman", 3, 4), torch.randn(2, 1, 3))
    assert gate_values(layer) == {}
    assert saturation([layer]) == []
