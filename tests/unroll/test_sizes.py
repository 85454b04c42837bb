"""Cells of one class that differ in their sizes alone: a plan belongs to one width of the input and of each state."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrolled.cells import Cell
from unrolled.unroll import unroll


class Plain(Cell):
    """No parameter tells a size: the state leaks, and the last feature of the input is added to it."""

    def forward(self, x, state):
        (h,) = state
        return (torch.tanh(0.5 * h + x[:, -1:]),)


class Uneven(Plain):
    """States of two widths that no parameter tells."""

    state_names = ("h", "c")

    def __init__(self, input_size, hidden_size, other_size):
        super().__init__(input_size, hidden_size)
        self.__dict__["other"] = other_size

    @property
    def state_sizes(self):
        return self.hidden_size, self.other

    def forward(self, x, state):
        h, c = state
        return torch.tanh(0.5 * h + x[:, -1:] + c.mean(-1, keepdim=True)), torch.sin(c + x[:, :1])


class Ones(Plain):
    """It starts from ones where no state is given."""

    def initial_state(self, batch_size, *, like):
        return (like.new_ones(batch_size, self.hidden_size),)


def compare(cell, backend, steps=4, batch=3, lengths=None):
    x = torch.randn(steps, batch, cell.input_size, requires_grad=True)
    sides = []
    for name in ("eager", backend):
        outputs, final = unroll(cell, x, backend=name, lengths=lengths)
        (gradient,) = torch.autograd.grad(outputs.sum() + sum(part.sum() for part in final), x)
        sides.append([outputs, *final, gradient])
    torch.testing.assert_close(*sides)


sizes = st.integers(1, 9)
BACKENDS = ["planned", "native", "auto"]
#: Each differs from the first in one size, so that any size that is not told gives another's plan.
DIFFERENT = [(4, 5, 3), (2, 5, 3), (4, 6, 3), (4, 5, 1)]


def compare_all(backend, made, ragged):
    lengths = torch.tensor([4, 2, 3]) if ragged else None
    for inputs, hidden, other in made:
        compare(Plain(inputs, hidden), backend, lengths=lengths)
        compare(Uneven(inputs, hidden, other), backend, lengths=lengths)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_cells_whose_parameters_do_not_tell_their_sizes(backend, ragged):
    compare_all(backend, DIFFERENT, ragged)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@given(made=st.lists(st.tuples(sizes, sizes, sizes), min_size=2, max_size=4), ragged=st.booleans())
def test_cells_of_any_size(backend, made, ragged):
    compare_all(backend, made, ragged)


def test_a_cell_whose_size_changes():
    cell = Plain(3, 5)
    for inputs, hidden in ((3, 5), (6, 5), (6, 2), (3, 5)):
        cell.input_size, cell.hidden_size = inputs, hidden
        compare(cell, "native")


def test_sizes_under_torch_compile():
    for inputs in (2, 6):
        cell, x = Plain(inputs, 3), torch.randn(4, 3, inputs)
        compiled = torch.compile(lambda x, cell=cell: unroll(cell, x)[0], backend="eager")
        torch.testing.assert_close(compiled(x), unroll(cell, x, backend="eager")[0])


@pytest.mark.parametrize("backend", ["planned", "native"])
@pytest.mark.parametrize("lengths", [None, [4, 0, 2]])
def test_the_first_state_is_the_cells_own(backend, lengths):
    compare(Ones(2, 3), backend, lengths=None if lengths is None else torch.tensor(lengths))
