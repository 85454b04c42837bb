"""The eager backend against single steps, and every other backend against the eager one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrolled.cells import CELLS, Cell
from unrolled.errors import ConfigurationError, ShapeError
from unrolled.unroll import unroll

KERNEL_CELLS = ("elman", "relu", "lstm", "gru-after")


def make(name, inputs=4, hidden=5, dtype=torch.float64):
    return CELLS[name](hidden if name in ("mut1", "mut2") else inputs, hidden, dtype=dtype)


def start(cell, batch, dtype=torch.float64):
    return tuple(torch.randn(batch, size, dtype=dtype) for size in cell.state_sizes)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("reverse", [False, True])
def test_eager_is_one_step_after_the_other(name, reverse):
    cell = make(name)
    x = torch.randn(6, 2, cell.input_size).double()
    state = start(cell, 2)
    outputs, final = unroll(cell, x, state, reverse=reverse, backend="eager")
    for t in reversed(range(6)) if reverse else range(6):
        state = cell(x[t], state)
        assert torch.equal(outputs[t], state[0])
    assert all(torch.equal(a, b) for a, b in zip(final, state, strict=True))


@pytest.mark.parametrize("name", CELLS)
def test_gradients_agree_with_numerical_differences(name):
    cell = make(name, 3, 4)
    x = torch.randn(3, 2, cell.input_size).double().requires_grad_()
    states = [part.requires_grad_() for part in start(cell, 2)]
    names = [key for key, _ in cell.named_parameters()]
    lengths = torch.tensor([3, 2])

    def run(x, *rest):
        bound = cell.bind(**dict(zip(names, rest[len(states) :], strict=True)))
        outputs, final = unroll(bound, x, rest[: len(states)], lengths=lengths, backend="eager")
        return outputs, *final

    if name == "relu":  # differences across the kink are no derivative: stay on one side of it
        with torch.no_grad():
            for parameter in cell.parameters():
                parameter.abs_()
            x.abs_()
            states[0].abs_()
    assert torch.autograd.gradcheck(run, (x, *states, *cell.parameters()))


@pytest.mark.parametrize("backend", ["eager", "torch"])
@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_are_the_same_as_each_sequence_alone(backend, reverse):
    cell = make("lstm")
    x, state, lengths = torch.randn(6, 4, 4).double(), start(cell, 4), [6, 1, 0, 4]
    outputs, final = unroll(cell, x, state, lengths=lengths, reverse=reverse, backend=backend)
    for b, length in enumerate(lengths):
        own = tuple(part[b : b + 1] for part in state)
        assert (outputs[length:, b] == 0).all()
        if length:
            alone, own = unroll(cell, x[:length, b : b + 1], own, reverse=reverse, backend="eager")
            torch.testing.assert_close(outputs[:length, b : b + 1], alone)
        for got, want in zip(final, own, strict=True):
            torch.testing.assert_close(got[b : b + 1], want)


@given(
    name=st.sampled_from(KERNEL_CELLS),
    steps=st.integers(1, 9),
    batch=st.sampled_from([1, 3]),
    inputs=st.sampled_from([1, 2, 7]),
    hidden=st.sampled_from([1, 7, 17]),
    reverse=st.booleans(),
    bias=st.booleans(),
    double=st.booleans(),
    data=st.data(),
)
def test_torch_backend_agrees_with_eager(name, steps, batch, inputs, hidden, reverse, bias, double, data):
    dtype = torch.float64 if double else torch.float32
    lengths = data.draw(st.none() | st.lists(st.integers(0, steps), min_size=batch, max_size=batch))
    cell = CELLS[name](inputs, hidden, bias=bias, dtype=dtype)
    x = torch.randn(steps, batch, inputs, dtype=dtype, requires_grad=True)
    state = tuple(part.requires_grad_() for part in start(cell, batch, dtype))
    leaves = [x, *state, *cell.parameters()]
    results = []
    for backend in ("eager", "torch"):
        outputs, final = unroll(cell, x, state, lengths=lengths, reverse=reverse, backend=backend)
        loss = sum(
            (part * torch.linspace(-1, 1, part.numel(), dtype=dtype).view_as(part)).sum() for part in (outputs, *final)
        )
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        results.append((outputs, *final, *gradients))
    tolerance = 1e-11 if double else 2e-5
    for eager, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, eager, rtol=tolerance, atol=tolerance)


def test_projected_lstm_on_the_torch_backend():
    cell = CELLS["lstm"](4, 5, proj_size=3, dtype=torch.float64)
    x = torch.randn(6, 2, 4).double()
    for a, b in zip(unroll(cell, x, backend="eager"), unroll(cell, x, backend="torch"), strict=True):
        torch.testing.assert_close(a, b)


def test_auto_takes_no_kernel_for_a_changed_formula():
    class Leaky(CELLS["elman"]):
        def forward(self, x, state):
            return (0.5 * state[0] + 0.5 * super().forward(x, state)[0],)

    cell, x = Leaky(4, 5), torch.randn(6, 2, 4)
    torch.testing.assert_close(unroll(cell, x)[0], unroll(cell, x, backend="eager")[0])


def test_a_cell_of_ones_own():
    class Sum(Cell):
        def __init__(self):
            super().__init__(3, 3)

        def forward(self, x, state):
            return (state[0] + x,)

    x = torch.randn(5, 2, 3)
    outputs, (last,) = unroll(Sum(), x)
    torch.testing.assert_close(outputs, x.cumsum(0))
    torch.testing.assert_close(last, x.sum(0))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"inputs": torch.zeros(5, 2, 3)}, ShapeError),
        ({"inputs": torch.zeros(2, 4)}, ShapeError),
        ({"inputs": torch.zeros(0, 2, 4)}, ShapeError),
        ({"state": (torch.zeros(2, 5),)}, ShapeError),
        ({"state": (torch.zeros(3, 5), torch.zeros(3, 5))}, ShapeError),
        ({"lengths": [1, 2, 3]}, ShapeError),
        ({"lengths": [1, 6]}, ShapeError),
        ({"lengths": [-1, 5]}, ShapeError),
        ({"lengths": [1.0, 2.0]}, ShapeError),
        ({"backend": "cuda"}, ConfigurationError),
    ],
)
def test_bad_calls(change, error):
    call = {"inputs": torch.zeros(5, 2, 4), **change}
    with pytest.raises(error):
        unroll(CELLS["lstm"](4, 5), call.pop("inputs"), **call)


def test_the_torch_backend_refuses_what_it_has_no_kernel_for():
    with pytest.raises(ConfigurationError, match="no kernel for GRUCell"):
        unroll(CELLS["gru"](4, 5), torch.zeros(5, 2, 4), backend="torch")
