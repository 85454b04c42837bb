"""Ablation against a plain loop in which the unit is set to zero after every step."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from unrolled.analysis.ablation import ablate
from unrolled.analysis.units import Unit
from unrolled.models import LanguageModel


def plain(model, tokens, unit):
    states = [cell[0].initial_state(1, like=model.readout.weight) for cell in model.recurrent.cells]
    total = 0.0
    for token, following in pairwise(tokens):
        x = model.embed(torch.tensor([[token]]))[0]
        for k, cell in enumerate(model.recurrent.cells):
            state = tuple(part.clone() for part in cell[0](x, states[k]))
            if unit and unit.layer == k + 1:
                for part in state:
                    part[:, unit.number] = 0.0
            states[k], x = state, state[0]
        total += float(cross_entropy(model.readout(x), torch.tensor([following])))
    return total / (len(tokens) - 1)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_against_a_plain_loop(cell):
    model = LanguageModel(7, cell, embedding_size=3, hidden_size=[5, 4]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    tokens = np.random.default_rng(0).integers(7, size=150)
    units = [Unit(1, "h", 2), Unit(2, "h", 0)]
    with torch.no_grad():
        loss, changes = ablate(model, tokens, units)
        assert loss == pytest.approx(plain(model, tokens, None), abs=1e-5)
        for unit, change in zip(units, changes, strict=True):
            assert change == pytest.approx(plain(model, tokens, unit) - loss, abs=1e-5)
            assert abs(change) > 1e-4
