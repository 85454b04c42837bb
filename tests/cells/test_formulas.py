"""Each cell against its formula, written out gate by gate in NumPy, apart from the package."""

import numpy as np
import pytest
import torch

from unrolled.cells import CELLS, find_cell
from unrolled.errors import ConfigurationError

B, H = 3, 5


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def norm(a, gain, shift=0.0):
    return (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5) * gain + shift


def elman(p, x, h):
    return (np.tanh(x @ p["weight_ih"].T + h @ p["weight_hh"].T + p["bias"]),)


def relu(p, x, h):
    return (np.maximum(x @ p["weight_ih"].T + h @ p["weight_hh"].T + p["bias"], 0),)


def pascanu(p, x, _, h):
    new = np.tanh(h) @ p["weight_hh"].T + x @ p["weight_ih"].T + p["bias"]
    return np.tanh(new), new


def rows(p, name, k):
    return p[name][k * H : (k + 1) * H]


def affine(p, x, h, k):
    return x @ rows(p, "weight_ih", k).T + h @ rows(p, "weight_hh", k).T + rows(p, "bias", k)


def lstm(p, x, h, c):
    i, f, o = (sigmoid(affine(p, x, h, k)) for k in (0, 1, 3))
    c = f * c + i * np.tanh(affine(p, x, h, 2))
    return o * np.tanh(c), c


def peephole(p, x, h, c, see=lambda c, w: c * w):
    i = sigmoid(affine(p, x, h, 0) + see(c, p["weight_ci"]))
    f = sigmoid(affine(p, x, h, 1) + see(c, p["weight_cf"]))
    c = f * c + i * np.tanh(affine(p, x, h, 2))
    o = sigmoid(affine(p, x, h, 3) + see(c, p["weight_co"]))
    return o * np.tanh(c), c


def peephole_full(p, x, h, c):
    return peephole(p, x, h, c, see=lambda c, w: c @ w.T)


def coupled(p, x, h, c):
    f, o = sigmoid(affine(p, x, h, 0)), sigmoid(affine(p, x, h, 2))
    c = f * c + (1 - f) * np.tanh(affine(p, x, h, 1))
    return o * np.tanh(c), c


