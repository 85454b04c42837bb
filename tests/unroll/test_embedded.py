"""Unrolling over rows of a table is unrolling over the embedded input, with less work."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.forms import by_form
from unrolled.cells import CELLS
from unrolled.layers import Recurrent
from unrolled.unroll import unroll
from unrolled.unroll.embedded import Embedded, feed, keep_rows
from unrolled.unroll.signature import describe_module


def _dense(name, hidden, ragged, trained, calls):
    """What is compiled for one cell is called with several numbers of steps, sequences and rows."""
    for call in calls:
        compare_with_the_dense_input(name, hidden, ragged, trained, *call)


_calls = st.tuples(st.integers(1, 9), st.sampled_from([1, 3]), st.integers(1, 5), st.booleans())
_dense_cases = given(
    name=st.sampled_from(sorted(CELLS)),
    hidden=st.sampled_from([1, 7]),
    ragged=st.booleans(),
    trained=st.booleans(),
    calls=st.lists(_calls, min_size=4, max_size=4),
)
test_it_is_the_dense_input = settings(max_examples=4)(_dense_cases(_dense))
test_it_is_the_dense_input_often = pytest.mark.slow(settings(max_examples=100)(_dense_cases(_dense)))


def compare_with_the_dense_input(name, hidden, ragged, trained, steps, batch, rows, reverse):
    torch.manual_seed(0)
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


NOISE = {"recurrent_dropout": 0.3, "zoneout": 0.2}


@pytest.mark.parametrize(
    ("cell", "noise"),
    [
        ("lstm", {}),
        ("mut1", NOISE),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("lstm", NOISE), ("mut1", {}))),
    ],
)
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


@pytest.mark.parametrize("name", by_form())
@settings(max_examples=3)
@given(rows=st.integers(1, 9), batch=st.sampled_from([1, 5]), layers=st.integers(1, 2))
def test_rows_that_are_kept_give_every_step_of_the_dense_input(name, rows, batch, layers):
    torch.manual_seed(3)
    layer = Recurrent(name, 3, 4, layers, input_projection=True, dtype=torch.float64)
    table = torch.randn(rows, 3, dtype=torch.float64)
    state = other = None
    with torch.no_grad():
        kept = layer.keep_rows(table, 1.5)
        assert kept is not None
        for tokens in torch.randint(rows, (4, 1, batch)):
            outputs, state = layer(kept.at(tokens), state)
            expected, other = layer(1.5 * table[tokens], other)
            torch.testing.assert_close(outputs, expected, rtol=1e-10, atol=1e-12)


def test_every_row_is_hoisted_once(monkeypatch):
    table = torch.randn(6, 4)
    kept = keep_rows(CELLS["lstm"](4, 5), table, 1.0, torch.nn.Identity())
    hoist, asked = kept.cell.hoist, []
    monkeypatch.setattr(kept.cell, "hoist", lambda given, some: asked.append(len(some)) or hoist(given, some))
    for tokens in ([[1, 1, 2]], [[2, 1, 1]], [[2, 5, 0]]):
        kept.at(torch.tensor(tokens))
    assert asked == [2, 2]
    table.mul_(2)
    kept.at(torch.tensor([[2, 5, 0]]))
    assert asked == [2, 2, 3]


@pytest.mark.parametrize("change", ["weight_ih", "table", "projection"])
def test_rows_are_made_anew_when_a_weight_changes(change):
    torch.manual_seed(4)
    layer, table, tokens = Recurrent("mut1", 3, 4, input_projection=True), torch.randn(5, 3), torch.randint(5, (1, 2))
    weights = {"table": table, "projection": layer.projections[0].weight, "weight_ih": next(layer.cells.parameters())}
    with torch.no_grad():
        kept = layer.keep_rows(table)
        before, _ = layer(kept.at(tokens))
        weights[change] += 0.5
        torch.testing.assert_close(layer(kept.at(tokens)), layer(table[tokens]))
        assert not torch.allclose(before, layer(table[tokens])[0])


def test_rows_can_be_kept_in_and_out_of_inference_mode():
    layer, table, tokens = Recurrent("lstm", 3, 4, batch_first=True), torch.randn(5, 3), torch.randint(5, (2, 1))
    with torch.inference_mode():
        kept = layer.keep_rows(table)
        inside, _ = layer(kept.at(tokens[:1]))
    with torch.no_grad():
        outside, _ = layer(kept.at(tokens))
        torch.testing.assert_close(outside, layer(table[tokens])[0])
    torch.testing.assert_close(inside.clone(), outside[:1])


def test_rows_are_not_kept_where_native_code_does_not_serve():
    table = torch.randn(6, 4)
    assert Recurrent("lstm", 4, 5, backend="eager").keep_rows(table) is None
    assert Recurrent("lstm", 4, 5, bidirectional=True).keep_rows(table) is None
    assert Recurrent("lstm", 4, 5).keep_rows(table.half()) is None


def test_cells_that_are_fed_alike_share_one_plan():
    cell, table = CELLS["lstm"](6, 5), torch.randn(8, 6)
    inputs = Embedded(table, torch.randint(8, (8, 2)))
    fed = [feed(cell, inputs, "native")[0] for _ in range(2)]
    fed += [keep_rows(cell, table, 1.0, torch.nn.Identity()).cell for _ in range(2)]
    assert len({describe_module(one)[0] for one in fed}) == 1
