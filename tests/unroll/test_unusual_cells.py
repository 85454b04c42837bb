"""Cells that do more than compute their new state, or hold what cannot be copied: run as the loop runs them."""

import gc
import random
import re
import threading
import warnings
from collections import OrderedDict, namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.unroll.plain_loop import H, Two, X, agree, loop, said
from unrolled.cache import cache_directory
from unrolled.cells import Cell
from unrolled.errors import ConfigurationError, FallbackWarning, ShapeError
from unrolled.layers import Recurrent
from unrolled.unroll import fallback, known, planned, unroll


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    monkeypatch.setattr(fallback, "_said", set())


def test_hooks_added_after_the_first_call_are_called():
    cell, calls = Two(Two.mixed), []
    agree(cell)
    handle = cell.i.register_forward_hook(lambda module, given, made: 2 * made)
    agree(cell)
    handle.remove()
    agree(cell)
    cell.i.register_full_backward_hook(lambda module, given, made: calls.append(1))
    unroll(cell, X.clone().requires_grad_(), H)[0].sum().backward()
    assert len(calls) == len(X)


def test_a_hook_on_all_modules_is_called():
    cell, calls = Two(Two.mixed), []
    agree(cell)
    handle = nn.modules.module.register_module_forward_hook(lambda module, given, made: calls.append(module))
    try:
        unroll(cell, X, H)
    finally:
        handle.remove()
    assert calls.count(cell.i) == len(X)


def test_a_hook_on_a_cell_that_pytorch_has_a_kernel_for():
    layer = Recurrent("lstm", 4, 5, backend="auto")
    before = layer(X)[0]
    layer.cells[0][0].register_forward_hook(lambda module, given, made: (made[0] * 0, made[1]))
    after = layer(X)[0]
    assert before.abs().sum() > 0
    assert after.abs().sum() == 0


def _counts(s, x, h):
    s.steps = getattr(s, "steps", 0) + 1
    return s.mixed(x, h) * (0.5 if s.steps > 4 else 1.0)


def _draws(s, x, h):
    return s.mixed(x, h) if random.random() < 0.5 else h


def test_a_counter_counts_every_step_and_is_not_moved_by_planning():
    cell = Two(_counts)
    found = unroll(cell, X, H)[0]
    assert cell.steps == len(X)
    cell.steps = 0
    torch.testing.assert_close(found, loop(cell)[0])


def test_random_numbers_are_drawn_at_every_step_and_by_nothing_else():
    cell = Two(_draws)
    random.seed(3)
    found = unroll(cell, X, H)[0]
    random.seed(3)
    torch.testing.assert_close(found, loop(cell)[0])


def test_what_a_step_leaves_on_its_module_has_a_gradient():
    def leaves(s, x, h):
        s.penalty = s.mixed(x, h).square().mean()
        return s.mixed(x, h)

    cell = Two(leaves)
    unroll(cell, X, H)
    left = cell.penalty
    loop(cell)
    torch.testing.assert_close(left, cell.penalty)
    assert left.requires_grad


def test_a_tensor_kept_on_the_module_does_not_fill_the_table_of_plans():
    def keeps(s, x, h):
        s.last = s.mixed(x, h)
        return s.last

    cell = Two(keeps)
    cell(X[0], H)
    before = len(planned._planned)
    for _ in range(5):
        agree(cell)
    assert len(planned._planned) == before


@pytest.mark.parametrize("state", [H, {"h": H}, [H], OrderedDict(h=H), namedtuple("State", "h")(H)])
def test_states_come_back_in_the_form_that_they_were_given_in(state):
    class Takes(Two):
        def forward(self, x, state):
            kind = type(state)
            if kind is torch.Tensor:
                return self.mixed(x, state)
            h = self.mixed(x, next(iter(state.values())) if issubclass(kind, dict) else state[0])
            return h, (kind(h=h) if issubclass(kind, dict) else [h] if kind is list else kind(h))

    cell = Takes()
    for options in ({}, {"lengths": [6, 2, 0]}, {"reverse": True}):
        made, final = unroll(cell, X, state, **options)
        expected, wanted = unroll(cell, X, state, backend="eager", **options)
        torch.testing.assert_close(made, expected)
        assert type(final) is type(wanted) is (tuple if state is H else type(state))


def test_nested_states():
    class Deep(Two):
        def forward(self, x, state):
            (a, b), c = state["pair"], state["one"]
            a = self.mixed(x, a)
            return a + c, {"one": b, "pair": (a, c)}

    state = {"pair": (H, H + 1), "one": H + 2}
    _, final = unroll(Deep(), X, state)
    assert list(final) == ["pair", "one"]
    assert type(final["pair"]) is tuple
    torch.manual_seed(0)
    cell = Deep()
    torch.testing.assert_close(unroll(cell, X, state), unroll(cell, X, state, backend="eager"))


