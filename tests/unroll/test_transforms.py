"""What people do to a module besides calling it: the result is that of the eager loop."""

import copy

import pytest
import torch

from unrolled import GRU
from unrolled.layers import Recurrent

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
