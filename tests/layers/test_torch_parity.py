"""`unrolled.RNN/LSTM/GRU` against `torch.nn`'s: outputs, gradients, state_dict, errors."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import unrolled

KINDS = [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("LSTM", {}), ("LSTM", {"proj_size": 4}), ("GRU", {})]
#: What both directions of a layer give the next one is as wide as the input, so that the layers are compiled once.
I, H = 8, 4  # noqa: E741 - the field's names


def width(options):
    """A projection is narrower than the hidden state, and as wide as the hidden state of the others."""
    return H + 2 if options.get("proj_size") else H


def pair(kind, backend="auto", **options):
    """The same layer twice: torch.nn's, and ours drawn from the same seed."""
    torch.manual_seed(3)
    theirs = getattr(nn, kind)(I, width(options), **options)
    torch.manual_seed(3)
    return theirs, getattr(unrolled, kind)(I, width(options), backend=backend, **options)


def tensors(result):
    output, hx = result
    output = output.data if isinstance(output, PackedSequence) else output
    return [output, *(hx if isinstance(hx, tuple) else (hx,))]


def gradients(layer, result, extra):
    loss = sum((t * torch.linspace(-1, 1, t.numel(), dtype=t.dtype).view_as(t)).sum() for t in tensors(result))
    return torch.autograd.grad(loss, [*extra, *layer.parameters()])


def start(layer, batch, dtype):
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    h = torch.randn(rows, batch, layer.proj_size or H, dtype=dtype, requires_grad=True)
    if not isinstance(layer, nn.LSTM):
        return h, [h]
    c = torch.randn(rows, batch, layer.hidden_size, dtype=dtype, requires_grad=True)
    return (h, c), [h, c]


def slow_where_a_width_is_compiled_for_it_alone(layers, bidirectional, form, backend):
    """The second layer's, in one direction; how layers are joined, the eager backend shows too."""
    alone = layers == 2 and not bidirectional and backend == "auto"
    return pytest.param(layers, bidirectional, form, backend, marks=pytest.mark.slow if alone else ())


FORMS = itertools.product((1, 2), (False, True), ("padded", "batch_first", "packed"), ("eager", "auto"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize(
    ("layers", "bidirectional", "form", "backend"), [slow_where_a_width_is_compiled_for_it_alone(*one) for one in FORMS]
)
def test_outputs_and_all_gradients(kind, options, layers, bidirectional, form, dtype, backend):
    theirs, ours = pair(
        kind,
        backend,
        num_layers=layers,
        bidirectional=bidirectional,
        batch_first=form == "batch_first",
        dtype=dtype,
        **options,
    )
    counts = (5, 2, 5, 3) if form == "packed" else (5, 5, 5, 5)
    rows = [torch.randn(n, I, dtype=dtype, requires_grad=True) for n in counts]
    hx, extra = start(theirs, 4, dtype)
    extra = [*rows, *extra]

    def given():
        if form == "packed":
            return pack_sequence(rows, enforce_sorted=False)
        return torch.stack(rows, 0 if form == "batch_first" else 1)

    want, got = theirs(given(), hx), ours(given(), hx)
    bound = 1e-5 if dtype == torch.float32 else 1e-10
    if form == "packed":
        for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
            assert torch.equal(getattr(got[0], name), getattr(want[0], name))
    for a, b in zip(tensors(got), tensors(want), strict=True):
        torch.testing.assert_close(a, b, rtol=bound, atol=bound)
    for a, b in zip(gradients(ours, got, extra), gradients(theirs, want, extra), strict=True):
        torch.testing.assert_close(a, b, rtol=bound, atol=bound)


@pytest.mark.parametrize(("kind", "options"), KINDS)
@torch.no_grad()
def test_unbatched_without_bias_and_without_state(kind, options):
    theirs, ours = pair(kind, bias=False, num_layers=2, bidirectional=True, **options)
    x = torch.randn(5, I)
    for a, b in zip(tensors(ours(x)), tensors(theirs(x)), strict=True):
        torch.testing.assert_close(a, b)
    _, final = theirs(x)
    for a, b in zip(tensors(ours(x, final)), tensors(theirs(x, final)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("kind", "options"), KINDS)
@torch.no_grad()
def test_state_dicts_go_both_ways(kind, options):
    theirs, ours = pair(kind, num_layers=2, bidirectional=True, **options)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    for parameter in ours.parameters():
        parameter.mul_(0.5)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 2, I)
    torch.testing.assert_close(theirs(x)[0], ours(x)[0])
    ours.load_state_dict(pair(kind, num_layers=2, bidirectional=True, **options)[0].state_dict())
    assert isinstance(ours, getattr(nn, kind))


@pytest.mark.parametrize("backend", ["eager", "auto"])
def test_dropout_acts_in_training_only(backend):
    layer = unrolled.LSTM(I, H, 2, dropout=0.9, bidirectional=True, backend=backend)
    x = torch.randn(5, 3, I, requires_grad=True)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])
    layer.train().dropout = 0.0
    assert torch.equal(layer(x)[0], layer(x)[0])


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    "call",
    [
        lambda layer: layer(torch.zeros(5, 2, I + 1)),
        lambda layer: layer(torch.zeros(5)),
        lambda layer: layer(torch.zeros(5, 2, 2, I)),
        lambda layer: layer(torch.zeros(0, 2, I)),
        lambda layer: layer(torch.zeros(5, 2, I, dtype=torch.float64)),
        lambda layer: layer(torch.zeros(5, 2, I), bad_state(layer, 1, 3, H)),
        lambda layer: layer(torch.zeros(5, 2, I), bad_state(layer, 1, 2, H + 1)),
        lambda layer: layer(torch.zeros(5, 2, I), bad_state(layer, 2, H)),
        lambda layer: layer(torch.zeros(5, I), bad_state(layer, 1, 1, H)),
    ],
)
def test_bad_shapes_raise_the_same_class(kind, call):
    theirs, ours = pair(kind)
    with pytest.raises(Exception) as expected:  # noqa: PT011 - the class is what is compared
        call(theirs)
    with pytest.raises(expected.type):
        call(ours)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_packed_input_of_a_wrong_size_is_refused(kind):
    # torch.nn.LSTM itself lets this through without a state, and reads past its weights.
    with pytest.raises(RuntimeError, match="input_size"):
        getattr(unrolled, kind)(I, H)(pack_sequence([torch.zeros(3, I + 1)]))


