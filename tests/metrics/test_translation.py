"""Scores of translations, with confidence intervals."""

import pytest

from unrolled.metrics.translation import bleu, chrf


@pytest.mark.parametrize("score", [bleu, chrf])
def test_outputs_of_which_few_match_have_an_interval(score):
    outputs = ["the", "", "x", "", "a cat"] * 4
    references = ["dogs", "run", "y", "home", "a cat sat here"] * 4
    found = score(outputs, references, resamples=50)
    assert found.mean is not None
    assert found.interval is not None
    assert 0 <= found.mean <= 100
    assert found.interval >= 0


def test_outputs_without_any_match():
    found = chrf(["", ""], ["dogs", "run"], resamples=20)
    assert (found.score, found.mean, found.interval) == (0, 0, 0)
