"""The gradient of a loss at every step, against products of derivatives worked out by hand."""

import pytest
import torch

from unrolled import Recurrent
from unrolled.analysis.loss_flow import draw_loss_gradients, loss_gradients, loss_table
from unrolled.analysis.states import WholeState
from unrolled.cells import find_cell
from unrolled.errors import ConfigurationError
from unrolled.unroll import unroll


def test_one_unit_by_hand():
    """h_t = tanh(x_t + w h_{t-1}): ∂h_T/∂h_t is the product of w (1 - h_k²) over the steps k after t."""
    layer = Recurrent("elman", 1, 1).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.cells[0][0].weight_ih.fill_(1.0)
        layer.cells[0][0].weight_hh.fill_(0.7)
    inputs = torch.tensor([0.3, -0.5, 0.8, 0.1], dtype=torch.float64)
    states, h = [], torch.tensor(0.0, dtype=torch.float64)
    for x in inputs:
        h = torch.tanh(x + 0.7 * h)
        states.append(h)
    expected, factor = [], torch.tensor(3.0, dtype=torch.float64)
    for h in reversed(states):
        expected.insert(0, factor)
        factor = factor * 0.7 * (1 - h * h)
    found = loss_gradients(layer, lambda: 3 * layer(inputs.view(4, 1, 1))[0][-1].sum())
    assert list(found) == ["cells.0.0"]
    torch.testing.assert_close(found["cells.0.0"], torch.stack(expected))


def test_both_directions_and_one_state():
    torch.manual_seed(0)
    layer = Recurrent("lstm", 3, 4, 2, bidirectional=True, recompute_every=2)
    inputs = torch.randn(5, 2, 3)

    def loss():
        return layer(inputs, lengths=torch.tensor([5, 3]))[0].square().sum()

    found, cells = loss_gradients(layer, loss), loss_gradients(layer, loss, "c")
    assert set(found) == {f"cells.{k}.{d}" for k in (0, 1) for d in (0, 1)}
    hidden = loss_gradients(layer, loss, "h")
    for name, norms in found.items():
        assert norms.shape == (5,)
        assert (norms > 0).all()
        torch.testing.assert_close(norms.square(), hidden[name].square() + cells[name].square())
    assert (layer.backend, layer.recompute_every) == ("auto", 2)
    assert not any(cell._forward_hooks for cell in layer.modules())


@pytest.mark.parametrize(
    ("model", "of", "expected"),
    [
        (torch.nn.Linear(2, 2), None, "runs no cell"),
        (Recurrent("gru", 2, 2), "c", "choose from h"),
        (Recurrent(torch.nn.GRUCell, 2, 2), None, "no Cell"),
    ],
)
def test_mistakes(model, of, expected):
    def loss():
        made = model(torch.ones(3, 1, 2))
        return (made if isinstance(made, torch.Tensor) else made[0]).sum()

    with pytest.raises(ConfigurationError, match=expected):
        loss_gradients(model, loss, of)


def test_a_cell_with_an_output_of_its_own():
    torch.manual_seed(0)
    cell = WholeState(find_cell("gru")(2, 3))
    inputs = torch.randn(4, 1, 2)
    found = loss_gradients(cell, lambda: unroll(cell, inputs, backend="eager")[0][-1].sum())
    assert found[""].shape == (4,)
    assert found[""][-1].item() == pytest.approx(3**0.5)  # the sum's gradient is one for each of three units
    assert "step" not in vars(cell)


def test_the_last_steps_keep_their_numbers():
    norms = {"long": torch.arange(1.0, 7.0), "short": torch.tensor([0.0, 5.0])}
    _, rows = loss_table(norms, 4)
    assert rows == [["long", "6", 3.0, 5.0, 6.0], ["short", "2", 0.0, 5.0, 5.0]]
    lines = draw_loss_gradients(norms, 4, "title").axes[0].lines
    assert [list(line.get_xdata()) for line in lines] == [[3, 4, 5, 6], [1, 2]]
