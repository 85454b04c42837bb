"""Scores against plain definitions; a time limit at full size is in tests/slow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.analysis.scores import Labels, is_scorable, ranks, shifted_spread, strength


def plain_auc(values, label):
    yes, no = values[label].astype(float), values[~label].astype(float)
    return float((yes[:, None] > no).mean() + ((yes[:, None] == no).mean()) / 2)


@given(st.lists(st.floats(-4, 4, width=16), min_size=2, max_size=40), st.integers(0, 1000))
def test_auc_and_correlation(values, seed):
    generator = np.random.default_rng(seed)
    activations = np.array([values, values[::-1]], dtype=np.float16)
    label = generator.random(len(values)) < 0.5
    graded = generator.standard_normal(len(values))
    found = Labels([label, graded]).score(activations)[0]
    for row, scores in zip(activations, found, strict=True):
        expected = plain_auc(row, label) if 0 < label.sum() < len(label) else 0.5
        assert scores[0] == pytest.approx(expected, abs=1e-5)
        r = np.corrcoef(row.astype(float), graded)[0, 1] if row.astype(float).std() > 1e-3 else None
        if r is not None:
            assert scores[1] == pytest.approx(r, abs=1e-3)


def test_scores_under_shifts_are_those_of_shifted_labels():
    generator = np.random.default_rng(4)
    activations = generator.standard_normal((3, 50)).astype(np.float16)
    columns = [generator.random(50) < 0.4, generator.standard_normal(50), np.zeros(50, dtype=bool)]
    shifts = [0, 1, 17, 49]
    found = Labels(columns).score(activations, shifts)
    assert found.shape == (4, 3, 3)
    for shift, scores in zip(shifts, found, strict=True):
        expected = Labels([np.roll(column, shift) for column in columns]).score(activations)[0]
        assert np.allclose(scores, expected, atol=1e-6)


def test_labels_that_hardly_change_tell_nothing_and_scores_stay_in_their_range():
    ends = np.ones(20_002, dtype=bool)
    ends[[0, 1, -1]] = False
    often = np.arange(20_002) % 2000 < 3
    numbers = ends.astype(float)
    activations = np.stack([ends, often, ~ends]).astype(np.float16)
    labels = Labels([ends, often, numbers, np.zeros(20_002)])
    assert labels.usable.tolist() == [False, True, True, False]
    assert not is_scorable(often[:8000])
    scores = labels.score(activations)
    assert scores[..., :2].min() >= 0
    assert scores.max() <= 1
    assert scores.min() >= -1
    assert scores[0, 1, 1] == pytest.approx(1)


def test_ranks_share_ties():
    found = ranks(np.array([0.5, -0.0, 0.0, -2.0], dtype=np.float16))
    assert found == pytest.approx([3.5 / 4 - 0.5, 0.0, 0.0, 0.5 / 4 - 0.5])


def test_strength_counts_both_ways():
    graded = np.array([False, True])
    assert strength(np.array([[0.1, -0.7]]), graded)[0] == pytest.approx([0.8, 0.7])


@pytest.mark.parametrize("graded", [False, True])
def test_the_spread_over_shifts_is_that_of_shifting(graded):
    generator = np.random.default_rng(1)
    values = np.convolve(generator.standard_normal(600), np.ones(20), "same").astype(np.float16)
    label = np.convolve(generator.standard_normal(600), np.ones(30), "same")
    label = label if graded else label > 0
    every = [Labels([np.roll(label, k)]).score(values[None])[0, 0, 0] for k in range(6, 594)]
    assert shifted_spread(values, label) == pytest.approx(np.std(every), rel=1e-3)
    assert shifted_spread(values, np.zeros(600, dtype=bool)) == 0.0