PASSED = {
    "the input": lambda s, x, h: (2 * s.mixed(x, h[0]), (s.mixed(x, h[0]), x)),
    "an old state": lambda s, x, h: (2 * s.mixed(x, h[0]), (s.mixed(x, h[0]), h[1])),
    "swapped": lambda s, x, h: (h[0] + 1, (h[1], h[0])),
    "twice": lambda s, x, h: (lambda new: (2 * new, (new, new)))(s.mixed(x, h[0])),
    "an output that is an old state": lambda s, x, h: (h[1], (s.mixed(x, h[0]), h[0])),
    "an output that is the input": lambda s, x, h: (x, (s.mixed(x, h[0]), h[1])),
}


@pytest.mark.parametrize("name", PASSED)
@pytest.mark.parametrize("options", [{}, {"lengths": [6, 0, 2], "reverse": True}])
def test_states_that_are_passed_on_as_they_are(name, options):
    cell = Two(PASSED[name]).double()
    cell.i = nn.Linear(5, 5).double()
    x = torch.randn(6, 3, 5, dtype=torch.float64, requires_grad=True)
    h = tuple(torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    found = []
    for backend in ("native", "eager"):
        outputs, final = unroll(cell, x, h, backend=backend, **options)
        loss = (outputs**2).sum() + sum((part**3).sum() for part in final)
        leaves = [x, *h, *cell.parameters()]
        found.append([outputs, *final, *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


HELD = {
    "a lock": lambda cell: setattr(cell, "held", threading.Lock()),
    "a generator": lambda cell: setattr(cell, "held", (n for n in range(3))),
    "an open file": lambda cell: setattr(cell, "held", open(__file__, encoding="utf-8")),  # noqa: SIM115
    "a tensor that has a history": lambda cell: setattr(cell, "held", cell.i.weight * 2),
    "an object that has one of these": lambda cell: setattr(cell, "held", SimpleNamespace(lock=threading.Lock())),
    "PyTorch's weight normalisation": lambda cell: setattr(cell, "h", nn.utils.weight_norm(cell.h)),
    "a sparse buffer": lambda cell: cell.register_buffer("held", torch.eye(5).to_sparse()),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", HELD)
def test_cells_that_hold_what_cannot_be_copied(name):
    cell = Two(Two.mixed)
    HELD[name](cell)
    agree(cell)
    held = getattr(cell, "held", None)
    if hasattr(held, "close"):
        held.close()


def test_a_failed_plan_is_not_made_again(monkeypatch):
    tried = []
    make = planned._make
    monkeypatch.setattr(planned, "_make", lambda *given: tried.append(given) or make(*given))

    def attends(s, x, h):
        return s.mixed(x, torch.softmax(h @ s.h.weight.T.cumprod(0), -1) @ s.h.weight.cumprod(1))

    def prints(s, x, h):
        print(end="")
        return s.mixed(x, h)

    for cell in (Two(attends), Two(prints), Two(lambda s, x, h: s.mixed(x, h.sort(-1)[0]))):
        for _ in range(3):
            agree(cell)
            unroll(cell, X, H)[0].sum().backward()
    kinds = {id(given[0].module.function) for given in tried}
    assert len(tried) == len(kinds) == 3


def test_a_float_that_is_annealed_needs_two_plans_and_is_right_at_every_value():
    cell = Two(lambda s, x, h: s.t * s.mixed(x, h) + (1 - s.t) * h)
    before = len(planned._planned)
    for k in range(50):
        cell.t = 1 - k / 50
        agree(cell)
    assert len(planned._planned) - before <= 2
    cell.t = 0.123
    made = unroll(cell, X, H)[0]
    found = torch.autograd.grad(made.sum(), list(cell.parameters()))
    torch.testing.assert_close(found, torch.autograd.grad(loop(cell)[0].sum(), list(cell.parameters())))


def test_a_float_that_decides_something_is_right_at_every_value():
    cell = Two(lambda s, x, h: s.mixed(x, h) if s.t > 0.5 else 0.5 * h)
    for t in (0.9, 0.8, 0.4, 0.3, 0.7):
        cell.t = t
        agree(cell)


def test_a_setting_that_always_changes_ends_in_the_loop(monkeypatch):
    monkeypatch.setattr(known, "MOST_SETTINGS", 3)
    cell = Two(lambda s, x, h: s.mixed(x, h) * s.k)
    for k in range(3):
        cell.k = k
        agree(cell)
    cell.k = 3
    assert "3 different values" in said(cell)
    for k in range(4, 7):
        cell.k = k
        agree(cell)


def test_plans_are_bounded_in_number(monkeypatch):
    monkeypatch.setattr(known, "MOST_PLANS", 3)
    for size in range(1, 7):
        cell = nn.GRUCell(2, size)
        unroll(cell, torch.zeros(2, 1, 2), torch.zeros(1, size), backend="planned")
        assert len(planned._planned) <= 3


class Bare(Cell):
    """A slip of the hand: a tensor where a tuple is wanted."""

    def __init__(self, input_size, hidden_size, **options):
        super().__init__(input_size, hidden_size)
        self.add_parameters(options, w=(hidden_size, input_size), u=(hidden_size, hidden_size))

    def forward(self, x, state):
        (h,) = state
        return torch.tanh(x @ self.w.T + h @ self.u.T)


class BareOfTwo(Bare):
    state_names = ("h", "c")

    def forward(self, x, state):
        return torch.tanh(x @ self.w.T + state[0] @ self.u.T)


def test_a_cell_that_returns_a_bare_tensor_has_one_state():
    layer = Recurrent(Bare, 4, 5, num_layers=2, bidirectional=True, zoneout=0.2)
    layer.eval()
    eager = Recurrent(Bare, 4, 5, num_layers=2, bidirectional=True, zoneout=0.2, backend="eager")
    eager.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(X), eager.eval()(X))


def test_a_cell_of_two_states_that_returns_one_is_told_what_is_wanted():
    with pytest.raises(ConfigurationError, match=r"BareOfTwo.forward must return its new state as a tuple \(h, c\)"):
        Recurrent(BareOfTwo, 4, 5)(X)


class Growing(Bare):
    """A slip of the hand: its state has another size after every step."""

    def forward(self, x, state):
        return (torch.cat([state[0], super().forward(x, (state[0][:, :5],))], -1),)


@pytest.mark.parametrize("lengths", [None, [2, 1]])
@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_a_cell_whose_state_changes_its_size(backend, lengths):
    said = r"Growing.forward must not change the size of its states: h was \[2, 5\] and became \[2, 10\]"
    with pytest.raises(ShapeError, match=said):
        unroll(Growing(4, 5), torch.ones(3, 2, 4), backend=backend, lengths=lengths)


def test_layers_of_other_peoples_cells():
    layer, plain = Recurrent(nn.LSTMCell, 4, 5), nn.LSTM(4, 5)
    names = {name: f"cells.0.0.module.{name}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    layer.load_state_dict({inner: plain.state_dict()[f"{name}_l0"] for name, inner in names.items()})
    for got, want in zip(layer(X)[1], plain(X)[1], strict=True):
        torch.testing.assert_close(got, want)
    torch.testing.assert_close(layer(X)[0], plain(X)[0])

    class Reads(nn.Module):
        def __init__(self, input_size, hidden_size):
            super().__init__()
            self.mix, self.read = nn.Linear(input_size + hidden_size, hidden_size), nn.Linear(hidden_size, 3)

        def forward(self, x, h):
            h = torch.tanh(self.mix(torch.cat([x, h], -1)))
            return self.read(h), h

    deep = Recurrent(Reads, 4, 5, num_layers=2)
    assert deep(X)[0].shape == (6, 3, 3)
    assert deep.cells[1][0].input_size == 3
    with pytest.raises(ConfigurationError, match="output is its first state"):
        Recurrent(Reads, 4, 5, zoneout=0.1)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Recurrent(nn.Linear, 4, 5), "Linear cannot be the cell of a layer"),
        (lambda: Recurrent(Bare(4, 5), 4, 5), "Recurrent takes a class"),
        (lambda: Recurrent(lambda *sizes: None, 4, 5), "a layer is made of cells"),
        (lambda: unroll(lambda x, h: h, X, H), "unroll takes a Cell or a torch.nn.Module, got a function"),
        (lambda: unroll(Bare, X), r"the class Bare: create an instance first: Bare\(input_size, hidden_size\)"),
    ],
)
def test_what_is_no_cell_is_told_what_is_wanted(make, reason):
    with pytest.raises(ConfigurationError, match=reason):
        make()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64])