def bad_state(layer, *shape):
    state = torch.zeros(*shape)
    return (state, state) if isinstance(layer, nn.LSTM) else state


@pytest.mark.parametrize(
    ("kind", "arguments", "options"),
    [
        ("LSTM", (I, 0), {}),
        ("LSTM", (I, 2.5), {}),
        ("LSTM", (I, H), {"proj_size": H}),
        ("GRU", (I, H), {"proj_size": 2}),
        ("RNN", (I, H), {"nonlinearity": "cube"}),
        ("GRU", (I, H), {"dropout": 1.5}),
        ("GRU", (I, H), {"num_layers": 0}),
    ],
)
def test_bad_constructions_raise_the_same_class(kind, arguments, options):
    with pytest.raises(Exception) as expected:  # noqa: PT011 - the class is what is compared
        getattr(nn, kind)(*arguments, **options)
    with pytest.raises(expected.type):
        getattr(unrolled, kind)(*arguments, **options)


def test_functional_call_copies_and_parametrizations():
    layer = unrolled.GRU(I, H, 2, bidirectional=True)
    x = torch.randn(5, 3, I, requires_grad=True)
    halved = {name: value / 2 for name, value in layer.state_dict().items()}
    called = torch.func.functional_call(layer, halved, (x,))[0]
    other = copy.deepcopy(layer)
    other.load_state_dict(halved)
    assert torch.equal(called, other(x)[0])
    assert not torch.equal(called, layer(x)[0])
    before = layer(x)[0]
    parametrizations.weight_norm(layer, "weight_hh_l0")
    torch.testing.assert_close(layer(x)[0], before)
    layer(x)[0].sum().backward()
    assert layer.parametrizations["weight_hh_l0"].original0.grad is not None


def test_lengths_in_place_of_a_packed_sequence():
    _, layer = pair("LSTM", bidirectional=True)
    rows = [torch.randn(n, I, requires_grad=True) for n in (5, 2, 4)]
    padded = nn.utils.rnn.pad_sequence(rows)
    outputs, final = layer(padded, lengths=torch.tensor([5, 2, 4]))
    packed, expected = layer(pack_sequence(rows, enforce_sorted=False))
    torch.testing.assert_close(outputs, nn.utils.rnn.pad_packed_sequence(packed)[0])
    for a, b in zip(final, expected, strict=True):
        torch.testing.assert_close(a, b)
