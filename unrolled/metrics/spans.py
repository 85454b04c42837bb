"""Spans in tags: what IOB2 and BIOES mean, which tags they allow after one another, and precision, recall and F1.

A span counts as found only if its type and both of its ends are right, and only if its tags obey the scheme, as in the
strict mode of `seqeval` and the script of the CoNLL shared tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Scheme = Literal["iob2", "bioes"]
#: Type, first word, word after the last.
Span = tuple[str, int, int]
_PREFIXES: dict[Scheme, str] = {"iob2": "BI", "bioes": "BIES"}


def split_tag(tag: str) -> tuple[str, str]:
    """Return the prefix and the type of a tag: `("B", "PER")` for `B-PER`, `("O", "")` for `O`."""
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def scheme_of(tags: Iterable[str]) -> Scheme | None:
    """Return the scheme of a set of tags; None if they do not mark spans."""
    tags = set(tags)
    if not tags - {"O"}:
        return None
    for scheme, prefixes in _PREFIXES.items():
        if all(tag == "O" or (tag[:1] in tuple(prefixes) and tag[1:2] == "-" and tag[2:]) for tag in tags):
            return scheme
    return None


def may_follow(before: str | None, after: str | None, scheme: Scheme) -> bool:
    """Return whether a scheme allows a tag after another; None stands for the start and the end of a sentence."""
    prefix, kind = split_tag(before or "O")
    following, its = split_tag(after or "O")
    opened = prefix in ("B", "I")  # the span goes on, or, in IOB2, may go on
    if following in ("I", "E"):
        return opened and kind == its
    return not opened or scheme == "iob2"


def is_valid(tags: Sequence[str], scheme: Scheme) -> bool:
    """Return whether a sentence's tags obey the scheme."""
    return all(may_follow(one, other, scheme) for one, other in zip([None, *tags], [*tags, None], strict=True))


def from_iob1(tags: Sequence[str]) -> list[str]:
    """Return IOB1 tags, where a span starts with I unless one of its type ends before it, as IOB2."""
    found: list[str] = []
    for place, tag in enumerate(tags):
        prefix, kind = split_tag(tag)
        before = split_tag(tags[place - 1]) if place else ("O", "")
        starts = prefix == "I" and (before[0] == "O" or before[1] != kind)
        found.append(f"B-{kind}" if starts else tag)
    return found


def spans(tags: Sequence[str], scheme: Scheme) -> list[Span]:
    """Return the spans of a sentence; tags that break the scheme belong to none."""
    found: list[Span] = []
    start, kind = -1, ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, its = split_tag(tag)
        if start >= 0 and scheme == "iob2" and (prefix != "I" or its != kind):
            found.append((kind, start, place))
            start = -1
        if scheme == "bioes" and start >= 0 and (prefix not in ("I", "E") or its != kind):
            start = -1
        if prefix == "B":
            start, kind = place, its
        elif prefix == "S" and scheme == "bioes":
            found.append((its, place, place + 1))
        elif prefix == "E" and scheme == "bioes" and start >= 0:
            found.append((kind, start, place + 1))
            start = -1
    return found


@dataclass(frozen=True)
class SpanScore:
    """Counts of spans: in the reference, predicted, and both."""

    wanted: int = 0
    found: int = 0
    right: int = 0

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.wanted if self.wanted else 0.0

    @property
    def f1(self) -> float:
        total = self.wanted + self.found
        return 2 * self.right / total if total else 0.0


def score_spans(
    wanted: Sequence[Sequence[str]], found: Sequence[Sequence[str]], scheme: Scheme
) -> tuple[SpanScore, dict[str, SpanScore]]:
    """Return the score over all spans of all sentences, and that of each type by name."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("wanted", "found", "right")}
    for one, other in zip(wanted, found, strict=True):
        ours, theirs = set(spans(one, scheme)), set(spans(other, scheme))
        for name, some in (("wanted", ours), ("found", theirs), ("right", ours & theirs)):
            counts[name].update(kind for kind, _, _ in some)
    kinds = sorted(counts["wanted"] | counts["found"])
    each = {kind: SpanScore(**{name: count[kind] for name, count in counts.items()}) for kind in kinds}
    return SpanScore(**{name: sum(count.values()) for name, count in counts.items()}), each
