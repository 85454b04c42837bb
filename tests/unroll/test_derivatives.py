"""Derivatives of every kind that PyTorch has, and outputs that are changed in place: what the eager loop gives."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import forward_ad
from torch.autograd.functional import hessian, jacobian
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

from unrolled import GRU, LSTM, RNN
from unrolled.cells import CELLS
from unrolled.errors import ConfigurationError
from unrolled.layers import Recurrent
from unrolled.unroll import unroll

WAYS = {
    "auto": {},
    "planned": {"backend": "planned"},
    "in pieces": {"recompute_every": 2},
    "planned, in pieces": {"backend": "planned", "recompute_every": 2},
}
LENGTHS = st.sampled_from([None, [3, 2], [1, 0]])


def problem(lengths=None, reverse=False, name="lstm"):
    """A function of input and states, in one of `WAYS`, and its arguments; few sizes, so that few cells are compiled."""
    cell = CELLS[name](2, 3).double()
    sizes = [(3, 2, 2), *((2, size) for size in cell.state_sizes)]
    leaves = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]

    def run(x, *state, **options):
        outputs, final = unroll(cell, x, state or None, lengths=lengths, reverse=reverse, **options)
        return outputs, *final

    return run, leaves, list(cell.parameters())


def tangents(run, leaves, **options):
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(leaf, torch.cos(3 * leaf.detach())) for leaf in leaves]
        return [forward_ad.unpack_dual(part).tangent for part in run(*duals, **options)]


@settings(max_examples=8)
@given(LENGTHS, st.booleans(), st.sampled_from([torch.enable_grad, torch.no_grad]), st.booleans(), st.booleans())
@pytest.mark.parametrize("way", WAYS)
def test_tangents(way, lengths, reverse, mode, frozen, started):
    run, leaves, parameters = problem(lengths, reverse)
    if frozen:
        leaves = [leaf.detach() for leaf in leaves]
        for parameter in parameters:
            parameter.requires_grad_(False)
    leaves = leaves if started else leaves[:1]
    with mode():
        expected = tangents(run, leaves, backend="eager")
        torch.testing.assert_close(tangents(run, leaves, **WAYS[way]), expected)
    assert expected[0].abs().sum() > 0 or lengths == [1, 0]


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: GRU(4, 5, **options),
        lambda **options: LSTM(4, 5, num_layers=2, bidirectional=True, **options),
        lambda **options: RNN(4, 5, **options),
        lambda **options: Recurrent("peephole", 4, 5, **options),
    ],
)
def test_tangents_of_weights(make):
    layer, twin = make(), make(backend="eager")
    twin.load_state_dict(layer.state_dict())
    x, found = torch.randn(6, 2, 4), []
    for one in (layer, twin):
        with forward_ad.dual_level():
            weights = {
                name: forward_ad.make_dual(value.detach(), torch.cos(value.detach()))
                for name, value in one.named_parameters()
            }
            outputs = torch.func.functional_call(one, weights, (x,))[0]
            found.append(forward_ad.unpack_dual(outputs).tangent)
    assert found[1].abs().sum() > 0
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", ["GRU", "RNN"])
@pytest.mark.parametrize("packed", [False, True])
def test_tangents_of_the_drop_ins_are_those_of_torch(name, packed):
    plain = getattr(nn, name)(4, 5)
    layer = {"GRU": GRU, "RNN": RNN}[name](4, 5)
    layer.load_state_dict(plain.state_dict())
    x, lengths, found = torch.randn(6, 3, 4), torch.tensor([6, 2, 4]), []
    for one in (plain, layer):
        with forward_ad.dual_level():
            fed = pack_padded_sequence(x, lengths, enforce_sorted=False) if packed else x
            if packed:
                outputs = one(fed._replace(data=forward_ad.make_dual(fed.data, torch.cos(fed.data))))[0].data
            else:
                outputs = one(forward_ad.make_dual(x, torch.cos(x)))[0]
            found.append(forward_ad.unpack_dual(outputs).tangent)
    torch.testing.assert_close(*found)


def test_native_code_alone_has_no_tangents():
    run, leaves, _ = problem()
    with pytest.raises(ConfigurationError, match="forward-mode"):
        tangents(run, leaves, backend="native")


def test_a_dual_level_without_tangents_changes_nothing():
    run, leaves, _ = problem()
    with forward_ad.dual_level():
        torch.testing.assert_close(run(*leaves, backend="native"), run(*leaves, backend="eager"))


@settings(max_examples=6)
@given(LENGTHS, st.booleans(), st.booleans())
@pytest.mark.parametrize("way", WAYS)
def test_batches_of_gradients(way, lengths, reverse, further):
    """`is_grads_batched`, and gradients of these."""
    run, leaves, parameters = problem(lengths, reverse)
    found = []
    for options in (WAYS[way], {"backend": "eager"}):
        made = run(*leaves, **options)
        arriving = [torch.linspace(-1, 1, 4 * part.numel()).reshape(4, *part.shape).double().cos() for part in made]
        of = [*leaves, *parameters]
        gradients = torch.autograd.grad(made, of, arriving, is_grads_batched=True, create_graph=further)
        if further:
            loss = sum(gradient.square().sum() for gradient in gradients)
            gradients = [*gradients, *torch.autograd.grad(loss, of, allow_unused=True, materialize_grads=True)]
        found.append(gradients)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_to_be_differentiated_through_calls_that_share_weights(way, reverse):
    """Each call has its own part of the weights' gradient, not that of the calls before it, too."""
    run, (x, *state), parameters = problem(None, reverse)
    leaves, found = [x, *state, *parameters], []
    for options in (WAYS[way], {"backend": "eager"}):
        outputs, *final = run(x, *state, **options)
        made = run(outputs[..., :2], *final, **options)
        loss = sum((part * part.cos()).sum() for part in made)
        gradients = torch.autograd.grad(loss, leaves, create_graph=True)
        curved = sum(gradient.square().sum() for gradient in gradients)
        found.append([*gradients, *torch.autograd.grad(curved, leaves)])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("way", WAYS)
