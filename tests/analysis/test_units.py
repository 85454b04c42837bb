"""Units that were planted are found, confirmed on the other half, and the shifted labels find none."""

import numpy as np
import pytest
import torch

from unrolled.analysis.hypotheses import Hypothesis
from unrolled.analysis.units import Activations, Unit, find_units, read_activations, top_passages
from unrolled.errors import DataError
from unrolled.models import LanguageModel


def planted(length=20_000, units=40):
    generator = np.random.default_rng(0)
    inside = np.convolve(generator.standard_normal(length), np.ones(12), "same") > 2
    ends = np.sort(generator.choice(length, length // 30, replace=False))
    place = np.arange(length) - np.concatenate([[0], ends])[np.searchsorted(ends, np.arange(length), "right")] * 1.0
    values = generator.standard_normal((units, length))
    values[7] = -1.0 * inside + 0.2 * values[7]
    values[21] = np.minimum(place / 40, 4) + 0.1 * values[21]
    names = tuple(Unit(1, "h", k) for k in range(units))
    return Activations(names, values.astype(np.float16)), Hypothesis("inside", inside), Hypothesis("place", place)


def test_planted_units_are_found_and_chance_is_not():
    activations, inside, place = planted()
    never = Hypothesis("never", np.zeros_like(inside.labels))
    noise = Hypothesis("noise", np.random.default_rng(5).random(len(inside.labels)) < 0.3)
    found = {finding.hypothesis: finding for finding in find_units(activations, [inside, place, never, noise])}
    assert set(found) == {"inside", "place", "noise"}
    assert found["inside"].unit.number == 7
    assert found["inside"].held_out < 0.05
    assert found["inside"].confirmed
    assert found["place"].unit.number == 21
    assert found["place"].held_out > 0.93
    assert found["place"].confirmed
    assert not found["noise"].confirmed
    assert found["noise"].p > 0.05
    for finding in found.values():
        chance = 0.0 if finding.graded else 0.5
        assert chance <= finding.control <= finding.control_high
        assert finding.control < chance + 0.1


def test_the_control_is_what_chance_gives():
    """Labels that stay on for a tenth of the text are told by slow noise now and then; short ones never."""
    generator = np.random.default_rng(3)
    length = 20_000

    def slow(steps):
        return np.convolve(generator.standard_normal(length + steps - 1), np.ones(steps), "valid") / steps**0.5

    values = np.stack([slow(400) for _ in range(30)]).astype(np.float16)
    activations = Activations(tuple(Unit(1, "h", k) for k in range(30)), values)
    labels = [Hypothesis("long", slow(2000) > 0), Hypothesis("short", slow(3) > 0), Hypothesis("graded", slow(2000))]
    found = {finding.hypothesis: finding for finding in find_units(activations, labels)}
    assert found["long"].control > 0.52
    assert found["long"].control_high > 0.6
    assert found["short"].control_high < 0.53
    assert 0.05 < found["graded"].control < found["graded"].control_high
    assert not any(finding.confirmed for finding in found.values())


def test_too_short_a_text():
    activations, inside, _ = planted(length=150)
    with pytest.raises(DataError, match="at least 200"):
        find_units(activations, [inside])


@pytest.mark.parametrize(("cell", "sizes"), [("lstm", [6, 4]), ("gru", [5])])
@torch.no_grad()
def test_activations_are_the_models_states(cell, sizes):
    model = LanguageModel(9, cell, embedding_size=3, hidden_size=sizes).eval()
    tokens = np.random.default_rng(2).integers(9, size=1500)
    one, many = read_activations(model, tokens, streams=1), read_activations(model, tokens, streams=2)
    assert one.values.shape == (len(one.units), 1500)
    assert len(one.units) == sum(sizes) * (2 if cell == "lstm" else 1)
    outputs, _ = model.read(torch.from_numpy(tokens)[:, None])
    top = [k for k, unit in enumerate(one.units) if unit.layer == len(sizes) and unit.state == "h"]
    assert np.allclose(one.values[top].T, outputs[:, 0].detach().numpy(), atol=1e-3)
    assert np.allclose(one.values, many.values, atol=2e-2)
    assert np.array_equal(one.values[:, :500], many.values[:, :500])


def test_passages_are_apart():
    row = np.zeros(300, dtype=np.float16)
    row[[50, 52, 200]] = [1.0, 0.9, 0.5]
    text = "".join(chr(97 + k % 26) for k in range(300))
    first, second = top_passages(row, text, count=2)
    assert first.text[first.at] == text[50]
    assert second.text[second.at] == text[200]
    assert top_passages(-row, text, sign=-1.0, count=1)[0].value == -1.0