def ln_lstm(p, x, h, c):
    both = norm(x @ p["weight_ih"].T, p["gain_ih"]) + norm(h @ p["weight_hh"].T, p["gain_hh"]) + p["bias"]
    i, f, g, o = np.split(both, 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(norm(c, p["gain_c"], p["bias_c"])), c


def gru(p, x, h, keep=True):
    r, z = (sigmoid(affine(p, x, h, k)) for k in (0, 1))
    n = np.tanh(x @ rows(p, "weight_ih", 2).T + (r * h) @ p["weight_hn"].T + rows(p, "bias", 2))
    return (z * h + (1 - z) * n,) if keep else ((1 - z) * h + z * n,)


def gru_swapped(p, x, h):
    return gru(p, x, h, keep=False)


def gru_after(p, x, h):
    r, z = (sigmoid(affine(p, x, h, k)) for k in (0, 1))
    from_h = h @ rows(p, "weight_hh", 2).T + p["bias_hn"]
    n = np.tanh(x @ rows(p, "weight_ih", 2).T + rows(p, "bias", 2) + r * from_h)
    return (z * h + (1 - z) * n,)


def ln_gru(p, x, h):
    two = slice(0, 2 * H)
    rest = slice(2 * H, None)
    gates = norm(x @ p["weight_ih"][two].T, p["gain_ih"][two]) + norm(h @ p["weight_hh"][two].T, p["gain_hh"][two])
    r, z = np.split(sigmoid(gates + p["bias"][two]), 2, -1)
    from_x = norm(x @ p["weight_ih"][rest].T, p["gain_ih"][rest]) + p["bias"][rest]
    from_h = norm(h @ p["weight_hh"][rest].T, p["gain_hh"][rest]) + p["bias_hn"]
    return (z * h + (1 - z) * np.tanh(from_x + r * from_h),)


def mut1(p, x, h):
    z = sigmoid(x @ p["weight_xz"].T + p["bias_z"])
    r = sigmoid(x @ p["weight_xr"].T + h @ p["weight_hr"].T + p["bias_r"])
    return (np.tanh((r * h) @ p["weight_hh"].T + np.tanh(x) + p["bias_h"]) * z + h * (1 - z),)


def mut2(p, x, h):
    z = sigmoid(x @ p["weight_xz"].T + h @ p["weight_hz"].T + p["bias_z"])
    r = sigmoid(x + h @ p["weight_hr"].T + p["bias_r"])
    return (np.tanh((r * h) @ p["weight_hh"].T + x @ p["weight_xh"].T + p["bias_h"]) * z + h * (1 - z),)


def mut3(p, x, h):
    z = sigmoid(x @ p["weight_xz"].T + np.tanh(h) @ p["weight_hz"].T + p["bias_z"])
    r = sigmoid(x @ p["weight_xr"].T + h @ p["weight_hr"].T + p["bias_r"])
    return (np.tanh((r * h) @ p["weight_hh"].T + x @ p["weight_xh"].T + p["bias_h"]) * z + h * (1 - z),)


FORMULAS = {
    "elman": elman,
    "relu": relu,
    "pascanu": pascanu,
    "lstm": lstm,
    "peephole": peephole,
    "peephole-full": peephole_full,
    "coupled": coupled,
    "ln-lstm": ln_lstm,
    "gru": gru,
    "gru-swapped": gru_swapped,
    "gru-after": gru_after,
    "ln-gru": ln_gru,
    "mut1": mut1,
    "mut2": mut2,
    "mut3": mut3,
}


def make(name, dtype=torch.float64):
    size = H if name in ("mut1", "mut2") else 4
    cell = CELLS[name](size, H, dtype=dtype)
    with torch.no_grad():  # gains away from one, so that a misplaced one is seen
        for parameter in cell.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return cell


def test_every_name_has_a_formula_here():
    assert set(FORMULAS) == set(CELLS)


@pytest.mark.parametrize("name", CELLS)
def test_step_is_the_formula(name):
    cell = make(name)
    x = torch.randn(B, cell.input_size, dtype=torch.float64)
    state = tuple(torch.randn(B, H, dtype=torch.float64) for _ in cell.state_names)
    parameters = {key: value.detach().numpy() for key, value in cell.named_parameters()}
    expected = FORMULAS[name](parameters, x.numpy(), *(part.numpy() for part in state))
    for got, want in zip(cell(x, state), expected, strict=True):
        np.testing.assert_allclose(got.detach().numpy(), want, rtol=1e-12, atol=1e-12)


def test_projected_lstm_is_the_formula():
    from unrolled.cells import LSTMCell

    cell = LSTMCell(4, H, proj_size=2, dtype=torch.float64)
    x, h, c = torch.randn(B, 4).double(), torch.randn(B, 2).double(), torch.randn(B, H).double()
    p = {key: value.detach().numpy() for key, value in cell.named_parameters()}
    long, new_c = lstm(p, x.numpy(), h.numpy(), c.numpy())
    got_h, got_c = cell(x, (h, c))
    np.testing.assert_allclose(got_h.detach().numpy(), long @ p["weight_hr"].T, rtol=1e-12)
    np.testing.assert_allclose(got_c.detach().numpy(), new_c, rtol=1e-12)
    assert [part.shape[1] for part in cell.initial_state(B, like=x)] == [2, H]


@pytest.mark.parametrize("name", CELLS)
def test_without_bias_there_is_none(name):
    cell = CELLS[name](H, H, bias=False)
    assert not [key for key, _ in cell.named_parameters() if key.startswith("bias")]
    state = cell.initial_state(B, like=torch.zeros(1))
    assert all(part.isfinite().all() for part in cell(torch.randn(B, H), state))


@pytest.mark.parametrize(("name", "part"), [("lstm", 1), ("peephole", 1), ("ln-lstm", 1), ("coupled", 0)])
def test_forget_bias_fills_the_forget_gate_alone(name, part):
    cell = CELLS[name](4, H, forget_bias=2.5)
    gates = cell.bias.detach().split(H)
    assert (gates[part] == 2.5).all()
    assert all((gate != 2.5).all() for k, gate in enumerate(gates) if k != part)
    cell.reset_parameters()
    assert (cell.bias.detach().split(H)[part] == 2.5).all()


def test_forget_bias_needs_a_bias():
    with pytest.raises(ConfigurationError, match="bias=True"):
        CELLS["lstm"](4, H, bias=False, forget_bias=1.0)


@pytest.mark.parametrize("name", ["mut1", "mut2"])
def test_cells_that_add_their_input_say_the_remedy(name):
    with pytest.raises(ConfigurationError, match="input_projection=True"):
        CELLS[name](4, H)


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(ConfigurationError, match=r"did you mean 'peephole'.*mut3"):
        find_cell("peepholes")


@pytest.mark.parametrize(("kwargs", "error"), [({"hidden_size": 0}, ConfigurationError), ({"gates": 3}, TypeError)])
def test_bad_construction(kwargs, error):
    with pytest.raises(error):
        CELLS["gru"](**{"input_size": 4, "hidden_size": 5, **kwargs})


def test_cells_take_device_and_dtype():
    cell = CELLS["mut3"](4, H, dtype=torch.float64, device="meta")
    assert all(p.is_meta and p.dtype == torch.float64 for p in cell.parameters())


def test_bound_cells_leave_their_original_alone():
    cell = make("elman")
    x, state = torch.randn(B, 4).double(), cell.initial_state(B, like=torch.zeros(1).double())
    before = cell(x, state)[0]
    bound = cell.bind(bias=torch.ones(H).double())
    assert not torch.equal(bound(x, state)[0], before)
    assert torch.equal(cell(x, state)[0], before)
