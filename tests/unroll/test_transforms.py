"""What people do to a module besides calling it: the result is that of the eager loop."""

import copy

import pytest
import torch
from torch import nn

from unrolled import GRU, LSTM
from unrolled.cells import CELLS
from unrolled.layers import Recurrent
from unrolled.unroll import operator, unroll
from unrolled.unroll.versions import BEFORE_2_12

MAKERS = {"gru": lambda: Recurrent("gru", 4, 5), "drop-in": lambda: GRU(4, 5, num_layers=2)}


@pytest.fixture(params=MAKERS)
def layer(request):
    return MAKERS[request.param]()


def eager(layer, x):
    layer = copy.deepcopy(layer)
    layer.backend = "eager"
    return layer(x)[0]


def test_torch_compile(layer):
    x = torch.randn(6, 2, 4)
    expected = eager(layer, x)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(layer, backend="eager")(x)[0], expected)


class Stepped(nn.Module):
    """A module of the user, unrolled from a state of its own."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(4, 5)

    def forward(self, x):
        return unroll(self.cell, x, torch.ones(x.size(1), 5))


ALONE = {
    "one": (lambda: Recurrent("gru", 4, 5), {}),
    "deep": (lambda: Recurrent("lstm", 4, 5, num_layers=2, bidirectional=True), {}),
    "lengths": (lambda: Recurrent("peephole", 4, 5), {"lengths": torch.tensor([6, 3])}),
    "user module": (Stepped, {}),
    "drop-in": (lambda: LSTM(4, 5), {}),
}


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *((name, "eager") for name in ALONE),
        # What is captured is the same graph for both; each takes seconds.
        *(pytest.param(name, "aot_eager", marks=[] if name == "one" else pytest.mark.slow) for name in ALONE),
    ],
)
@pytest.mark.skipif(BEFORE_2_12, reason="PyTorch 2.11 leaves the graph at every layer")
@torch._dynamo.config.patch(allow_rnn=True)  # it refuses subclasses of torch.nn.LSTM otherwise
def test_compiled_whole_it_is_the_operator_without_a_break(name, backend):
    make, options = ALONE[name]
    layer, x = make(), torch.randn(6, 2, 4, requires_grad=True)
    seen = []

    def watch(graph, _):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    torch._dynamo.reset()
    whole = torch.compile(layer, fullgraph=True, backend=backend)
    expected, made = layer(x, **options)[0], whole(x, **options)[0]
    torch.testing.assert_close(made, expected)
    leaves = [x, *layer.parameters()]
    torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), leaves) for y in (made, expected)))
    with torch.no_grad():
        torch.testing.assert_close(whole(x, **options)[0], expected)
    torch._dynamo.reset()
    torch.compile(layer, fullgraph=True, backend=watch)(x, **options)
    assert any("unrolled.unroll" in target for target in seen)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        *(("lstm", False), ("gru", True), ("ln-lstm", True)),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("lstm", True), ("gru", False), ("ln-lstm", False))),
    ],
)
def test_opcheck(name, wanted):
    cell = CELLS[name](4, 5).double()
    number, names, _, sizes = operator._find(cell, None, torch.float64, False)
    parameters = [cell.get_parameter(name).detach().requires_grad_(wanted) for name in names]
    x = torch.randn(6, 2, 4, dtype=torch.float64, requires_grad=wanted)
    state = [torch.randn(2, size, dtype=torch.float64, requires_grad=wanted) for size in sizes]
    flags = [True] * (len(parameters) + 1) if wanted else []
    for first in ([], state):
        torch.library.opcheck(torch.ops.unrolled.unroll.default, (parameters, x, first, number, flags))
    if wanted:
        with torch.no_grad():
            made = [part.detach() for part in torch.ops.unrolled.unroll(parameters, x, state, number, flags)]
        kept = [*made[: len(sizes)], *made[2 * len(sizes) :]]
        given = [[p.detach() for p in parameters], x.detach(), kept, [torch.randn(6, 2, 5, dtype=torch.float64)]]
        arguments = (*given, [None] * len(sizes), number, flags, True)
        torch.library.opcheck(torch.ops.unrolled.unroll_backward.default, arguments)


def test_distributed_data_parallel(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        layer, x = Recurrent("gru", 4, 5), torch.randn(6, 2, 4)
        nn.parallel.DistributedDataParallel(layer)(x)[0].sum().backward()
        found = [parameter.grad.clone() for parameter in layer.parameters()]
        layer.zero_grad()
        layer.backend = "eager"
        layer(x)[0].sum().backward()
        torch.testing.assert_close(found, [parameter.grad for parameter in layer.parameters()])
    finally:
        torch.distributed.destroy_process_group()


def test_functional_call_and_function_transforms(layer):
    x = torch.randn(6, 2, 4)
    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    doubled = {name: 2 * p for name, p in parameters.items()}
    twice = copy.deepcopy(layer)
    twice.load_state_dict(doubled)
    torch.testing.assert_close(torch.func.functional_call(layer, doubled, (x,))[0], eager(twice, x))
    gradients = torch.func.grad(lambda p: torch.func.functional_call(layer, p, (x,))[0].sum())(parameters)
    eager_copy = copy.deepcopy(layer)
    eager_copy.backend = "eager"
    eager_copy(x)[0].sum().backward()
    for name, parameter in eager_copy.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)
    many = torch.randn(3, 6, 2, 4)
    mapped = torch.func.vmap(lambda one: torch.func.functional_call(layer, parameters, (one,))[0])(many)
    torch.testing.assert_close(mapped, torch.stack([eager(layer, one) for one in many]))


def test_autocast_and_other_types(layer):
    x = torch.randn(6, 2, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(layer(x)[0].float(), eager(layer, x).float(), rtol=0.02, atol=0.02)
    half = copy.deepcopy(layer).to(torch.bfloat16)
    torch.testing.assert_close(half(x.bfloat16())[0], eager(half, x.bfloat16()), rtol=0.02, atol=0.02)


def test_inference_mode_and_frozen_parameters(layer):
    x = torch.randn(6, 2, 4)
    expected = eager(layer, x)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x)[0], expected)
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    assert not layer(x)[0].requires_grad
    fed = x.clone().requires_grad_()
    layer(fed)[0].sum().backward()
    again = x.clone().requires_grad_()
    eager(layer, again).sum().backward()
    torch.testing.assert_close(fed.grad, again.grad)


def test_weights_changed_in_place_are_seen(layer):
    x = torch.randn(6, 2, 4)
    layer(x)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(0.5)
    torch.testing.assert_close(layer(x)[0], eager(layer, x))


def test_inputs_that_do_not_lie_in_one_piece(layer):
    x = torch.randn(4, 2, 6).permute(2, 1, 0)
    torch.testing.assert_close(layer(x)[0], eager(layer, x))
    wide = torch.randn(6, 2, 8)[..., ::2]
    torch.testing.assert_close(layer(wide)[0], eager(layer, wide))
