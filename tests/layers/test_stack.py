"""A stack of cells is a cell: one step of it, unrolled, is layer after layer over all steps."""

import pytest
import torch

from tests.forms import by_form
from unrolled.cells import CELLS
from unrolled.errors import ConfigurationError
from unrolled.layers import Recurrent
from unrolled.layers.nest import flatten, unflatten
from unrolled.layers.stack import by_name
from unrolled.unroll import unroll


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *((name, "eager") for name in CELLS),
        *by_form("native"),
    ],
)
def test_a_stack_is_its_layers(name, backend):
    options = {"input_projection": True, "zoneout": 0.2}
    layer = Recurrent(name, 4, [6, 5, 5], backend="eager", **options).double().eval()
    stack, x = layer.stack(), torch.randn(7, 3, 4).double()
    assert (stack.input_size, stack.hidden_size) == (4, layer.output_size)
    assert len(stack.state_names) == len(stack.state_sizes) == 3 * len(layer.state_names)
    start = tuple(torch.randn(3, size).double() for size in stack.state_sizes)
    expected, hx = layer(x, by_name(unflatten(start, stack.sizes)))
    outputs, state = unroll(stack, x, start, backend=backend)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(by_name(unflatten(state, stack.sizes)), hx)
    # By default it starts as its layers do, and its parameters are theirs.
    ours = torch.autograd.grad(unroll(stack, x, backend=backend)[0].sum(), list(layer.parameters()))
    theirs = torch.autograd.grad(layer(x)[0].sum(), list(layer.parameters()))
    torch.testing.assert_close(ours, theirs)


@torch.no_grad()
def test_the_state_is_named_layer_by_layer():
    layer = Recurrent("lstm", 3, [4, 5])
    stack = layer.stack()
    assert stack.state_names == ("h1", "c1", "h2", "c2")
    assert stack.sizes == ((4, 4), (5, 5))
    assert [part.shape for part in stack.initial_state(2, like=torch.ones(1))] == [(2, 4), (2, 4), (2, 5), (2, 5)]
    _, hx = layer(torch.randn(6, 2, 3))
    _, states = layer.run(torch.randn(6, 2, 3), layer.by_layer(hx))
    assert [part.shape for part in flatten(states)] == [(2, 4), (2, 4), (2, 5), (2, 5)]
    torch.testing.assert_close(by_name(layer.by_layer(hx)), hx)


@torch.no_grad()
def test_a_stack_of_other_peoples_modules():
    layer = Recurrent(torch.nn.LSTMCell, 4, [6, 5])
    x = torch.randn(7, 3, 4)
    torch.testing.assert_close(unroll(layer.stack(), x)[0], layer(x)[0])


def test_zoneout_moves_by_its_mean_even_while_the_layer_trains():
    layer = Recurrent("gru", 3, 4, zoneout=0.5).train()
    x = torch.randn(5, 2, 3)
    stacked = unroll(layer.stack(), x)[0]
    torch.testing.assert_close(stacked, layer.eval()(x)[0])


def test_both_directions_are_no_cell():
    with pytest.raises(ConfigurationError, match="from both ends"):
        Recurrent("gru", 3, 4, bidirectional=True).stack()
