"""Scores of classes: accuracy, precision, recall and F1 of each class, their mean, and which classes are confused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unrolled.metrics.confusion import by_true
from unrolled.metrics.spans import SpanScore


class ClassScore(SpanScore):
    """Counts of one class: of items that have it, of items that were given it, and of both."""


@dataclass(frozen=True)
class ClassScores:
    """The scores over some items.

    accuracy: the share of items whose labels are all right, and which were given no others.
    each: the score of every class that an item has or was given. total: the sums of these counts.
    confusion: by the true class, how often each class was given; empty if items have several labels.
    """

    accuracy: float
    each: dict[str, ClassScore]
    total: ClassScore
    confusion: dict[str, dict[str, int]]

    @property
    def macro_f1(self) -> float:
        """The mean of the F1 of all classes."""
        return sum(score.f1 for score in self.each.values()) / len(self.each) if self.each else 0.0

    @property
    def micro_f1(self) -> float:
        """F1 over all labels together; for items with one label each it equals the accuracy."""
        return self.total.f1


def score_classes(wanted: Sequence[Iterable[str]], found: Sequence[Iterable[str]], multi: bool = False) -> ClassScores:
    """Return the scores of the labels `found` for items that have the labels `wanted`."""
    pairs = [(set(one), set(other)) for one, other in zip(wanted, found, strict=True)]
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("wanted", "found", "right")}
    for one, other in pairs:
        for name, labels in (("wanted", one), ("found", other), ("right", one & other)):
            counts[name].update(labels)
    classes = sorted(counts["wanted"] | counts["found"])
    each = {label: ClassScore(**{name: count[label] for name, count in counts.items()}) for label in classes}
    total = ClassScore(**{name: count.total() for name, count in counts.items()})
    confusion = {} if multi else by_true((true, given) for (true,), (given,) in pairs)
    accuracy = sum(one == other for one, other in pairs) / len(pairs) if pairs else 0.0
    return ClassScores(accuracy, each, total, confusion)
