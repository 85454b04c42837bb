"""torch.export: the program computes the layer at any size, and in any process."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from unrolled import GRU, LSTM, RNN
from unrolled.cells import CELLS, Cell
from unrolled.errors import ConfigurationError, ShapeError, UntraceableError
from unrolled.layers import Recurrent
from unrolled.unroll import operator, unroll
from unrolled.unroll.versions import BEFORE_2_12, BEFORE_2_13

STEPS, BATCH = (torch.export.Dim(name, min=1, max=64) for name in ("steps", "batch"))

wants_2_13 = pytest.mark.skipif(BEFORE_2_13, reason="torch.export with strict=True wants PyTorch 2.13")


def export(layer, x, *, strict=False, lengths=None, hx=None):
    """A program for any number of steps and any batch."""
    time, rows = (1, 0) if layer.batch_first else (0, 1)
    shapes = {"input": {time: STEPS, rows: BATCH}}
    given = {}
    if hx is not None:
        given["hx"] = hx
        shapes["hx"] = {1: BATCH} if isinstance(hx, torch.Tensor) else ({1: BATCH},) * len(hx)
    if lengths is not None:
        given["lengths"], shapes["lengths"] = lengths, {0: BATCH}
    return torch.export.export(layer, (x,), given, dynamic_shapes=shapes, strict=strict)


def leaves(value):
    return torch.utils._pytree.tree_leaves(value)


def check(program, layer, x, *, gradients=True, **named):
    """Values and gradients are those of the eager loop, from the same seed."""
    x = x.requires_grad_(gradients)
    layer = copy.deepcopy(layer)
    layer.backend = "eager"
    module, own = program.module().requires_grad_(gradients), dict(layer.named_parameters())
    theirs = dict(module.named_parameters())
    torch.manual_seed(1)
    found = leaves(module(x, **named))
    torch.manual_seed(1)
    expected = leaves(layer(x, **named))
    torch.testing.assert_close(found, expected)
    if not gradients:
        return
    pairs = [(x, x), *((theirs[name], own[name]) for name in own)]
    of_found, of_expected = (
        torch.autograd.grad(sum(value.square().sum() for value in values), [pair[k] for pair in pairs])
        for k, values in enumerate((found, expected))
    )
    torch.testing.assert_close(of_found, of_expected, rtol=1e-4, atol=1e-5)


def targets(program):
    """Of the graph and of the graphs within it."""
    return {str(node.target) for part in program.graph_module.modules() for node in getattr(part, "graph", _NONE).nodes}


_NONE = torch.fx.Graph()

LAYERS = {
    "drop-in": (lambda: LSTM(4, 5, bidirectional=True, batch_first=True), True),
    "deep": (lambda: GRU(4, 5, num_layers=3, bidirectional=True), False),
    "normalised": (lambda: GRU(4, 5, layer_norm=True), False),
    "cell": (lambda: Recurrent("coupled", 4, [5, 6]), False),
    "projected": (lambda: Recurrent("mut1", 4, 5, input_projection=True, recompute_every=2), False),
    "zoneout": (lambda: Recurrent("gru", 4, 5, zoneout=0.3), False),
    "noise": (lambda: LSTM(4, 5, recurrent_dropout=0.3, zoneout=0.2), True),
}


FEW = {("drop-in", True), ("cell", False), ("zoneout", True), ("noise", False)}
KINDS = [
    pytest.param(name, with_lengths, marks=() if (name, with_lengths) in FEW else pytest.mark.slow)
    for name in LAYERS
    for with_lengths in (False, True)
]


@pytest.mark.parametrize(("name", "with_lengths"), KINDS)
def test_a_program_serves_any_steps_and_batch(name, with_lengths):
    make, with_state = LAYERS[name]
    layer = make()
    size = (4, 3) if not layer.batch_first else (3, 4)
    hx = None
    if with_state:
        hx = layer(torch.randn(*size, 4))[1]
        hx = tuple(torch.randn_like(part) for part in hx)
    lengths = torch.tensor([4, 0, 2]) if with_lengths else None
    program = export(layer, torch.randn(*size, 4), lengths=lengths, hx=hx)
    assert not any("unrolled" in target for target in targets(program))
    for steps, batch, gradients in ((7, 2, True), (1, 1, False)):
        x = torch.randn(batch, steps, 4) if layer.batch_first else torch.randn(steps, batch, 4)
        named = {"lengths": torch.tensor([steps, 0][:batch])} if with_lengths else {}
        if with_state:
            named["hx"] = tuple(torch.randn(len(part), batch, part.size(2)) for part in hx)
        check(program, layer, x, gradients=gradients, **named)


@wants_2_13
def test_strict():
    layer = RNN(4, 5)
    layer(torch.randn(4, 3, 4))
    program = export(layer, torch.randn(4, 3, 4), strict=True, lengths=torch.tensor([4, 0, 2]))
    check(program, layer, torch.randn(7, 2, 4), lengths=torch.tensor([3, 7]))


@wants_2_13
@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_strict_of_every_kind(name):
    layer = LAYERS[name][0]()
    size = (4, 3) if not layer.batch_first else (3, 4)
    program = export(layer, torch.randn(*size, 4), strict=True)
    x = torch.randn(2, 7, 4) if layer.batch_first else torch.randn(7, 2, 4)
    check(program, layer, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_every_cell(name):
    layer = Recurrent(name, 5, 5)
    check(export(layer, torch.randn(4, 3, 5)), layer, torch.randn(7, 2, 5))


@pytest.mark.parametrize("kind", [RNN, LSTM, GRU])
def test_where_steps_are_fixed_it_is_the_kernel_of_pytorch(kind):
    layer = kind(4, 5)
    program = torch.export.export(layer, (torch.randn(6, 3, 4),), dynamic_shapes={"input": {1: BATCH}})
    assert sum(f"aten.{name}" in target for target in targets(program) for name in ("rnn", "lstm", "gru")) == 1
    check(program, layer, torch.randn(6, 2, 4))


def test_dropout_between_layers_is_drawn_when_the_program_runs():
    layer = LSTM(4, 50, num_layers=2, dropout=0.5)
    x = torch.randn(4, 3, 4)
    module = torch.export.export(layer, (x,)).module()
    assert not torch.equal(module(x)[0], module(x)[0])
    layer.eval()
    torch.testing.assert_close(torch.export.export(layer, (x,)).module()(x)[0], layer(x)[0])


def test_padding_is_not_looked_at():
    layer = Recurrent("coupled", 4, 5)
    module = export(layer, torch.randn(4, 3, 4), lengths=torch.tensor([4, 0, 2])).module()
    x, lengths = torch.randn(7, 2, 4), torch.tensor([3, 7])
    clean = module(x.index_fill(0, torch.tensor(6), 0.0), lengths=lengths.clamp(max=6))[0]
    x[6] = torch.nan
    made = module(x, lengths=lengths.clamp(max=6))[0]
    torch.testing.assert_close(made, clean)
    made.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


class Scaled(Cell):
    """Reads tensors that are neither parameters nor buffers; gives one tensor twice, and one view."""

    state_names = ("h", "c")

    def __init__(self, input_size, hidden_size, **options):
        super().__init__(input_size, hidden_size)
        self.add_parameters(options, weight=(hidden_size, input_size))
        self.scale = torch.tensor(0.5)

    def forward(self, x, state):
        h, c = state
        both = torch.cat([torch.tanh(x @ self.weight.T + self.scale * h), c], -1)
        h, c = both.chunk(2, -1)
        return h * torch.tensor([0.9]), c


class Written(Scaled):
    def forward(self, x, state):
        return state[0].mul_(0.5).add_(x @ self.weight.T), state[1]


class Branching(Scaled):
    def forward(self, x, state):
        return (state[0] + x @ self.weight.T, state[1]) if x.sum() > 0 else state


class Counting(Scaled):
    steps = 0

    def forward(self, x, state):
        self.steps += 1
        return state[0] * self.steps + x @ self.weight.T, state[1]


class Widening(Scaled):
    def forward(self, x, state):
        return (state[0] + x @ self.weight.T).double(), state[1]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Written, "Written: it changes .* in place"),
        (Branching, "Branching: it branches on a value"),
        (Counting, "Counting: it sets Counting.steps"),
        (Widening, "Widening: it changes the shape or the type of its state"),
    ],
)
def test_a_step_that_no_graph_keeps_is_refused(kind, said):
    with pytest.raises(UntraceableError, match=said):
        export(Recurrent(kind, 4, 5), torch.randn(4, 3, 4))


class Stepped(nn.Module):
    """A module of the user, unrolled from a state of its own or of ours."""

    batch_first = False

    def __init__(self, given):
        super().__init__()
        self.cell, self.given = nn.GRUCell(4, 5), given

    def forward(self, input):
        return unroll(self.cell, input, torch.ones(input.size(1), 5) if self.given else None)


def test_other_modules():
    layer, x = Stepped(True), torch.randn(7, 2, 4)
    torch.testing.assert_close(export(layer, torch.randn(4, 3, 4)).module()(x), layer(x))
    with pytest.raises(ConfigurationError, match="give unroll a state"):
        export(Stepped(False), torch.randn(4, 3, 4))
    packed = pack_sequence([torch.randn(3, 4), torch.randn(2, 4)])
    with pytest.raises(ConfigurationError, match="PackedSequence"):
        torch.export.export(GRU(4, 5), (packed,))


SAVED = """
import sys, torch
inputs, expected = torch.load("seen.pt")
def compare():
    for name, value in expected.items():
        torch.testing.assert_close(torch.export.load(name).module()(*inputs[name]), value)
