"""`Recurrent`: any cell, stacked, both ways, with noise inside."""

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

import unrolled
from tests.forms import by_form
from unrolled.cells import CELLS, ElmanCell, PeepholeLSTMCell
from unrolled.errors import ConfigurationError, ShapeError
from unrolled.layers import Recurrent
from unrolled.layers.noise import RecurrentDropout, Zoneout
from unrolled.unroll import unroll

MANY = by_form()


@pytest.mark.parametrize("name", MANY)
@torch.no_grad()
def test_deep_is_layer_after_layer_and_both_ways_is_two_runs(name):
    layer = Recurrent(name, 4, 6, num_layers=2, bidirectional=True, input_projection=True)
    x = torch.randn(5, 3, 4)
    outputs, hx = layer(x)
    finals = []
    for k, (forward, backward) in enumerate(layer.cells):
        x = layer.projections[k](x)
        a, fa = unroll(forward, x, backend="eager")
        b, fb = unroll(backward, x, reverse=True, backend="eager")
        x = torch.cat([a, b], -1)
        finals += [fa, fb]
    torch.testing.assert_close(outputs, x)
    hx = hx if isinstance(hx, tuple) else (hx,)
    for state, part in enumerate(hx):
        torch.testing.assert_close(part, torch.stack([final[state] for final in finals]))


@pytest.mark.parametrize("name", ["lstm", "gru"])
@torch.no_grad()
def test_a_width_a_layer_and_its_state_carried_on(name):
    layer = Recurrent(name, 4, [7, 3])
    x = torch.randn(6, 2, 4)
    whole, last = layer(x)
    first, hx = layer(x[:4])
    second, _ = layer(x[4:], hx)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    assert whole.shape == (6, 2, 3)
    assert [tuple(p.shape) for p in (last[0] if name == "lstm" else last)] == [(2, 7), (2, 3)]


@pytest.mark.parametrize("bidirectional", [False, True])
@torch.no_grad()
def test_forms_of_input_agree(bidirectional):
    layer = Recurrent(PeepholeLSTMCell, 4, 5, num_layers=2, bidirectional=bidirectional)
    first = Recurrent(PeepholeLSTMCell, 4, 5, num_layers=2, bidirectional=bidirectional, batch_first=True)
    first.load_state_dict(layer.state_dict())
    rows = [torch.randn(n, 4) for n in (6, 3, 5)]
    packed, packed_hx = layer(pack_sequence(rows, enforce_sorted=False))
    padded, _ = pad_packed_sequence(packed)
    x = torch.nn.utils.rnn.pad_sequence(rows)
    by_lengths, hx = layer(x, lengths=torch.tensor([6, 3, 5]))
    by_batch, _ = first(x.transpose(0, 1), lengths=torch.tensor([6, 3, 5]))
    torch.testing.assert_close(by_lengths, padded)
    torch.testing.assert_close(by_batch.transpose(0, 1), padded)
    for a, b in zip(hx, packed_hx, strict=True):
        torch.testing.assert_close(a, b)
    alone, own = layer(rows[1])
    torch.testing.assert_close(alone, padded[:3, 1])
    torch.testing.assert_close(own[0], hx[0][:, 1])
    again, _ = layer(rows[1].unsqueeze(1), tuple(part.unsqueeze(1) for part in own))
    torch.testing.assert_close(layer(rows[1], own)[0], again.squeeze(1))


@torch.no_grad()
def test_recurrent_dropout_keeps_one_mask_for_the_sequence():
    cell = ElmanCell(4, 50)
    x = torch.randn(7, 2, 4)
    noisy = RecurrentDropout(cell, 0.5)
    fed = noisy.with_draws(x)
    mask = fed[0, :, 4:]
    assert set(mask.unique().tolist()) == {0.0, 2.0}
    outputs, _ = unroll(noisy, fed)
    h = torch.zeros(2, 50)
    for t in range(7):
        (h,) = cell(x[t], (h * mask,))
        torch.testing.assert_close(outputs[t], h)


@torch.no_grad()
def test_zoneout_keeps_units_in_training_and_mixes_outside_it():
    cell = CELLS["lstm"](4, 2000)
    x, state = torch.randn(1, 1, 4), tuple(torch.randn(1, 2000) for _ in range(2))
    noisy = Zoneout(cell.train(), (0.3, 0.7))
    _, after = unroll(noisy, noisy.with_draws(x), state)
    moved = cell(x[0], state)
    for rate, old, new, now in zip((0.3, 0.7), state, moved, after, strict=True):
        kept = now == old
        torch.testing.assert_close(now[~kept], new[~kept])
        assert abs(kept.float().mean().item() - rate) < 0.05
    calm = Zoneout(cell.eval(), (0.3, 0.7))
    _, mixed = unroll(calm, calm.with_draws(x), state)
    torch.testing.assert_close(mixed[0], 0.3 * state[0] + 0.7 * moved[0])


