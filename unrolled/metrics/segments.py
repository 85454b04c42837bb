"""Scores of a label for every frame: accuracy, and the edit score and F1 of segments.

Source: Lea et al. 2017, "Temporal Convolutional Networks for Action Segmentation and Detection".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import jiwer

from unrolled.errors import DataError

#: The overlaps at which a segment counts as found, in percent.
OVERLAPS = (10, 25, 50)


@dataclass(frozen=True)
class Segment:
    """Successive frames with the same label: from `first` to before `end`."""

    label: str
    first: int
    end: int


@dataclass(frozen=True)
class SegmentScore:
    """The scores of sequences.

    accuracy: the share of frames with the right label. edit: the mean over the sequences of 1 minus the edit distance
    between the segments' labels, divided by the larger number of segments. f1: by overlap in percent, see
    `score_segments`.
    """

    frames: int
    segments: int
    accuracy: float
    edit: float
    f1: dict[int, float]


def segments_of(labels: Sequence[str], background: str | None = None) -> list[Segment]:
    """Return the segments of a sequence, without those of the label `background`."""
    found, first = [], 0
    for label, frames in groupby(labels):
        end = first + sum(1 for _ in frames)
        if label != background:
            found.append(Segment(label, first, end))
        first = end
    return found


def edit_score(wanted: Sequence[Segment], found: Sequence[Segment]) -> float:
    """Return 1 minus the edit distance of the segments' labels, divided by the larger number of segments."""
    longest = max(len(wanted), len(found))
    if not wanted or not found:
        return float(not longest)
    number = {label: f"l{k}" for k, label in enumerate(dict.fromkeys(one.label for one in (*wanted, *found)))}
    first, second = (" ".join(number[one.label] for one in each) for each in (wanted, found))
    output = jiwer.process_words(first, second)
    return 1 - (output.substitutions + output.deletions + output.insertions) / longest


def matches(wanted: Sequence[Segment], found: Sequence[Segment], overlap: float) -> int:
    """Return how many segments are found.

    In their order, each is compared with the wanted segment of its label that it overlaps most. It counts if the
    intersection is at least `overlap` times the union, and no segment before it has found the same one.
    """
    taken: set[int] = set()
    for one in found:
        best, which = 0.0, -1
        for k, other in enumerate(wanted):
            common = min(one.end, other.end) - max(one.first, other.first)
            if other.label == one.label and common > 0:
                share = common / (max(one.end, other.end) - min(one.first, other.first))
                if share > best:
                    best, which = share, k
        if best >= overlap and which not in taken and which >= 0:
            taken.add(which)
    return len(taken)


def score_segments(
    wanted: Sequence[Sequence[str]], found: Sequence[Sequence[str]], background: str | None = None
) -> SegmentScore:
    """Compare the labels of all frames of sequences.

    The F1 at an overlap is that of the segments of all sequences together; see `matches`. Segments of `background`
    count neither for it nor for the edit score.
    Raises DataError if two sequences do not have the same length, or there are not as many of one as of the other.
    """
    if [len(one) for one in wanted] != [len(one) for one in found]:
        raise DataError("each sequence needs as many labels as it has frames")
    pairs = [
        (segments_of(one, background), segments_of(other, background)) for one, other in zip(wanted, found, strict=True)
    ]
    frames = sum(len(one) for one in wanted)
    right = sum(a == b for one, other in zip(wanted, found, strict=True) for a, b in zip(one, other, strict=True))
    edits = [edit_score(*pair) for pair in pairs]
    total = sum(len(one) + len(other) for one, other in pairs)
    f1 = {
        overlap: 2 * sum(matches(*pair, overlap / 100) for pair in pairs) / total if total else 1.0
        for overlap in OVERLAPS
    }
    return SegmentScore(
        frames,
        sum(len(one) for one, _ in pairs),
        right / frames if frames else 0.0,
        sum(edits) / len(edits) if edits else 0.0,
        f1,
    )