def test_vmap_over_the_backward_pass(way):
    run, (x, *state), _ = problem()
    outputs, arriving = run(x, *state, **WAYS[way])[0], torch.randn(4, 3, 2, 3, dtype=torch.float64)

    def back(gradient):
        return torch.autograd.grad(outputs, [x, *state], gradient, retain_graph=True)

    for mapped, each in zip(torch.func.vmap(back)(arriving), zip(*map(back, arriving), strict=True), strict=True):
        torch.testing.assert_close(mapped, torch.stack(each))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lengths", [None, [3, 1]])
def test_gradcheck(way, lengths):
    run, leaves, _ = problem(lengths)

    def made(*leaves):
        return run(*leaves, **WAYS[way])

    forward = {"check_forward_ad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(made, leaves, check_batched_grad=True, fast_mode=True, **forward)
    assert torch.autograd.gradgradcheck(made, leaves, check_batched_grad=True, fast_mode=True)


@pytest.mark.parametrize("way", WAYS)
def test_functional_and_function_transforms(way):
    run, (x, *_), _ = problem([3, 2])
    x = x.detach()

    def outputs(x):
        return run(x, **WAYS[way])[0]

    def loss(x):
        return outputs(x).pow(3).sum()

    expected = jacobian(lambda x: run(x, backend="eager")[0], x)
    for options in ({}, {"vectorize": True}, {"vectorize": True, "strategy": "forward-mode"}):
        torch.testing.assert_close(jacobian(outputs, x, **options), expected)
    torch.testing.assert_close(torch.func.jacfwd(outputs)(x), expected)
    torch.testing.assert_close(torch.func.jacrev(outputs)(x), expected)
    curved = hessian(lambda x: run(x, backend="eager")[0].pow(3).sum(), x)
    for options in ({"vectorize": True}, {"vectorize": True, "outer_jacobian_strategy": "forward-mode"}):
        torch.testing.assert_close(hessian(loss, x, **options), curved)
    torch.testing.assert_close(torch.func.hessian(loss)(x), curved)


@pytest.mark.parametrize("way", WAYS)
def test_a_tangent_of_the_arriving_gradient(way):
    run, leaves, _ = problem()
    outputs = run(*leaves, **WAYS[way])[0]
    arriving, direction = torch.ones_like(outputs), torch.cos(outputs.detach())
    expected = torch.autograd.grad(outputs, leaves[0], direction, retain_graph=True)[0]
    with forward_ad.dual_level():
        (found,) = torch.autograd.grad(outputs, leaves[0], forward_ad.make_dual(arriving, direction))
        torch.testing.assert_close(forward_ad.unpack_dual(found).tangent, expected)


def test_a_second_gradient_of_a_state_that_nothing_reaches():
    """The gradient of the last carry, which is the first one, depends on no weight."""

    class Carried(CELLS["elman"]):
        state_names = ("h", "carry")

        def forward(self, x, state):
            return *super().forward(x, state[:1]), state[1]

    cell, x = Carried(2, 3).double(), torch.randn(3, 2, 2, dtype=torch.float64)
    _, (_, carry) = unroll(cell, x, backend="planned")
    found = torch.autograd.grad(carry.sum(), list(cell.parameters()), create_graph=True, allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in found)


CHANGES = {
    "add_": lambda outputs, final: outputs.add_(1),
    "relu_": lambda outputs, final: torch.relu_(outputs),
    "a step": lambda outputs, final: outputs[0].zero_(),
    "through a detached view": lambda outputs, final: outputs.detach().zero_(),
    "without a gradient": torch.no_grad()(lambda outputs, final: outputs.mul_(2)),
    "the last state": lambda outputs, final: final[0].mul_(3),
    "all": lambda outputs, final: [outputs.mul_(2), *(part.add_(1) for part in final)],
}


@settings(max_examples=12)
@given(st.sampled_from(list(CHANGES)), LENGTHS, st.booleans(), st.sampled_from(["lstm", "peephole"]))
@pytest.mark.parametrize("way", WAYS)
def test_outputs_changed_in_place(way, change, lengths, reverse, name):
    run, leaves, parameters = problem(lengths, reverse, name)
    found = []
    for options in (WAYS[way], {"backend": "eager"}):
        outputs, *final = run(*leaves, **options)
        if options.get("backend") == "eager":  # the change, on copies
            outputs, *final = (part.clone() for part in (outputs, *final))
        CHANGES[change](outputs, final)
        loss = outputs.square().sum() + sum((part * part.cos()).sum() for part in final)
        first = torch.autograd.grad(loss, [*leaves, *parameters], create_graph=True)
        found.append([outputs, *first, *torch.autograd.grad(loss, [*leaves, *parameters])])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", ["GRU", "RNN"])
@pytest.mark.parametrize("change", CHANGES)
def test_the_drop_ins_allow_what_torch_does(name, change):
    plain = getattr(nn, name)(4, 5)
    layer = {"GRU": GRU, "RNN": RNN}[name](4, 5)
    layer.load_state_dict(plain.state_dict())
    x, found = torch.randn(6, 2, 4, requires_grad=True), []
    for one in (plain, layer):
        outputs, final = one(x)
        CHANGES[change](outputs, [final])
        loss = outputs.square().sum() + final.square().sum()
        for keep in (True, False):
            found.append(torch.autograd.grad(loss, [x, *one.parameters()], retain_graph=keep))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-5)


