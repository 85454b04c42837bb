"""The planned and the native backend against the eager one: every cell, every option, odd sizes; what they refuse."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unrolled.cells import CELLS, Cell
from unrolled.errors import ConfigurationError
from unrolled.layers import Recurrent
from unrolled.unroll import planned, unroll
from unrolled.unroll.plan import Plan
from unrolled.unroll.planned import find_plan


class Odd(Cell):
    """What a person might write: transposed weights, submodules, a learned scalar, a buffer, softmax, where, clamp."""

    def __init__(self, input_size, hidden_size, dtype=None):
        super().__init__(input_size, hidden_size)
        self.inner = nn.Linear(input_size + hidden_size, hidden_size, dtype=dtype)
        self.weight = nn.Parameter(torch.randn(hidden_size, hidden_size, dtype=dtype))
        self.scale = nn.Parameter(torch.tensor(0.7, dtype=dtype))
        self.register_buffer("shift", torch.linspace(-1, 1, hidden_size, dtype=dtype))

    def forward(self, x, state):
        (h,) = state
        mixed = torch.tanh(self.inner(torch.cat([x, h], -1)))
        attended = torch.softmax(h @ (self.weight - self.weight.T), -1) * self.scale
        new = torch.where(h > self.shift, mixed, attended) + 0.1 * h.mean(-1, keepdim=True)
        return (new.clamp(-2.0, 2.0),)


class Forgetful(Cell):
    """Its state does not depend on the one before."""

    def __init__(self, input_size, hidden_size, dtype=None):
        super().__init__(input_size, hidden_size)
        self.weight = nn.Parameter(torch.randn(input_size, hidden_size, dtype=dtype))

    def forward(self, x, state):
        return (torch.relu(x @ self.weight),)


class Series(Cell):
    """Products in series, with biases, and a view of one as the next one's operand."""

    def __init__(self, input_size, hidden_size, dtype=None):
        super().__init__(input_size, hidden_size)
        self.first = nn.Linear(input_size + hidden_size, 2 * hidden_size, dtype=dtype)
        self.second = nn.Linear(hidden_size, hidden_size, dtype=dtype)
        self.third = nn.Linear(hidden_size, 1, dtype=dtype)

    def forward(self, x, state):
        (h,) = state
        a, b = self.first(torch.cat([x, h], -1)).chunk(2, -1)
        second = self.second(a)
        gate = torch.sigmoid(self.third(second))
        return (gate * torch.tanh(second + b) + (1 - gate) * h / (1 + h.norm(dim=-1, keepdim=True)),)


class Strided(Cell):
    """Vectors that are columns of a matrix, a mask among the buffers, and a step that looks at one column of its input."""

    def __init__(self, input_size, hidden_size, dtype=None):
        super().__init__(input_size, hidden_size)
        self.weight = nn.Parameter(torch.randn(hidden_size, 3, dtype=dtype))
        self.inner = nn.Parameter(torch.randn(hidden_size, hidden_size, dtype=dtype))
        self.register_buffer("keep", torch.arange(hidden_size) % 2 == 0)

    def forward(self, x, state):
        (h,) = state
        moved = torch.tanh(x[:, -1:] * self.weight[:, 0] + h * self.weight[:, 2] + h @ self.inner)
        return (torch.where(self.keep, moved, torch.sin(h) * self.weight[:, 1]),)


OWN = {"odd": Odd, "forgetful": Forgetful, "series": Series, "strided": Strided}


def make(name, inputs, hidden, dtype):
    if name in OWN:
        return OWN[name](inputs, hidden, dtype=dtype)
    return CELLS[name](hidden if name in ("mut1", "mut2") else inputs, hidden, dtype=dtype)


def results(cell, x, state, backend, **options):
    leaves = [tensor for tensor in (x, *state, *cell.parameters()) if tensor.requires_grad]
    outputs, final = unroll(cell, x, state, backend=backend, **options)
    parts = (outputs, *final)
    loss = sum((part * torch.linspace(-1, 1, part.numel(), dtype=part.dtype).view_as(part)).sum() for part in parts)
    return [*parts, *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)]


