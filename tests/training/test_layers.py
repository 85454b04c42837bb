"""Groups of layers: their rates and their first steps in an optimiser."""

import torch
from torch import nn

from unrolled.training.config import TrainingConfig
from unrolled.training.layers import LayerGroup, drop_frozen, freeze
from unrolled.training.optimisation import make_optimizer


def net():
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 1))


def test_every_parameter_is_in_one_group():
    model = net()
    model[1].bias.requires_grad_(False)
    layers = [LayerGroup([*model[0].parameters()], 0.5, 4), LayerGroup([*model[1].parameters()])]
    optimizer = make_optimizer(model, TrainingConfig(weight_decay=0.1), layers)
    found = [(group["factor"], group["start"], group["weight_decay"]) for group in optimizer.param_groups]
    assert found == [(0.5, 4, 0.1), (0.5, 4, 0.0), (1.0, 0, 0.1), (1.0, 0, 0.0), (1.0, 0, 0.1), (1.0, 0, 0.0)]
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)


def test_frozen_parameters_have_no_gradient_and_stay():
    for ahead in (True, False):  # left out by autograd, or dropped after it as with several processes
        model = net()
        optimizer = make_optimizer(
            model, TrainingConfig(weight_decay=0.5), [LayerGroup([*model[0].parameters()], 1, 2)]
        )
        old = [parameter.detach().clone() for parameter in model.parameters()]
        for step, moving in enumerate((False, False, True)):
            if ahead:
                freeze(optimizer.param_groups, step)
                assert model[0].weight.requires_grad == moving
            optimizer.zero_grad()
            model(torch.ones(1, 2)).sum().backward()
            drop_frozen(optimizer.param_groups, step)
            optimizer.step()
            same = [torch.equal(one, other) for one, other in zip(old, model.parameters(), strict=True)]
            assert same == [not moving] * 2 + [False] * 4
