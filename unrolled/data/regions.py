"""Regions of a map over a picture: where it is high, and the boxes around those places."""

from __future__ import annotations

import math

import numpy as np

from unrolled.data.boxes import Box
from unrolled.errors import ShapeError

#: The cells into which each position of a grid is divided, along each side.
_FINER = 8


def grid_shape(positions: int) -> tuple[int, int]:
    """Return the rows and columns of a square grid; ShapeError if the positions are not those of a square."""
    side = math.isqrt(positions)
    if side * side != positions or not side:
        raise ShapeError(f"a grid of {positions} positions is not square, so they have no places in a picture")
    return side, side


def enlarged(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a map `[H, W]` at `[height, width]`, linear between the middles of its cells and constant beyond."""
    rows, columns = (
        np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
        for size, count in zip((height, width), values.shape, strict=True)
    )
    top, left = rows.astype(int), columns.astype(int)
    bottom, right = np.minimum(top + 1, values.shape[0] - 1), np.minimum(left + 1, values.shape[1] - 1)
    down, across = (rows - top)[:, None], columns - left
    upper = values[top][:, left] * (1 - across) + values[top][:, right] * across
    lower = values[bottom][:, left] * (1 - across) + values[bottom][:, right] * across
    found: np.ndarray = upper * (1 - down) + lower * down
    return found


def connected(mask: np.ndarray) -> np.ndarray:
    """Return the number of the region of each cell of `mask [H, W]`: from 1 on, and 0 where it is False.

    Cells of a region touch along a side. The regions are numbered by their first cells, row by row.
    """
    found = np.zeros(mask.shape, np.int64)
    height, width = mask.shape
    count = 0
    for start in zip(*np.nonzero(mask), strict=True):
        if found[start]:
            continue
        count += 1
        found[start] = count
        waiting = [(int(start[0]), int(start[1]))]
        while waiting:
            row, column = waiting.pop()
            for y, x in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if 0 <= y < height and 0 <= x < width and mask[y, x] and not found[y, x]:
                    found[y, x] = count
                    waiting.append((y, x))
    return found


def map_boxes(values: np.ndarray, height: float, width: float, *, share: float = 0.5, least: float = 0.7) -> list[Box]:
    """Return the boxes around the regions in which a map `[H, W]` is high, the one with the highest sum first.

    height, width: the size of the picture. share: a region is where the map reaches this share of its highest value.
    least: the share of the highest value that the peak of a region after the first must reach.
    """
    fine = enlarged(values, values.shape[0] * _FINER, values.shape[1] * _FINER)
    regions = connected(fine >= share * fine.max())
    scale_y, scale_x = height / fine.shape[0], width / fine.shape[1]
    found = []
    for number in range(1, int(regions.max()) + 1):
        inside = regions == number
        if fine[inside].max() < least * fine.max():
            continue
        rows, columns = np.nonzero(inside)
        box = Box(
            float(columns.min() * scale_x), float(rows.min() * scale_y),
            float((columns.max() + 1) * scale_x), float((rows.max() + 1) * scale_y),
        )  # fmt: skip
        found.append((float(fine[inside].sum()), box))
    return [box for _, box in sorted(found, key=lambda one: -one[0])]
