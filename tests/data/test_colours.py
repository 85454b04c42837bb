"""Names of colours, in CIELAB."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.data.colours import COLOURS, colour_name, colour_shares, to_lab


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [  # published values for D65
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((128, 128, 128), (53.59, 0, 0)),
    ],
)
def test_lab(rgb, lab):
    assert to_lab(np.array(rgb)) == pytest.approx(np.array(lab), abs=0.02)


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((10, 10, 12), "black"), ((245, 245, 240), "white"), ((120, 122, 121), "gray"), ((100, 65, 40), "brown"),
        ((200, 170, 125), "tan"), ((190, 20, 30), "red"), ((240, 120, 20), "orange"), ((250, 225, 40), "yellow"),
        ((50, 130, 45), "green"), ((30, 70, 170), "blue"), ((115, 45, 140), "purple"), ((240, 140, 175), "pink"),
    ],
)  # fmt: skip
def test_a_plain_colour_has_its_name(rgb, name):
    shares = colour_shares(np.array([rgb] * 3, np.uint8), np.ones(3))
    assert COLOURS[int(shares.argmax())] == name
    assert shares.max() > 0.5


def test_shares_follow_the_weights():
    pixels = np.array([(0, 0, 0), (255, 255, 255)], np.uint8)
    black, white = (colour_shares(pixels[[k]], np.ones(1)) for k in range(2))
    assert colour_shares(pixels, np.array([3.0, 1.0])) == pytest.approx(0.75 * black + 0.25 * white)
    assert colour_shares(pixels, np.zeros(2)) == pytest.approx(np.full(len(COLOURS), 1 / len(COLOURS)))


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=8))
def test_shares_sum_to_1(pixels):
    shares = colour_shares(np.array(pixels, np.uint8), np.arange(1.0, len(pixels) + 1))
    assert shares.sum() == pytest.approx(1)
    assert (shares >= 0).all()


def test_other_words_for_a_colour():
    assert colour_name("grey") == "gray"
    assert colour_name("red") == "red"
    assert colour_name("wooden") is None