def test_outputs_changed_in_place_within_a_checkpoint():
    layer, x, found = GRU(4, 5), torch.randn(6, 2, 4, requires_grad=True), []

    def run(x):
        return layer(x)[0].add_(1).relu_()

    for outputs in (run(x), checkpoint(run, x, use_reentrant=False), (layer(x)[0] + 1).relu()):
        found.append(torch.autograd.grad(outputs.square().sum(), [x, *layer.parameters()]))
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[2])


def test_what_is_kept_for_backward_is_freed_by_it():
    layer, x = GRU(4, 64), torch.randn(6, 2, 4)
    outputs = layer(x)[0]
    held, size = outputs.grad_fn, outputs.untyped_storage().nbytes()
    outputs.sum().backward()
    del outputs
    storages = [version._counter.untyped_storage().nbytes() for version in held.versions]
    assert size > 0
    assert storages == [0]
    with pytest.raises(RuntimeError, match="second time"):
        held.saved_tensors  # noqa: B018


def test_the_gradient_of_a_long_input_is_joined_once():
    """The eager loop's backward holds one gradient of the input's size, not one a step."""
    cell, x = CELLS["elman"](4, 5), torch.randn(200, 2, 4, requires_grad=True)
    outputs, _ = unroll(cell, x, backend="eager")
    seen, waiting = set(), [outputs.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    assert not any("Select" in node.name() for node in seen)
    (gradient,) = torch.autograd.grad(outputs.sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad(unroll(cell, x, backend="torch")[0].sum(), x)[0])
