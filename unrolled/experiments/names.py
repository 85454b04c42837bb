"""Names that the help of the experiments' commands lists."""

from __future__ import annotations

#: Properties of drawn objects.
PROPERTIES = ("vertical", "horizontal", "rectangle", "ellipse")
#: Every object's `PROPERTIES`: whether it is long vertically and horizontally, and which outline it has.
OBJECTS: dict[str, tuple[int, int, int, int]] = {
    "small-square": (0, 0, 1, 0),
    "dot": (0, 0, 0, 1),
    "horizontal-rectangle": (0, 1, 1, 0),
    "horizontal-ellipse": (0, 1, 0, 1),
    "vertical-rectangle": (1, 0, 1, 0),
    "vertical-ellipse": (1, 0, 0, 1),
    "square": (1, 1, 1, 0),
    "circle": (1, 1, 0, 1),
}

#: Among the names of cells, this is the net without a memory.
PREVIOUS_INPUT = "previous-input"
