"""Modules that know nothing of this package: what they may do, and what is refused with its reason."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import nn

from unrolled.errors import FallbackWarning
from unrolled.unroll import fallback, unroll


class Does(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.plain = function, torch.ones(5)
        self.w, self.u = nn.Parameter(torch.randn(5, 5) / 3), nn.Parameter(torch.randn(5, 5) / 3)

    def forward(self, x, h):
        return self.function(self, x, h)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda s, x, h: torch.tanh(x.roll(1, 0) @ s.w + h @ s.u), "mixes the sequences"),
        (lambda s, x, h: torch.tanh((x - x.amax(0)) @ s.w + h @ s.u), "mixes the sequences|no C form"),
        (lambda s, x, h: torch.tanh(x @ s.w + h.detach() @ s.u), "out of autograd"),
        (lambda s, x, h: torch.tanh(x @ s.w + h @ s.u * (1.0 / h.size(0))), "size of the batch"),
        (lambda s, x, h: torch.tanh(x @ s.w / len(x) + h @ s.u), "size of the batch"),
        (lambda s, x, h: torch.tanh(x @ s.w + h @ s.u) * s.plain, "neither a parameter nor a buffer"),
        (lambda s, x, h: torch.tanh(x @ s.w + h @ s.u).cumprod(1), "cumulative product"),
    ],
)
def test_what_would_be_wrong_over_all_steps_at_once_runs_step_by_step(function, reason, monkeypatch):
    monkeypatch.setattr(fallback, "_said", set())
    torch.manual_seed(3)
    cell, x, h = Does(function), torch.randn(4, 3, 5), torch.randn(3, 5)
    expected = unroll(cell, x, h, backend="eager")[0]
    with pytest.warns(FallbackWarning, match=reason):
        made = unroll(cell, x, h)[0]
    torch.testing.assert_close(made, expected)
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), list(cell.parameters())) for y in (made, expected)))


def test_an_output_that_is_no_function_of_the_state():
    cell, x, h = Does(lambda s, x, h: (x, torch.tanh(x @ s.w + h @ s.u))), torch.randn(4, 3, 5), torch.zeros(3, 5)
    torch.testing.assert_close(unroll(cell, x, h), unroll(cell, x, h, backend="eager"))


class Tied(nn.Module):
    def __init__(self, tied):
        super().__init__()
        self.a = nn.Parameter(torch.randn(5, 5) / 4)
        self.b = self.a if tied else nn.Parameter(torch.randn(5, 5) / 4)

    def forward(self, x, h):
        return torch.tanh(x @ self.a + h @ self.b)

    def step(self, *_):
        raise AssertionError("a method of this name means nothing")


def test_cells_alike_but_for_a_shared_weight_have_plans_of_their_own():
    x, h = torch.randn(4, 2, 5), torch.zeros(2, 5)
    for tied in (True, False, True):
        cell = Tied(tied)
        made = [unroll(cell, x, h, backend=backend)[0] for backend in ("eager", "planned")]
        torch.testing.assert_close(*made)
        found = [torch.autograd.grad(outputs.sum(), list(cell.parameters())) for outputs in made]
        torch.testing.assert_close(*found)


WRITTEN = {
    "triangle": lambda s, x, h: torch.tanh(x @ s.w + h @ s.u.triu()),
    "diagonal": lambda s, x, h: torch.tanh(x @ s.w + h @ torch.diag(s.u[0])),
    "orthogonal": lambda s, x, h: torch.tanh(x @ s.w + h @ torch.matrix_exp(s.u - s.u.T)),
    "cayley": lambda s, x, h: torch.relu(x @ s.w + h @ torch.linalg.solve(torch.eye(5, dtype=h.dtype) + s.u, s.w)),
    "spectral": lambda s, x, h: torch.tanh(x @ s.w + h @ (s.u / torch.linalg.matrix_norm(s.u, 2))),
    "rows": lambda s, x, h: torch.tanh(x @ s.w + h @ (s.u / s.u.norm(dim=0))),
    "einsum": lambda s, x, h: torch.tanh(torch.einsum("bi,ij->bj", x, s.w) + torch.einsum("ji,bi->bj", s.u, h)),
    "cumulative": lambda s, x, h: (x @ s.w).softmax(-1).cumsum(-1) * h + torch.tanh(h @ s.u),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_ways_to_write_it(name):
    torch.manual_seed(3)
    cell = Does(WRITTEN[name]).double()
    x = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    h = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    made = [unroll(cell, x, h, backend=backend)[0] for backend in ("native", "eager")]
    torch.testing.assert_close(*made, rtol=1e-11, atol=1e-12)
    found = [torch.autograd.grad(y.square().sum(), [*cell.parameters(), x, h]) for y in made]
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_what_no_state_depends_on_has_no_gradient():
    cell, x, h = Does(lambda s, x, h: torch.tanh(h @ s.u)), torch.randn(4, 3, 5, requires_grad=True), torch.zeros(3, 5)
    unroll(cell, x, h, backend="native")[0].sum().backward()
    assert cell.w.grad is None
    assert x.grad is None
    assert cell.u.grad is not None


def test_first_used_by_many_threads_at_once():
    """Each thread has a cell of its own, two of them of one kind, and all trace and compile at the same moment."""
    torch.manual_seed(4)
    kinds = [WRITTEN["rows"], WRITTEN["rows"], lambda s, x, h: torch.sin(x @ s.w + h @ s.u), nn.GRUCell]
    cells = [nn.GRUCell(5, 5) if kind is nn.GRUCell else Does(kind) for kind in kinds]
    x, h, start = torch.randn(4, 3, 5), torch.randn(3, 5), Barrier(len(cells))

    def run(cell):
        start.wait(timeout=60)
        outputs, _ = unroll(cell, x, h, backend="native")
        return outputs, torch.autograd.grad(outputs.sum(), list(cell.parameters()))

    with ThreadPoolExecutor(len(cells)) as pool:
        found = list(pool.map(run, cells))
    for cell, (outputs, gradients) in zip(cells, found, strict=True):
        expected, _ = unroll(cell, x, h, backend="eager")
        torch.testing.assert_close(outputs, expected)
        torch.testing.assert_close(gradients, torch.autograd.grad(expected.sum(), list(cell.parameters())))


class Reads(nn.Module):
    """A cell of the user: its output is none of its states, and without a state it makes one of its own."""

    def __init__(self):
        super().__init__()
        self.mix, self.read = nn.Linear(4 + 5, 5), nn.Linear(5, 3)
        self.start = nn.Parameter(torch.ones(5))

    def forward(self, x, state=None):
        h = self.start.expand(x.size(0), -1) if state is None else state
        new = torch.tanh(self.mix(torch.cat([x, h], -1)))
        return self.read(new * h), new


@pytest.mark.parametrize("make_cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell, lambda *_: Reads()])
@pytest.mark.parametrize("backend", ["planned", "native"])
@pytest.mark.parametrize(
    ("start", "options"),
    [
        (True, {"lengths": [3, 6, 1]}),
        (False, {"reverse": True}),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in [(True, {}), (True, {"reverse": True}), (False, {}), (False, {"lengths": [3, 6, 1]})]
        ),
    ],
)
def test_other_peoples_cells(make_cell, backend, start, options):
    cell = make_cell(4, 5).double()
    x = torch.randn(6, 3, 4, dtype=torch.float64, requires_grad=True)
    state = None
    if start:
        count = 2 if isinstance(cell, nn.LSTMCell) else 1
        parts = tuple(torch.randn(3, 5, dtype=torch.float64) for _ in range(count))
        state = parts if count == 2 else parts[0]
    found = []
    for kind in ("eager", backend):
        outputs, final = unroll(cell, x, state, backend=kind, **options)
        loss = (outputs**2).sum() + sum((part**2).sum() for part in final)
        leaves = [x, *cell.parameters()]
        found.append([outputs, *final, *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)])
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


def test_a_layer_of_torch_cells_agrees_with_torch():
    cell, layer = nn.LSTMCell(4, 5), nn.LSTM(4, 5)
    layer.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    x = torch.randn(6, 3, 4)
    outputs, (h, c) = unroll(cell, x)
    expected, (eh, ec) = layer(x)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(h, eh[0])
    torch.testing.assert_close(c, ec[0])
