"""Where a map is high."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.data.boxes import Box
from unrolled.data.regions import connected, enlarged, grid_shape, map_boxes
from unrolled.errors import ShapeError


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_regions_are_those_of_spreading_numbers(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.6
    spread = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    for _ in range(mask.size):  # the lowest number of the neighbours, until nothing changes
        padded = np.pad(np.where(spread, spread, mask.size + 1), 1, constant_values=mask.size + 1)
        near = [padded[1:-1, 1:-1], padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
        spread = np.where(mask, np.min(near, axis=0), 0)
    numbers = np.unique(spread[mask])
    wanted = np.where(mask, np.searchsorted(numbers, spread) + 1, 0)
    assert (connected(mask) == wanted).all()


def test_enlarging_is_linear_between_the_middles():
    found = enlarged(np.array([[0.0, 1.0]]), 2, 8)
    assert found[0].tolist() == [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]
    assert (found[0] == found[1]).all()


@given(st.integers(1, 4), st.integers(1, 4), st.floats(-2, 2))
def test_a_constant_map_stays_constant(height, width, value):
    assert enlarged(np.full((height, width), value), 9, 5) == pytest.approx(np.full((9, 5), value))


def test_two_high_places_are_two_boxes():
    values = np.zeros((7, 7))
    values[1, 1], values[5, 4:6], values[1, 5] = 0.8, 1.0, 0.3
    found = map_boxes(values, 70, 140)
    assert len(found) == 2
    wide, small = found
    assert wide.left < 90 < 110 < wide.right
    assert wide.top < 55 < wide.bottom
    assert small.left < 30 < small.right
    assert small.top < 15 < small.bottom
    assert small.right < wide.left


def test_a_map_that_is_high_everywhere_is_the_whole_picture():
    assert map_boxes(np.full((3, 3), 0.7), 60, 90) == [Box(0, 0, 90, 60)]


def test_the_grid_must_be_square():
    assert grid_shape(49) == (7, 7)
    for positions in (0, 50):
        with pytest.raises(ShapeError, match=f"a grid of {positions} positions is not square"):
            grid_shape(positions)