def test_types_that_run_step_by_step_say_so_once(dtype):
    cell = Two(Two.mixed).to(dtype)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FallbackWarning)
        for _ in range(2):
            unroll(cell, X.to(dtype), H.to(dtype))
    (text,) = [str(each.message) for each in caught if each.category is FallbackWarning]
    assert str(dtype).removeprefix("torch.") in text


def _writes_a_part(s, x, h):
    new = s.i(x) + s.h(h)
    new[:, 1:3] = 0
    return new.tanh()


REASONS = {
    "branches on a value": lambda s, x, h: s.mixed(x, h) if h.sum() > 0 else 2 * s.mixed(x, h),
    "reads one as a number": lambda s, x, h: s.mixed(x, h) * h.max().item(),
    "writes into a slice of a tensor": _writes_a_part,
    r"makes a \[B, 5, 5\]": lambda s, x, h: s.mixed(x, torch.tanh(h[:, None] + s.h.weight).sum(-1)),
    r"makes a \[5, B\]": lambda s, x, h: torch.tanh(s.i(x) + (h @ h.t()) @ h),
    "mixes the batch with another axis": lambda s, x, h: s.mixed(
        x, (h.view(-1, 5, 1, 1) @ s.h.weight[:, :1, None])[..., 0, 0]
    ),
    "aten.sort.default, which has no C form": lambda s, x, h: s.mixed(x, h.sort(-1)[0]),
    "draws random numbers": lambda s, x, h: s.mixed(x, h) + torch.rand_like(h),
    "shape depends on values": lambda s, x, h: s.mixed(x, h) * (1 + h.nonzero().size(0)),
    r"calls print\(\)": lambda s, x, h: s.mixed(x, h) if print(end="") is None else h,
    "float16": lambda s, x, h: s.mixed(x, h).half().float(),
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_refusal_names_the_users_own_line(reason):
    text = said(Two(REASONS[reason]))
    assert re.search(reason, text), text
    assert re.search(r" at test_unusual_cells\.py:\d+ \(`", text), text
    assert "00000" not in text
    assert "\n" not in text


def test_the_changes_of_one_cell_refuse_no_other(monkeypatch):
    monkeypatch.setattr(known, "MOST_SETTINGS", 2)

    def powers(s, x, h):
        return s.mixed(x, h) ** s.k

    first, second = Two(powers), Two(powers)
    for k in range(1, 5):
        first.k = k
        agree(first)
    before, second.k = len(planned._planned), 7
    agree(second)
    assert len(planned._planned) == before + 1


def test_a_layer_leaves_the_buffers_of_a_module_as_they_are():
    class Counted(Two):
        def __init__(self, input_size, hidden_size):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x, h):
            self.calls += 1
            return self.mixed(x, h)

    assert Recurrent(Counted, 4, 5).cells[0][0].module.calls == 0


