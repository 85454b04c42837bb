"""The one-unit error surface against the plain recurrence, its wall, and descent with and without clipping."""

import math

import pytest
import torch

from unrolled.experiments.surface import OneUnit, descend, surface


def test_the_surface_is_the_recurrences():
    unit = OneUnit(steps=7, target=0.6)
    w, b = torch.tensor([4.0, 5.0]), torch.tensor([-3.0, -2.5, -2.0])
    h = 0.5
    for _ in range(7):
        h = 5.0 / (1 + math.exp(-h)) - 2.5
    found = surface(unit, w, b)
    assert found.shape == (3, 2)
    assert found[1, 1].item() == pytest.approx((1 / (1 + math.exp(-h)) - 0.6) ** 2, rel=1e-5)


def test_it_has_a_wall():
    errors = surface(OneUnit(), torch.linspace(5, 5.5, 101).double(), torch.tensor([-2.7]).double())[0]
    assert errors.diff().abs().max() > 0.2
    assert errors.diff().abs().median() < 0.01


def test_plain_descent_is_thrown_and_clipped_descent_arrives():
    given = {"learning_rate": 1.0, "updates": 50}
    plain, clipped = (
        descend(OneUnit(), (5.0, -2.3), **given),
        descend(OneUnit(), (5.0, -2.3), clip_norm_at=0.1, **given),
    )
    assert plain.largest_step > 5
    assert clipped.largest_step == pytest.approx(0.1, abs=1e-9)
    assert clipped.errors.min() < 1e-3
    assert len(plain.points) == len(plain.errors) == 51
