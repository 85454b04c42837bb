"""Lengths of every type, and padding that may hold anything: the result is that of each sequence alone."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unrolled import GRU, LSTM, RNN
from unrolled.cells import CELLS, Cell
from unrolled.errors import ShapeError
from unrolled.layers import Recurrent
from unrolled.unroll import unroll
from unrolled.unroll.embedded import Embedded

INTEGERS = ["uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"]
NOTHING = (float("nan"), float("inf"), -float("inf"))

LAYERS = {
    "native": lambda: Recurrent("gru", 4, 5),
    "eager": lambda: Recurrent("gru", 4, 5, backend="eager"),
    "planned": lambda: Recurrent("gru", 4, 5, backend="planned"),
    "in pieces": lambda: Recurrent("gru", 4, 5, recompute_every=2),
    "deep": lambda: Recurrent("lstm", 4, 5, num_layers=2, bidirectional=True),
    "projected": lambda: Recurrent("mut1", 4, 5, input_projection=True, backend="eager"),
    "GRU": lambda: GRU(4, 5),
    "LSTM, kernel": lambda: LSTM(4, 5, backend="torch"),
    "RNN, batch first": lambda: RNN(4, 5, batch_first=True, backend="eager"),
}


def padded(x, lengths, value):
    """A leaf like `x [T, B, I]` with `value` after the lengths."""
    inside = torch.arange(len(x)).unsqueeze(-1) < torch.tensor(lengths)
    return torch.where(inside.unsqueeze(-1), x, value).detach().requires_grad_()


def results(layer, x, lengths, **options):
    """Outputs, last states and all gradients of a loss that reads both."""
    given = x.transpose(0, 1) if getattr(layer, "batch_first", False) else x
    outputs, final = layer(given, lengths=lengths, **options)
    parts = final if isinstance(final, tuple) else (final,)
    loss = outputs.square().sum() + sum((part * part.cos()).sum() for part in parts)
    return [outputs, *parts, *torch.autograd.grad(loss, [x, *layer.parameters()])]


@settings(max_examples=6)
@given(
    st.lists(st.integers(0, 5), min_size=3, max_size=3),
    st.sampled_from(NOTHING),
)
@pytest.mark.parametrize("name", LAYERS)
def test_nothing_of_the_padding_reaches_outputs_or_gradients(name, lengths, value):
    layer, x = LAYERS[name](), torch.randn(5, 3, 4)
    plain, other = (results(layer, padded(x, lengths, fill), torch.tensor(lengths)) for fill in (0.0, value))
    torch.testing.assert_close(other, plain, rtol=0, atol=0)
    assert all(part.isfinite().all() for part in other)
    of_padding = other[-1 - len(list(layer.parameters()))][torch.arange(5).unsqueeze(-1) >= torch.tensor(lengths)]
    assert (of_padding == 0).all()


@pytest.mark.parametrize("name", [name for name in CELLS if name != "gru"])
@pytest.mark.parametrize("reverse", [False, True])
def test_every_cell_eagerly(name, reverse):
    cell = CELLS[name](5, 5)
    x, found = torch.randn(5, 3, 5), []
    for value in (0.0, float("nan")):
        fed = padded(x, [5, 3, 0], value)
        outputs, _ = unroll(cell, fed, lengths=[5, 3, 0], reverse=reverse, backend="eager")
        found.append(torch.autograd.grad(outputs.square().sum(), [fed, *cell.parameters()]))
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("options", [{}, {"input_projection": True}, {"backend": "eager"}], ids=str)
@pytest.mark.parametrize("rows", [6, 30])
def test_rows_of_a_table_that_only_the_padding_picks(options, rows):
    """Or that nothing picks: 6 rows are hoisted through as a table, 30 are not."""
    layer, found = Recurrent("gru", 4, 5, **options), []
    tokens, lengths = torch.tensor([[1, 2, 3], [4, 1, 0], [2, 0, 0], [3, 0, 0]]), torch.tensor([4, 2, 0])
    for value in (0.0, float("nan")):
        table = torch.linspace(-1, 1, 4 * rows).reshape(rows, 4)
        table[0] = table[5] = value
        table.requires_grad_()
        outputs, final = layer(Embedded(table, tokens), lengths=lengths)
        found.append(torch.autograd.grad(outputs.square().sum() + final.sum(), [table, *layer.parameters()]))
    torch.testing.assert_close(*found, rtol=0, atol=0)
    dense = layer(table[tokens], lengths=lengths)
    expected = torch.autograd.grad(dense[0].square().sum() + dense[1].sum(), [table, *layer.parameters()])
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["eager", "native", "planned", "torch"])
@pytest.mark.parametrize("lengths", [[4, 2, 0], [0, 0, 0]], ids=str)
def test_the_first_state_of_a_sequence_without_steps_is_given_back_and_not_read(backend, lengths):
    cell = CELLS["lstm"](4, 5)
    x, state = torch.randn(4, 3, 4), [torch.randn(3, 5) for _ in range(2)]
    for part in state:
        part[torch.tensor(lengths) == 0] = float("nan")
    x.requires_grad_()
    outputs, final = unroll(cell, x, tuple(state), lengths=lengths, backend=backend)
    for after, before, length in zip(final[0], state[0], lengths, strict=True):
        assert after.isnan().all() if length == 0 else not torch.equal(after, before)
    assert all(part.isfinite().all() for part in torch.autograd.grad(outputs.sum(), [x, *cell.parameters()]))


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_that_arrive_at_the_padding_are_not_read(name):
    layer, lengths = LAYERS[name](), torch.tensor([5, 3, 1])
    x = torch.randn(3, 5, 4) if getattr(layer, "batch_first", False) else torch.randn(5, 3, 4)
    x.requires_grad_()
    outputs = layer(x, lengths=lengths)[0]
    beyond = torch.arange(5).unsqueeze(-1) >= lengths
    if getattr(layer, "batch_first", False):
        beyond = beyond.T
    found = []
    for value in (0.0, float("nan")):
        arriving = torch.ones_like(outputs)
        arriving[beyond] = value
        found.append(torch.autograd.grad(outputs, list(layer.parameters()), arriving, retain_graph=True))
    torch.testing.assert_close(*found, rtol=0, atol=0)


class Unit(Cell):
    """Has no derivative at an input of zeros."""

    def __init__(self):
        super().__init__(4, 5)
        self.add_parameters({}, weight_ih=(5, 4), weight_hh=(5, 5))

    def forward(self, x, state):
        x = x / x.square().sum(-1, keepdim=True).sqrt()
        return (torch.tanh(x @ self.weight_ih.T + state[0] @ self.weight_hh.T),)


class Countdown(Cell):
    """Has no derivative once its second state has reached zero."""

    state_names = ("h", "left")

    def __init__(self):
        super().__init__(4, 5)
        self.add_parameters({}, weight_ih=(5, 4))

    def forward(self, x, state):
        h, left = state
        return torch.tanh(x @ self.weight_ih.T + h) * left.sqrt(), left - 1


@pytest.mark.parametrize(
    ("make", "backend"), [(Unit, "eager"), (Unit, "native"), (Unit, "planned"), (Countdown, "eager")]
)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("every", [None, 2])
def test_a_cell_that_has_no_derivative_at_the_padding(make, backend, reverse, every):
    cell, lengths = make(), [5, 3, 0]
    x = padded(torch.randn(5, 3, 4), lengths, 0.0)
    state = (torch.zeros(3, 5),)
    if make is Countdown:
        state = (*state, torch.tensor(lengths, dtype=torch.float32).unsqueeze(-1).expand(3, 5).contiguous())
    options = {"reverse": reverse, "backend": backend, "recompute_every": every}
    outputs, _ = unroll(cell, x, state, lengths=lengths, **options)
    expected = 0.0
    for b, length in enumerate(lengths[:2]):
        own = tuple(part[b : b + 1] for part in state)
        alone, _ = unroll(cell, x[:length, b : b + 1], own, reverse=reverse, backend="eager")
        torch.testing.assert_close(outputs[:length, b : b + 1], alone)
        expected = expected + alone.square().sum()
    leaves = [x, *cell.parameters()]
    found = torch.autograd.grad(outputs.square().sum(), leaves)
    torch.testing.assert_close(found, torch.autograd.grad(expected, leaves), rtol=1e-4, atol=1e-5)


def test_a_user_module():
    for state in (None, torch.randn(3, 5)):
        module, found = nn.GRUCell(4, 5), []
        for value in (0.0, float("nan")):
            torch.manual_seed(1)
            x = padded(torch.randn(5, 3, 4), [5, 3, 1], value)
            outputs, _ = unroll(module, x, state, lengths=[5, 3, 1])
            found.append(torch.autograd.grad(outputs.square().sum(), [x, *module.parameters()]))
        torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", ["eager", "in pieces", "GRU", "LSTM, kernel"])
def test_lengths_of_any_integer_type(name, dtype):
    layer, x = LAYERS[name](), torch.randn(300 if name == "eager" else 20, 2, 4)
    lengths = torch.tensor([100, 3] if name == "eager" else [20, 3])
    expected = layer(x, lengths=lengths)
    torch.testing.assert_close(layer(x, lengths=lengths.to(getattr(torch, dtype))), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "lengths",
    [
        [4, 2, 1],
        (4, 2, 1),
        [torch.tensor(4), torch.tensor(2), torch.tensor(1)],
        np.array([4, 2, 1], dtype=np.uint8),
        np.array([1, 2, 4])[::-1],
        np.array([4, 2, 1], dtype=">i2"),
    ],
    ids=repr,
)
def test_lengths_in_any_form(lengths):
    cell, x = CELLS["gru"](4, 5), torch.randn(4, 3, 4)
    expected = unroll(cell, x, lengths=torch.tensor([4, 2, 1]), backend="eager")
    torch.testing.assert_close(unroll(cell, x, lengths=lengths, backend="eager"), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "lengths",
    [
        torch.tensor([True, False, True]),
        [True, False, True],
        [4.0, 2.0, 1.0],
        torch.tensor([4, 2, 1], dtype=torch.complex64),
        torch.tensor([255, 2, 1], dtype=torch.uint8),
        torch.tensor([-1, 2, 1], dtype=torch.int8),
        torch.tensor([2**63 + 1, 1, 1], dtype=torch.uint64),
        [2**70, 1, 1],
        ["4", "2", "1"],
        [4, None, 1],
        4,
        [[4], [2], [1]],
        [],
    ],
    ids=repr,
)
def test_no_lengths(lengths):
    with pytest.raises(ShapeError, match="lengths must be"):
        unroll(CELLS["gru"](4, 5), torch.randn(4, 3, 4), lengths=lengths)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("lengths", [[], torch.zeros(0, dtype=torch.uint8), np.array([])], ids=repr)
def test_a_batch_of_no_sequences(name, lengths):
    layer = LAYERS[name]()
    x = torch.randn(0, 6, 4) if getattr(layer, "batch_first", False) else torch.randn(6, 0, 4)
    expected = copy.deepcopy(layer)(x)
    torch.testing.assert_close(layer(x, lengths=lengths), expected)


def test_a_batch_of_no_sequences_and_a_user_module():
    for options in ({}, {"recompute_every": 2}, {"reverse": True}):
        assert unroll(nn.GRUCell(4, 5), torch.randn(6, 0, 4), lengths=[], **options)[0].shape == (6, 0, 5)


def test_lengths_under_vmap():
    cell, x = CELLS["gru"](4, 5), torch.randn(2, 4, 3, 4)
    lengths = torch.tensor([[4, 2, 0], [1, 4, 3]])
    for every in (None, 2):

        def run(x, lengths, every=every):
            return unroll(cell, x, lengths=lengths, recompute_every=every)[0]

        each = [run(*pair) for pair in zip(x, lengths, strict=True)]
        torch.testing.assert_close(torch.func.vmap(run)(x, lengths), torch.stack(each))