def compare(name, backend, dtype, steps, batch, inputs, hidden, reverse, wants, lengths):
    """`wants`: whether the input and the first state want a gradient."""
    cell = make(name, inputs, hidden, dtype)
    x = torch.randn(steps, batch, cell.input_size, dtype=dtype, requires_grad=wants[0])
    state = [torch.randn(batch, size, dtype=dtype, requires_grad=wants[1]) for size in cell.state_sizes]
    eager, other = (results(cell, x, state, kind, lengths=lengths, reverse=reverse) for kind in ("eager", backend))
    # Layer normalisation over a single feature divides by √ε: errors there are a thousand times larger.
    relative, absolute = (1e-11, 1e-12) if dtype == torch.float64 else (1e-5, 1e-5)
    scale = 1e3 if hidden == 1 else 10 if "ln" in name else 1
    for got, want in zip(other, eager, strict=True):
        torch.testing.assert_close(
            got, want, rtol=relative * scale, atol=absolute * scale * (1 + float(want.detach().abs().max()))
        )


@given(
    name=st.sampled_from([*CELLS, *OWN]),
    steps=st.integers(1, 6),
    batch=st.sampled_from([1, 3]),
    inputs=st.sampled_from([1, 5]),
    hidden=st.sampled_from([1, 7, 17]),
    reverse=st.booleans(),
    wants=st.tuples(st.booleans(), st.booleans()),
    data=st.data(),
)
def test_planned_agrees_with_eager(name, steps, batch, inputs, hidden, reverse, wants, data):
    lengths = data.draw(st.none() | st.lists(st.integers(0, steps), min_size=batch, max_size=batch))
    compare(name, "planned", torch.float64, steps, batch, inputs, hidden, reverse, wants, lengths)


def _native(name, dtype, inputs, hidden, wants, ragged, calls, data):
    """What is compiled for one cell is called with several numbers of steps and sequences."""
    if "ln" in name and hidden == 1:
        # A single feature normalised is zero up to rounding, and the next norm divides that by the root of ε again.
        dtype = torch.float64
    for steps, batch, reverse in calls:
        lengths = data.draw(st.lists(st.integers(0, steps), min_size=batch, max_size=batch)) if ragged else None
        compare(name, "native", dtype, steps, batch, inputs, hidden, reverse, wants, lengths)


