"""Recomputing in pieces gives what the whole gives, from less memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.cells import CELLS
from unrolled.errors import ConfigurationError
from unrolled.layers import Recurrent
from unrolled.unroll import unroll


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["lstm", "gru", "elman"]),
    st.integers(1, 9),
    st.integers(1, 10),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["native", "eager", "auto"]),
    st.booleans(),
)
def test_pieces_are_the_whole(name, steps, every, reverse, ragged, backend, started):
    torch.manual_seed(0)
    cell = CELLS[name](3, 4).double()
    x = torch.randn(steps, 3, 3, dtype=torch.float64, requires_grad=True)
    state = [torch.randn(3, size, dtype=torch.float64, requires_grad=True) for size in cell.state_sizes]
    lengths = torch.tensor([steps, steps // 2, 0]) if ragged else None
    leaves = [x, *(state if started else []), *cell.parameters()]
    found = []
    for k in (None, every):
        outputs, final = unroll(
            cell,
            x,
            tuple(state) if started else None,
            lengths=lengths,
            reverse=reverse,
            backend=backend,
            recompute_every=k,
        )
        loss = outputs.square().sum() + sum((part * part.cos()).sum() for part in final)
        found.append([outputs, *final, *torch.autograd.grad(loss, leaves)])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_of_gradients(reverse):
    cell = CELLS["lstm"](2, 3).double()
    x = torch.randn(5, 2, 2, dtype=torch.float64, requires_grad=True)
    state = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def run(x, *state):
        outputs, final = unroll(cell, x, state, reverse=reverse, recompute_every=2)
        return outputs, *final

    assert torch.autograd.gradgradcheck(run, (x, *state))


def test_under_torch_compile():
    layer, x = Recurrent("gru", 3, 4, recompute_every=2), torch.randn(5, 2, 3)
    torch._dynamo.reset()
    made, expected = torch.compile(layer, backend="eager")(x)[0], layer(x)[0]
    torch.testing.assert_close(made, expected)
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), list(layer.parameters())) for y in (made, expected)))


def test_a_user_module_and_a_layer():
    x = torch.randn(7, 2, 3)
    module = torch.nn.GRUCell(3, 4)
    torch.testing.assert_close(unroll(module, x, recompute_every=2)[0], unroll(module, x)[0])
    layer = Recurrent("lstm", 3, 4, num_layers=2, bidirectional=True, recompute_every=3)
    expected = layer(x)[0]
    layer.recompute_every = None
    torch.testing.assert_close(layer(x)[0], expected)


def test_noise_is_the_same_when_it_is_recomputed():
    layer = Recurrent("gru", 3, 4, zoneout=0.3, recurrent_dropout=0.3)
    x, gradients = torch.randn(8, 2, 3), []
    for every in (None, 3):
        torch.manual_seed(1)
        layer.recompute_every = every
        gradients.append(torch.autograd.grad(layer(x)[0].square().sum(), list(layer.parameters())))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("every", [0, -1, 2.5, True])
def test_not_a_number_of_steps(every):
    with pytest.raises(ConfigurationError, match="recompute_every"):
        unroll(CELLS["gru"](3, 4), torch.randn(5, 2, 3), recompute_every=every)
