"""Captions made from detections with a template, as before recurrent nets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from unrolled.data.boxes import LabelledBox
from unrolled.data.english import NUMBERS, SPATIAL
from unrolled.data.noun_forms import plural
from unrolled.data.object_statistics import ObjectStatistics
from unrolled.tasks.template_detector import Detection, ObjectDetector

#: How much a preposition that contradicts the boxes counts.
_CONTRARY = 0.05
#: The template has something in or on another if captions put it so at least this often.
_CONTAINED = 0.1
#: In a short caption an object has its colour if captions give it one this often.
_USUAL_COLOUR = 0.2
#: The most objects in a short caption.
_IN_SHORT = 3


@dataclass(frozen=True)
class TemplateCaption:
    """A caption from a template.

    text: all detections and where they are. short: some of them in one phrase, as people write captions.
    """

    text: str
    short: str
    detections: tuple[Detection, ...]


def describe(detector: ObjectDetector, picture: np.ndarray, grid: np.ndarray | Tensor) -> TemplateCaption:
    """Describe a picture `[H, W, 3]` uint8, given its grid of features `[P, C]`.

    Source of the template: Kulkarni et al. 2011, "Baby Talk". There too, the words that captions usually put between
    two objects and the places of the objects together decide on a preposition.
    """
    return fill_template(detector.detect(picture, grid), picture.shape[:2], detector.statistics)


def describe_boxes(detector: ObjectDetector, picture: np.ndarray, boxes: Sequence[LabelledBox]) -> TemplateCaption:
    """Describe a picture `[H, W, 3]` uint8 from given boxes, such as those of `read_boxes`."""
    return fill_template(detector.from_boxes(picture, boxes), picture.shape[:2], detector.statistics)


def fill_template(
    detections: Sequence[Detection], size: tuple[int, int], statistics: ObjectStatistics
) -> TemplateCaption:
    """Return the caption of detections in a picture of this height and width, the most probable detection first."""
    if not detections:
        return TemplateCaption("This is a picture.", "a picture", ())
    sentences = [f"This is a picture of {_listed([_counted(one, statistics) for one in detections])}."]
    for place in range(1, len(detections)):
        one = detections[place]
        other = max(detections[:place], key=lambda each: statistics.related(one.label, each.label))
        first, second = _ordered(one, other, statistics)
        word = preposition(first, second, size, statistics, spatial=True)
        verb = "is" if first.count == 1 else "are"
        sentences.append(f"{_definite(first).capitalize()} {verb} {word} {_definite(second)}.")
    if len(detections) == 1 and detections[0].colour:
        one = detections[0]
        verb = "is" if one.count == 1 else "are"
        sentences.append(f"{_definite(replace(one, colour='')).capitalize()} {verb} {one.colour}.")
    return TemplateCaption(" ".join(sentences), _short(detections, size, statistics), tuple(detections))


def preposition(
    first: Detection, second: Detection, size: tuple[int, int], statistics: ObjectStatistics, *, spatial: bool = False
) -> str:
    """Return the preposition between two detections that suits their boxes and the captions of training best.

    size: the height and the width of the picture. spatial: one of those that say where an object is.
    """
    usual = statistics.prepositions(first.label, second.label)
    known = {word: usual.get(word, 0.0) for word in SPATIAL} if spatial else usual
    fits = _fits(first, second, size)
    scores = {}
    for word, share in known.items():
        if spatial:  # the template is about the boxes, but only captions know what is in or on what
            share = max(share, 0.01) if word not in ("in", "on") else share if share >= _CONTAINED else 0.0
        scores[word] = math.log(share + 1e-4) + math.log(fits.get(word, 0.5))
    return max(scores, key=lambda word: scores[word]) if scores else "by"


def _fits(first: Detection, second: Detection, size: tuple[int, int]) -> dict[str, float]:
    """Return how well each spatial preposition suits two boxes, from `_CONTRARY` to 1."""
    height = size[0]
    a, b = first.box, second.box
    width = min(a.right, b.right) - max(a.left, b.left)
    aligned = min(1.0, max(0.0, width / max(1e-6, min(a.width, b.width))))
    lower = (b.centre[1] - a.centre[1]) / height  # by how much the second is below the first
    inside = a.shared(b) / max(1e-6, a.area)
    apart = 1 - a.shared(b) / max(1e-6, min(a.area, b.area))
    above = aligned * min(1.0, max(0.0, 0.5 + 3 * lower))
    below = aligned * min(1.0, max(0.0, 0.5 - 3 * lower))
    on = aligned * (1.0 if b.top - 0.1 * height <= a.bottom <= b.bottom + 0.1 * height else 0.0)
    nearer = min(1.0, max(0.0, 0.5 + 3 * (a.bottom - b.bottom) / height))
    found = {
        "above": above * apart, "below": below * apart, "on": on, "in": inside, "nearer": aligned * nearer,
        "farther": aligned * (1 - nearer),
        "side": 0.4 + 0.6 * apart,  # boxes of things side by side overlap, because the grid is coarse
    }  # fmt: skip
    return {word: max(_CONTRARY, min(1.0, found[kind])) for word, kind in SPATIAL.items()}


def _ordered(one: Detection, other: Detection, statistics: ObjectStatistics) -> tuple[Detection, Detection]:
    return (one, other) if statistics.is_first(one.label, other.label) else (other, one)


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _number(count: int) -> str:
    return NUMBERS[count - 1] if count <= len(NUMBERS) else "many"


def _counted(one: Detection, statistics: ObjectStatistics) -> str:
    if one.count > 1:
        return f"{_number(one.count)} {plural(one.label)}"
    return f"one {one.label}" if statistics.countable(one.label) else one.label


def _definite(one: Detection) -> str:
    words = ["the", *([_number(one.count)] if one.count > 1 else []), *([one.colour] if one.colour else [])]
    return " ".join([*words, one.label if one.count == 1 else plural(one.label)])


def _short(detections: Sequence[Detection], size: tuple[int, int], statistics: ObjectStatistics) -> str:
    """Return up to `_IN_SHORT` objects as one phrase: one that captions begin with, and what it has or where it is."""
    first = max(detections, key=lambda one: one.probability * (1 - statistics.second_share(one.label)))
    joined: list[tuple[str, Detection]] = []
    for one in detections:
        word = "" if one is first else preposition(first, one, size, statistics)
        # After the first, things that captions would rather begin with are left out, and so are prepositions said.
        if word and (not joined or (word != joined[0][0] and statistics.is_first(first.label, one.label))):
            joined.append((word, one))
        if len(joined) == _IN_SHORT - 1:
            break
    if len(joined) == 2 and _comes_first(joined[1], joined[0], statistics):
        joined.reverse()
    return " ".join(
        [_indefinite(first, statistics), *(f"{word} {_indefinite(one, statistics)}" for word, one in joined)]
    )


def _comes_first(one: tuple[str, Detection], other: tuple[str, Detection], statistics: ObjectStatistics) -> bool:
    """Return whether a preposition with its object comes before another: with a ball, and then in the snow."""
    return one[0] == "and" or (other[0] != "and" and statistics.is_first(one[1].label, other[1].label))


def _indefinite(one: Detection, statistics: ObjectStatistics) -> str:
    """Return a detection as captions mention it: with a number or their article, and with its colour if it is usual."""
    coloured = one.colour and statistics.coloured(one.label) >= _USUAL_COLOUR
    words = [one.colour] if coloured else []
    words.append(one.label if one.count == 1 else plural(one.label))
    if one.count > 1:
        return " ".join([_number(one.count), *words])
    article = statistics.article(one.label)
    if article == "a" and words[0][0] in "aeiou":
        article = "an"
    return " ".join([*([article] if article else []), *words])
