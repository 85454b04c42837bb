"""How activations become colours."""

import numpy as np
import pytest

from unrolled.analysis.examine import to_colour


def test_small_values_are_shown_as_they_are_and_large_ones_through_tanh():
    small, large = np.linspace(-0.5, 1, 50).astype(np.float16), np.linspace(-3, 3, 50).astype(np.float16)
    for row, expected in ((small, small), (large, np.tanh(large.astype(np.float32)))):
        shown, centre = to_colour(row)
        assert centre == 0.0
        assert shown == pytest.approx(expected.astype(np.float32))


def test_what_lies_far_from_zero_is_still_told_apart():
    row = np.where(np.arange(200) % 4 == 0, -6.0, -8.0).astype(np.float16)
    shown, centre = to_colour(row)
    assert centre == -8.0
    assert shown[0] == 2.0
    assert shown[1] == 0.0
