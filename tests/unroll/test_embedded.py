"""Unrolling over rows of a table is unrolling over the embedded input, with less work."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.cells import CELLS
from unrolled.layers import Recurrent
from unrolled.unroll import unroll
from unrolled.unroll.embedded import Embedded, feed


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(CELLS)),
    sizes=st.tuples(st.integers(1, 9), st.sampled_from([1, 3]), st.integers(1, 5), st.sampled_from([1, 7])),
    reverse=st.booleans(),
    ragged=st.booleans(),
    trained=st.booleans(),
)
def test_it_is_the_dense_input(name, sizes, reverse, ragged, trained):
    torch.manual_seed(0)
    steps, batch, rows, hidden = sizes
    size = hidden if CELLS[name] in (CELLS["mut1"], CELLS["mut2"]) else 4
    cell = CELLS[name](size, hidden, dtype=torch.float64)
    table = torch.randn(rows, size, dtype=torch.float64, requires_grad=trained)
    inputs = Embedded(table, torch.randint(rows, (steps, batch)))
    lengths = torch.randint(steps + 1, (batch,)) if ragged else None
    leaves = [*cell.parameters(), *([table] if trained else [])]
    found = []
    for inner, x, backend in (*[(*feed(cell, inputs, "native"), "native")], (cell, inputs.dense(), "eager")):
        outputs, final = unroll(inner, x, lengths=lengths, reverse=reverse, backend=backend)
        loss = outputs.square().sum() + sum(part.cos().sum() for part in final)
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        found.append([outputs, *final, *gradients])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_the_input_is_multiplied_once_a_row_where_rows_repeat():
    cell, table = CELLS["lstm"](6, 5), torch.randn(8, 6)
    often, rarely = (Embedded(table, torch.randint(8, (steps, 2))) for steps in (8, 7))
    assert feed(cell, often, "native")[1].shape == (8, 2, 20)
    assert feed(cell, rarely, "native")[1].shape == (7, 2, 6)
    assert feed(cell, often, "eager")[1].shape == (8, 2, 6)


@pytest.mark.parametrize("noise", [{}, {"recurrent_dropout": 0.3, "zoneout": 0.2}])
@pytest.mark.parametrize("cell", ["lstm", "mut1"])
def test_in_a_layer(cell, noise):
    torch.manual_seed(1)
    options = {"num_layers": 2, "bidirectional": True, "dropout": 0.1, "input_projection": True, "batch_first": True}
    layer = Recurrent(cell, 3, 5, **options, **noise)
    table, tokens = torch.randn(4, 3, requires_grad=True), torch.randint(4, (3, 9))
    found = []
    for given_input in (Embedded(table, tokens), table[tokens]):
        torch.manual_seed(2)
        outputs, _ = layer(given_input)
        found.append([outputs, *torch.autograd.grad(outputs.square().sum(), [table, *layer.parameters()])])
    torch.testing.assert_close(*found)