compare()
assert "unrolled" not in sys.modules
import os; sys.path.insert(0, os.environ["ROOT"])
from unrolled.cells import CELLS
from unrolled.unroll import operator
print(*(operator._find(CELLS[name](4, 5), None, torch.float32, False)[0] for name in ("gru-swapped", "gru")))
compare()
"""


def test_saved_programs_need_no_package_and_names_of_plans_mean_one_cell(tmp_path, pytestconfig, monkeypatch):
    layers = {"kernel": LSTM(4, 5), "loop": Recurrent("gru", 4, 5), "constants": Recurrent(Scaled, 4, 5)}
    x = torch.randn(4, 3, 4)
    inputs = dict.fromkeys(layers, (x,))
    for name, layer in layers.items():
        shapes = None if name == "kernel" else {"input": {0: STEPS, 1: BATCH}}
        torch.export.save(torch.export.export(layer, (x,), dynamic_shapes=shapes), tmp_path / name)
        inputs[name] = (x if name == "kernel" else torch.randn(7, 2, 4),)
    seen = {name: leaves(layer(*inputs[name])) for name, layer in layers.items()}
    expected = {name: (found[0], tuple(found[1:]) if len(found) > 2 else found[1]) for name, found in seen.items()}
    torch.save((inputs, torch.utils._pytree.tree_map(torch.Tensor.detach, expected)), tmp_path / "seen.pt")
    monkeypatch.setenv("ROOT", str(pytestconfig.rootpath))
    command = [sys.executable, "-I", "-c", SAVED]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    other, same = done.stdout.split()
    mine = operator._find(CELLS["gru"](4, 5), None, torch.float32, False)[0]
    assert same == mine != other
    with pytest.raises(ConfigurationError, match="captured in another process"):
        torch.ops.unrolled.unroll([], x, [], "0" * 32, [])


@pytest.mark.skipif(BEFORE_2_12, reason="TorchDynamo of PyTorch 2.11 cannot raise the error of a graph")
def test_lengths_are_checked_when_a_captured_graph_runs():
    layer, x = Recurrent("gru", 4, 5), torch.randn(4, 3, 4)
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="eager")
    module = export(layer, x, lengths=torch.tensor([4, 0, 2])).module()
    for wrong in ([5, 1, 1], [4, -1, 1]):
        for run, kind in ((layer, ShapeError), (compiled, ShapeError), (module, RuntimeError)):
            with pytest.raises(kind, match="lengths must be whole numbers from 0 to"):
                run(x, lengths=torch.tensor(wrong))
    for run in (layer, compiled):
        with pytest.raises(ShapeError, match="lengths must be whole numbers"):
            run(x, lengths=torch.tensor([1.0, 2.0, 3.0]))
    long = torch.randn(300, 3, 4)
    for dtype in (torch.uint8, torch.int8):
        lengths = torch.tensor([100, 0, 17], dtype=dtype)
        torch.testing.assert_close(compiled(long, lengths=lengths), layer(long, lengths=lengths.long()))
