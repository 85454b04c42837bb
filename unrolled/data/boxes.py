"""Boxes of objects in pictures, from files in the format of COCO's instances."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unrolled.data.lines import read_json
from unrolled.errors import DataError


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels: its left, top, right and bottom edges."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def centre(self) -> tuple[float, float]:
        """The middle, as x and y."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def shared(self, other: Box) -> float:
        """Return the area that two boxes share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)

    def around(self, other: Box) -> Box:
        """Return the smallest box around two."""
        left, top = min(self.left, other.left), min(self.top, other.top)
        return Box(left, top, max(self.right, other.right), max(self.bottom, other.bottom))


@dataclass(frozen=True)
class LabelledBox:
    """A box with the name of what is in it. score: how sure the detector was, 1 for a box drawn by hand."""

    label: str
    box: Box
    score: float = 1.0


def read_boxes(path: str | Path) -> dict[str, list[LabelledBox]]:
    """Return the boxes of each picture by its file name, from a file in COCO's format of instances.

    The file holds `images` with `id` and `file_name`, `categories` with `id` and `name`, and `annotations` with
    `image_id`, `category_id`, `bbox` (left, top, width, height in pixels) and maybe `score`. A picture without boxes
    has an empty list.

    Raises DataError if the file cannot be read or an annotation does not fit.
    """
    stored = read_json(path)
    known = "`images` with `id` and `file_name`, `categories` with `id` and `name`, and `annotations`"
    try:
        names = {one["id"]: str(one["file_name"]) for one in stored["images"]}
        labels = {one["id"]: str(one["name"]).lower() for one in stored["categories"]}
        annotations = list(stored["annotations"])
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: it must hold {known}, as COCO's instances do") from error
    found: dict[str, list[LabelledBox]] = {name: [] for name in names.values()}
    for number, one in enumerate(annotations, 1):
        try:
            found[names[one["image_id"]]].append(_labelled(labels, one))
        except (KeyError, TypeError, ValueError) as error:
            said = "needs a known `image_id`, a known `category_id` and a `bbox` of four numbers"
            raise DataError(f"{path}: annotation {number:,} {said}") from error
    return found


def _labelled(labels: dict[Any, str], one: Any) -> LabelledBox:
    left, top, width, height = (float(value) for value in one["bbox"])
    score = float(one.get("score", 1.0))
    if not all(map(math.isfinite, (left, top, width, height, score))) or width < 0 or height < 0:
        raise ValueError("not a rectangle")
    return LabelledBox(labels[one["category_id"]], Box(left, top, left + width, top + height), score)
