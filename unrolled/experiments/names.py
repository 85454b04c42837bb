"""What the commands of experiments name in their help."""

from __future__ import annotations

#: Properties of drawn objects.
PROPERTIES = ("vertical", "horizontal", "rectangle", "ellipse")
#: Every object by its properties: whether it is long in one direction, and in the other, and which outline it has.
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

#: Stands among the cells for the net without a memory.
PREVIOUS_INPUT = "previous-input"
