"""What is wrong with detections, by the captions that people wrote: missed and false objects, and wrong colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from unrolled.data.caption_tokens import caption_tokens
from unrolled.data.object_words import Mention
from unrolled.errors import DataError
from unrolled.tasks.template_detector import Detection, ObjectDetector

#: A picture has an object if at least this many of its captions mention it.
MENTIONED = 2


@dataclass(frozen=True)
class WrongColour:
    """A detection whose colour no caption gives to that object, and the colours that captions give it."""

    detection: Detection
    given: tuple[str, ...]


@dataclass(frozen=True)
class FaultRates:
    """The faults of the detections of some pictures, and of how many chances for one they are.

    mentioned: objects that at least `MENTIONED` captions of a picture mention. missed: those that were not detected.
    detected, false: detections, and those that no caption mentions. coloured, wrong_colours: detections whose colour
    can be checked against the captions, and those whose colour is none of theirs.
    """

    mentioned: int
    missed: int
    detected: int
    false: int
    coloured: int
    wrong_colours: int

    @property
    def missed_rate(self) -> float:
        return self.missed / max(1, self.mentioned)

    @property
    def false_rate(self) -> float:
        return self.false / max(1, self.detected)

    @property
    def wrong_colour_rate(self) -> float:
        return self.wrong_colours / max(1, self.coloured)


class Faults:
    """The faults of the detections of one picture, given its captions as text.

    An object counts as detected if a word for the same thing was, by the captions of training: a `player` as a `man`.
    """

    def __init__(self, detector: ObjectDetector, detections: Sequence[Detection], captions: Sequence[str]) -> None:
        self._detector, self._detections = detector, detections
        self._mentions: list[list[Mention]] = [detector.words.mentions(caption_tokens(text)) for text in captions]
        self._times = Counter(label for some in self._mentions for label in {one.label for one in some})

    def _same(self, one: str, other: str) -> bool:
        return self._detector.statistics.same(one, other)

    def mentioned(self) -> list[str]:
        """Return the objects that at least `MENTIONED` captions mention, the most frequent first."""
        return [label for label, times in self._times.most_common() if times >= MENTIONED]

    def missed(self) -> list[str]:
        """Return the objects that at least `MENTIONED` captions mention and that were not detected."""
        found = [one.label for one in self._detections]
        return [label for label in self.mentioned() if not any(self._same(label, other) for other in found)]

    def false(self) -> list[Detection]:
        """Return the detections that no caption mentions."""
        return [one for one in self._detections if not any(self._same(one.label, label) for label in self._times)]

    def coloured(self) -> list[tuple[Detection, tuple[str, ...]]]:
        """Return the detections with a colour, of which a caption mentions a colour, each with the colours there."""
        found = []
        for one in self._detections:
            colours = Counter(
                name for some in self._mentions for each in some if each.label == one.label for name in each.colours
            )
            if one.colour and colours:
                found.append((one, tuple(name for name, _ in colours.most_common())))
        return found

    def wrong_colours(self) -> list[WrongColour]:
        """Return the detections with a colour where captions mention other colours alone."""
        return [WrongColour(one, given) for one, given in self.coloured() if one.colour not in given]


def missed(detector: ObjectDetector, detections: Sequence[Detection], captions: Sequence[str]) -> list[str]:
    """Return the objects that at least `MENTIONED` captions of a picture mention and that were not detected."""
    return Faults(detector, detections, captions).missed()


def false(detector: ObjectDetector, detections: Sequence[Detection], captions: Sequence[str]) -> list[Detection]:
    """Return the detections that no caption of the picture mentions."""
    return Faults(detector, detections, captions).false()


def wrong_colours(
    detector: ObjectDetector, detections: Sequence[Detection], captions: Sequence[str]
) -> list[WrongColour]:
    """Return the detections whose colour is none of those that the captions of the picture give that object."""
    return Faults(detector, detections, captions).wrong_colours()


def fault_rates(
    detector: ObjectDetector, detections: Sequence[Sequence[Detection]], captions: Sequence[Sequence[str]]
) -> FaultRates:
    """Return the faults of the detections of many pictures, given the captions of each.

    Raises DataError if the numbers of both differ.
    """
    if len(detections) != len(captions):
        raise DataError(f"the detections of {len(detections):,} pictures and the captions of {len(captions):,}")
    every = [Faults(detector, *pair) for pair in zip(detections, captions, strict=True)]
    return FaultRates(
        mentioned=sum(len(one.mentioned()) for one in every),
        missed=sum(len(one.missed()) for one in every),
        detected=sum(len(some) for some in detections),
        false=sum(len(one.false()) for one in every),
        coloured=sum(len(one.coloured()) for one in every),
        wrong_colours=sum(len(one.wrong_colours()) for one in every),
    )
