"""The encoder against its layers, one sequence at a time."""

import pytest
import torch

from unrolled.cells import find_cell
from unrolled.models import Encoder


@pytest.mark.parametrize(("cell", "states"), [("lstm", 2), ("gru", 1)])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@torch.no_grad()
def test_each_sequence_is_read_as_it_would_be_alone(cell, states, bidirectional, reverse):
    torch.manual_seed(0)
    encoder = Encoder(cell, 3, 4, 2, bidirectional=bidirectional, reverse=reverse).double().eval()
    directions = 2 if bidirectional else 1
    assert encoder.final_sizes == [(4,) * states * directions] * 2
    lengths = [5, 1, 3]
    x = torch.randn(5, 3, 3).double()
    found = encoder.read(x, torch.tensor(lengths))
    assert found.annotations.shape == (5, 3, 4 * directions)
    assert [tuple(part.size(-1) for part in state) for state in found.states] == encoder.final_sizes
    for row, length in enumerate(lengths):
        order = [*range(length - 2, -1, -1), length - 1] if reverse else range(length)
        outputs, hx = encoder(x[list(order), row])
        torch.testing.assert_close(found.annotations[:length, row], outputs)
        named = hx if states > 1 else (hx,)
        for layer, state in enumerate(found.states):
            expected = [part[layer * directions + k] for k in range(directions) for part in named]
            torch.testing.assert_close([part[row] for part in state], expected)


def test_tokens_are_prepared_in_the_order_in_which_they_are_read():
    encoder, table = Encoder("gru", 3, 4, reverse=True), torch.randn(9, 3)
    tokens, lengths, seen = torch.tensor([[1, 4], [2, 8], [8, 0]]), torch.tensor([3, 2]), []

    def prepare(ordered):
        seen.append(ordered.T.tolist())
        return table[ordered]

    found = encoder.read(tokens, lengths, prepare)
    assert seen == [[[2, 1, 8], [4, 8, 0]]]
    torch.testing.assert_close(found.annotations, encoder.read(table[tokens], lengths).annotations)


def test_cells_that_need_equal_sizes_get_a_projection():
    encoder = Encoder("mut1", 3, 4, forget_bias=2.0)
    assert isinstance(encoder.projections[0], torch.nn.Linear)
    forgetful = Encoder("lstm", 3, 4, forget_bias=2.0).cells[0][0]
    assert isinstance(forgetful, find_cell("lstm"))
    assert (forgetful.bias[4:8] == 2).all()
