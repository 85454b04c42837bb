"""A cell declares its gates; what works with gates needs to know nothing else of it."""

import pytest
import torch
from torch.nn.functional import linear

from unrolled.analysis.gates import gate_values, keep_memory
from unrolled.analysis.states import trace
from unrolled.cells import CELLS, Cell, Gate, find_cell
from unrolled.layers import Recurrent
from unrolled.models.parts import named_cell

VANILLA = {"elman", "relu", "pascanu"}


@pytest.mark.parametrize("name", CELLS)
def test_gates_share_the_biases_out(name):
    cell = find_cell(name)(6, 6)
    assert bool(cell.gates) == (name not in VANILLA)
    for bias in {gate.bias for gate in cell.gates}:
        parts = [cell.gate_bias(gate.name) for gate in cell.gates if gate.bias == bias]
        assert torch.equal(torch.cat(parts), getattr(cell, bias))
        assert all(part.shape == (6,) for part in parts)
        assert parts[0].data_ptr() == getattr(cell, bias).data_ptr()
    sigmoids = [gate.name for gate in cell.gates if gate.activation == "sigmoid"]
    assert sorted(cell.gate_order or sigmoids) == sorted(sigmoids)
    assert {gate.activation for gate in cell.gates} <= {"sigmoid", "tanh"}


def test_without_biases_a_gate_has_none():
    assert find_cell("lstm")(3, 4, bias=False).gate_bias("f") is None


class MinimalGatedCell(Cell):
    """`u = σ(W x + U h' + b_u)`, `h = (1-u)∘h' + u∘tanh(W_n x + U_n h' + b_n)`."""

    gates = (Gate("n", "tanh"), Gate("u", keeps=-1))

    def __init__(self, input_size, hidden_size, *, forget_bias=0.0, **options):
        super().__init__(input_size, hidden_size)
        self.forget_bias = forget_bias
        self.add_parameters(
            options,
            weight_ih=(2 * hidden_size, input_size),
            weight_hh=(2 * hidden_size, hidden_size),
            bias=(2 * hidden_size,),
        )

    def forward(self, x, state):
        (h,) = state
        n, u = (linear(x, self.weight_ih, self.bias) + linear(h, self.weight_hh)).chunk(2, -1)
        u = torch.sigmoid(u)
        return ((1 - u) * h + u * torch.tanh(n),)


def test_a_new_gated_cell_needs_its_class_and_its_line_alone(monkeypatch):
    monkeypatch.setitem(CELLS, "minimal", MinimalGatedCell)
    make, options, _ = named_cell("minimal", 2.0)
    assert options == {"forget_bias": 2.0}
    stack = Recurrent(make, 3, 4)
    cell = stack.cells[0][0]
    assert keep_memory(cell, 3.0)
    assert (cell.bias[4:] == -3.0).all()
    (layer,) = trace(stack, torch.randn(5, 2, 3))
    gates = gate_values(layer)
    assert list(gates) == ["u"]
    (h,) = layer.before
    expected = torch.sigmoid(layer.inputs @ cell.weight_ih[4:].T + h @ cell.weight_hh[4:].T + cell.bias[4:])
    torch.testing.assert_close(gates["u"], expected)
    assert named_cell("gru", 2.0)[1] == {}