_calls = st.tuples(st.integers(1, 6), st.sampled_from([1, 3, 101]), st.booleans())
_native_cases = given(
    name=st.sampled_from([*CELLS, *OWN]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    inputs=st.sampled_from([1, 5]),
    hidden=st.sampled_from([1, 7, 17]),
    wants=st.tuples(st.booleans(), st.booleans()),
    ragged=st.booleans(),
    calls=st.lists(_calls, min_size=4, max_size=4),
    data=st.data(),
)
test_native_agrees_with_eager = settings(max_examples=8)(_native_cases(_native))
test_native_agrees_with_eager_often = pytest.mark.slow(settings(max_examples=150)(_native_cases(_native)))


@pytest.mark.parametrize("name", [*CELLS, *OWN])
def test_every_cell_in_native_code(name):
    compare(name, "native", torch.float32, 5, 4, 6, 19, False, (True, True), None)


@pytest.mark.parametrize("name", CELLS)
def test_nothing_is_summed_step_by_step(name):
    """Gradients of weights, biases, gains and peepholes are all left to one reduction over T·B rows."""
    plan = Plan(CELLS[name](6, 6), torch.float32, torch.device("cpu"))
    derivative = plan.derivative((True,) * (plan.prepared + plan.hoisted + plan.states))
    assert len(derivative.collected) == plan.prepared
    products = [node for node in plan.core.graph.nodes if node.op == "call_function" and "mm" in str(node.target)]
    in_series = {"gru", "gru-swapped", "mut1", "mut2", "mut3", "peephole-full"}
    assert len(products) == 1 or name in in_series


def test_without_gradients_the_core_alone_is_run():
    planned._planned.clear()
    cell, x = CELLS["gru"](4, 5), torch.randn(6, 2, 4)
    with torch.no_grad():
        torch.testing.assert_close(unroll(cell, x, backend="planned")[0], unroll(cell, x, backend="eager")[0])
    assert not find_plan(cell, torch.float32, torch.device("cpu"))[0].executor.plan._derivatives


def test_plans_are_shared_by_like_cells_only():
    device = torch.device("cpu")
    same = [find_plan(CELLS["gru"](4, 5), torch.float32, device)[0] for _ in range(2)]
    assert same[0] is same[1]
    others = [CELLS["gru"](4, 6), CELLS["gru-swapped"](4, 5), CELLS["gru"](4, 5, bias=False), CELLS["mut3"](4, 5)]
    assert len({id(find_plan(cell, torch.float32, device)[0]) for cell in others} | {id(same[0])}) == 5
    assert find_plan(CELLS["gru"](4, 5).double(), torch.float64, device)[0] is not same[0]


@pytest.mark.parametrize("name", ["lstm", "gru", "ln-lstm", "mut2"])
@pytest.mark.parametrize("threads", [1, 2])
def test_one_sequence_of_many_units_whose_threads_share_the_columns(name, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        compare(name, "native", torch.float64, 6, 1, 400, 400, False, (True, True), None)
    finally:
        torch.set_num_threads(before)


def test_in_layers_and_with_zoneout():
    torch.manual_seed(1)
    layer = Recurrent("coupled", 4, 6, num_layers=2, bidirectional=True, zoneout=0.3, backend="planned")
    x = torch.randn(5, 3, 4)
    outputs = []
    for backend in ("planned", "eager"):
        layer.backend = backend
        torch.manual_seed(2)
        outputs.append(layer(x, lengths=torch.tensor([5, 2, 3]))[0])
    torch.testing.assert_close(*outputs)


class Random(Forgetful):
    def forward(self, x, state):
        return (torch.nn.functional.dropout(x @ self.weight),)


class Branching(Forgetful):
    def forward(self, x, state):
        return (x @ self.weight,) if x.sum() > 0 else state


class InPlace(Forgetful):
    def forward(self, x, state):
        return (state[0].add_(x @ self.weight),)


@pytest.mark.parametrize(
    ("kind", "reason"), [(Random, "random"), (Branching, "branches on a value"), (InPlace, "in place")]
)
def test_what_cannot_be_planned_is_refused_by_name(kind, reason):
    with pytest.raises(ConfigurationError, match=rf"{kind.__name__}: it .*{reason}.*backend='eager'"):
        unroll(kind(4, 5), torch.randn(6, 2, 4), backend="planned")


@pytest.mark.parametrize("backend", ["planned", "native"])
@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_gradients_of_gradients(name, backend):
    cell = CELLS[name](3, 4, dtype=torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    state = [torch.randn(2, 4, dtype=torch.float64, requires_grad=True) for _ in cell.state_names]

    def run(x, *state):
        outputs, final = unroll(cell, x, state, backend=backend)
        return outputs, *final

    assert torch.autograd.gradcheck(run, (x, *state))
    assert torch.autograd.gradgradcheck(run, (x, *state))


def test_types_are_not_mixed():
    cell, x = CELLS["lstm"](4, 5), torch.randn(6, 2, 4)
    cell.register_buffer("scale", torch.ones(5, dtype=torch.float64))
    cell.forward = lambda x, state: (state[0] * cell.scale, state[1])
    with pytest.raises(ConfigurationError, match="backend='eager'"):
        unroll(cell, x, backend="native")


@pytest.mark.parametrize("name", ["lstm", "gru", "ln-lstm"])
@pytest.mark.parametrize("batch", [2, 5, 200])
def test_threads_share_the_rows_out(name, batch):
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        compare(name, "native", torch.float64, 9, batch, 33, 64, False, (True, True), None)
    finally:
        torch.set_num_threads(threads)
