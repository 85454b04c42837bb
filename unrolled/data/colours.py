"""The names of colours, and how much of each a part of a picture has."""

from __future__ import annotations

import numpy as np

#: Words for colours, each with some colours that are called so, as sRGB: lit and in the shade.
_REFERENCES = {
    "black": ((0, 0, 0), (30, 30, 32)),
    "white": ((255, 255, 255), (222, 222, 222)),
    "gray": ((128, 128, 128), (165, 165, 165), (92, 94, 98)),
    "brown": ((110, 70, 40), (75, 48, 30), (140, 95, 60)),
    "tan": ((205, 175, 130), (180, 150, 110)),
    "red": ((200, 25, 35), (130, 20, 30)),
    "orange": ((240, 125, 30), (205, 95, 25)),
    "yellow": ((245, 220, 50), (205, 180, 50)),
    "green": ((60, 140, 50), (45, 80, 35), (120, 150, 70)),
    "blue": ((40, 80, 180), (100, 150, 210), (25, 40, 90)),
    "purple": ((110, 50, 140), (150, 110, 180)),
    "pink": ((245, 150, 180), (220, 80, 140)),
}
COLOURS = tuple(_REFERENCES)
#: Other words for the same colours.
_SYNONYMS = {"grey": "gray", "beige": "tan", "blond": "yellow", "blonde": "yellow", "golden": "yellow"}
#: The difference in CIELAB at which a colour counts for e^(-1/2) of an exact match.
_TOLERANCE = 12.0
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = _TO_XYZ.sum(1)


def colour_name(word: str) -> str | None:
    """Return the colour in `COLOURS` that a word names, or None."""
    name = _SYNONYMS.get(word, word)
    return name if name in _REFERENCES else None


def to_lab(colours: np.ndarray) -> np.ndarray:
    """Return sRGB colours `[..., 3]`, from 0 to 255, in CIELAB under D65: L from 0 to 100, a and b."""
    share = np.asarray(colours, np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _WHITE
    bent = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(bent, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


_OWNER = np.array([k for k, some in enumerate(_REFERENCES.values()) for _ in some])
_LAB = to_lab(np.array([colour for some in _REFERENCES.values() for colour in some]))
#: Differences in lightness count less than those in hue, because of light and shade.
_SCALE = np.array([0.6, 1.0, 1.0])


def colour_shares(pixels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return how much of each of the `COLOURS` pixels have, `[12]`; the shares sum to 1.

    pixels: sRGB `[N, 3]`, from 0 to 255. weights: how much each counts, `[N]`, not negative. If all are 0, all shares
        are equal.
    """
    difference = ((to_lab(pixels)[:, None] - _LAB) * _SCALE / _TOLERANCE) ** 2
    distance = difference.sum(-1)
    nearest = np.stack([distance[:, k == _OWNER].min(1) for k in range(len(COLOURS))], 1)
    match = np.exp(-(nearest - nearest.min(1, keepdims=True)) / 2)
    match /= match.sum(1, keepdims=True)
    total = weights.sum()
    found: np.ndarray = weights @ match / total if total > 0 else np.full(len(COLOURS), 1 / len(COLOURS))
    return found