class Named(Two):
    def forward(self, x, state):
        return self.mixed(x, state["h"]), {"h": self.mixed(x, state["h"])}


def test_states_of_other_forms_under_autocast_and_recomputed():
    cell, state = Named(), {"h": H}
    expected, final = unroll(cell, X, state, backend="eager")
    for options in ({}, {"recompute_every": 2}):
        with torch.autocast("cpu", enabled=not options):
            made, last = unroll(cell, X, state, **options)
        torch.testing.assert_close(made, expected)
        torch.testing.assert_close(last, final)


def test_a_step_that_unrolls_another_cell():
    class Inner(Two):
        def forward(self, x, h):
            return unroll(self.inner, x.unsqueeze(0), h)[0][0]

    cell = Inner()
    cell.inner = nn.GRUCell(4, 5)
    agree(cell)


def test_a_warning_points_at_the_users_line():
    with pytest.warns(FallbackWarning) as caught:
        unroll(Two(lambda s, x, h: s.mixed(x, h.sort(-1)[0])), X, H)
    assert caught[0].filename == __file__


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what is loaded is read from /proc")
def test_the_library_of_a_plan_that_is_gone_is_closed():
    def loaded():
        cache = str(cache_directory())
        lines = Path("/proc/self/maps").read_text().splitlines()
        return {line.split()[4] for line in lines if cache in line}

    with torch.no_grad():
        unroll(nn.RNNCell(4, 5), X, H, backend="native")  # what all programs share stays
    planned._planned.clear()
    gc.collect()
    before = loaded()
    with torch.no_grad():  # a step whose code no plan that is still in use can have
        unroll(Two(lambda s, x, h: s.mixed(x, h) * 0.8125), X, H, backend="native")
    made = loaded() - before
    assert made
    planned._planned.clear()
    gc.collect()
    assert not made & loaded()


def test_a_plan_that_was_dropped_is_made_again_at_any_time(monkeypatch):
    monkeypatch.setattr(known, "MOST_SETTINGS", 3)
    cell = Two(Two.mixed)
    for _ in range(6):
        monkeypatch.setattr(planned, "_planned", known.Known())
        torch.testing.assert_close(unroll(cell, X, H, backend="planned")[0], unroll(cell, X, H, backend="eager")[0])
