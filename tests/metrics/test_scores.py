import math

import pytest

from unrolled.metrics import LanguageScore, perplexity


def test_a_uniform_guess_over_four():
    score = LanguageScore(total_nats=10 * math.log(4), tokens=10, characters=20)
    assert score.nats == pytest.approx(math.log(4))
    assert score.perplexity == pytest.approx(4)
    assert score.bits_per_character == pytest.approx(1)


def test_a_hopeless_loss_has_infinite_perplexity():
    assert perplexity(1e6) == math.inf