@pytest.mark.parametrize("make", [lambda **k: Recurrent("gru", 4, 6, **k), lambda **k: unrolled.GRU(4, 6, **k)])
@pytest.mark.parametrize("option", [{"recurrent_dropout": 0.5}, {"zoneout": 0.5}])
def test_noise_is_an_option_of_every_layer(make, option):
    layer, x = make(**option), torch.randn(5, 3, 4)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])
    layer(x)[0].sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


@pytest.mark.parametrize("name", MANY)
@torch.no_grad()
def test_recurrent_dropout_acts_on_every_cell(name):
    cell, x = CELLS[name](6, 6), torch.randn(4, 2, 6)
    noisy = RecurrentDropout(cell, 0.5)
    assert not torch.allclose(unroll(noisy, noisy.with_draws(x))[0], unroll(cell, x)[0])


def test_noise_around_a_cell_keeps_its_start_and_its_errors():
    class Started(ElmanCell):
        def initial_state(self, batch_size, *, like):
            return (like.new_full((batch_size, self.hidden_size), 9.0),)

    layer = Recurrent(Started, 4, 6, zoneout=0.999999)
    assert (layer(torch.randn(1, 3, 4))[0] == 9).float().mean() > 0.9
    noisy = Recurrent("lstm", 4, 6, zoneout=0.1, recurrent_dropout=0.1)
    with pytest.raises(ShapeError, match=r"h .*c "):
        noisy(torch.zeros(5, 3, 4), (torch.zeros(1, 2, 6), torch.zeros(1, 2, 6)))
    with pytest.raises(ShapeError, match=r"\[T, B, 4\]"):
        noisy(torch.zeros(5, 3, 7))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@torch.no_grad()
def test_layer_norm_inside_the_drop_ins(kind):
    layer = getattr(unrolled, kind)(4, 6, 2, layer_norm=True, bidirectional=True)
    name = {"LSTM": "ln-lstm", "GRU": "ln-gru"}[kind]
    cell = CELLS[name](4, 6)
    with torch.no_grad():
        for key, parameter in cell.named_parameters():
            if key.startswith("gain"):
                parameter.uniform_(0.5, 1.5)
                layer.get_parameter(f"{key}_l0").copy_(parameter)
            elif key.startswith("weight"):
                parameter.copy_(layer.get_parameter(f"{key}_l0"))
        bias = layer.bias_ih_l0 + layer.bias_hh_l0
        if kind == "GRU":
            bias = layer.bias_ih_l0 + torch.cat([layer.bias_hh_l0[:12], torch.zeros(6)])
            cell.bias_hn.copy_(layer.bias_hh_l0[12:])
        cell.bias.copy_(bias)
    x = torch.randn(5, 3, 4)
    one = getattr(unrolled, kind)(4, 6, layer_norm=True)
    one.load_state_dict({k: v for k, v in layer.state_dict().items() if k.endswith("_l0")})
    torch.testing.assert_close(one(x)[0], unroll(cell, x)[0])
    layer.reset_parameters()
    assert (layer.gain_ih_l1_reverse == 1).all()


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("mut1", 4, 6), {}, ConfigurationError),
        (("nosuch", 4, 6), {}, ConfigurationError),
        (("gru", 4, [6, 5]), {"num_layers": 3}, ConfigurationError),
        (("gru", 4, []), {}, ConfigurationError),
        (("gru", 4, 6), {"dropout": 1.0}, ConfigurationError),
        (("lstm", 4, 6), {"zoneout": (0.1, 0.2, 0.3)}, ConfigurationError),
        (("lstm", 4, 6), {"recurrent_dropout": -0.1}, ConfigurationError),
        (("lstm", 4, 6), {"colour": 1}, TypeError),
    ],
)
def test_bad_constructions(arguments, options, error):
    with pytest.raises(error):
        Recurrent(*arguments, **options)


def test_bad_states():
    layer = Recurrent("lstm", 4, 6, num_layers=2)
    x = torch.zeros(5, 3, 4)
    with pytest.raises(ShapeError, match="hx must hold"):
        layer(x, torch.zeros(2, 3, 6))[0]
    with pytest.raises(ShapeError):
        layer(x, (torch.zeros(2, 3, 6), torch.zeros(1, 3, 6)))
    with pytest.raises(ShapeError):
        layer(pack_sequence([x[:, 0]]), lengths=torch.tensor([5]))


def test_layer_norm_has_no_place_in_a_vanilla_layer():
    with pytest.raises(ConfigurationError):
        unrolled.RNN(4, 6, layer_norm=True)
    with pytest.raises(ConfigurationError):
        unrolled.LSTM(4, 6, layer_norm=True, proj_size=2)
