"""The alignment of a caption with one reference that METEOR scores: who matches whom, in how many chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from unrolled.metrics.meteor.resources import LONGEST, Resources

#: The kinds of matches, from the surest on.
EXACT, STEM, SYNONYM, PARAPHRASE = range(4)
#: How much a matched word of each kind counts in the search. The weights of the score are others.
_COUNTS = (1.0, 0.5, 0.5, 0.5)
#: Partial alignments that survive a step of the search.
_BEAM = 40


class Match(NamedTuple):
    """A phrase of the reference, `[start, start + length)`, and one of the hypothesis, `[at, at + width)`."""

    kind: int
    start: int
    length: int
    at: int
    width: int


class _Path(NamedTuple):
    """A partial alignment of the first words of the reference.

    ours, theirs: what the matched words of the hypothesis and of the reference count. end: where the last match ends in
    the hypothesis, or -1 if the reference's last word has no match. used, used_reference: bits of the words that belong
    to a match. matches: the matches, with those before them.
    """

    ours: int
    theirs: int
    chunks: int
    distance: int
    end: int
    used: int
    used_reference: int
    matches: tuple[Match, object] | None


def align(hypothesis: Sequence[str], reference: Sequence[str], resources: Resources) -> tuple[list[Match], int]:
    """Return the matches of the best alignment and the number of chunks that they form.

    The best alignment covers most words, then has the fewest chunks, then the smallest sum of distances. It is found by
    a beam search along the reference. It is the alignment of METEOR's program, whose search has two properties that
    one would not expect: what a match of two words by less than equality counts is rounded down, word by word, so that
    a single stem or synonym counts nothing; and a match's distance is added to the alternatives that come after it.
    """
    found = _matches(hypothesis, reference, resources)
    fixed = _unambiguous(found, len(hypothesis), len(reference))
    used = used_reference = 0
    for match in fixed.values():
        used |= _bits(match.at, match.width)
        used_reference |= _bits(match.start, match.length)
    paths = [_Path(0, 0, 0, 0, -1, used, used_reference, None)]
    for index in range(len(reference)):
        paths.sort(key=_rank)
        paths = _extend(paths[:_BEAM], index, found[index], fixed.get(index))
    paths.sort(key=_rank)
    ended = [path._replace(chunks=path.chunks + (path.end != -1)) for path in paths[:_BEAM]]
    best = min(ended, key=_rank)
    matches = []
    chain: object = best.matches
    while isinstance(chain, tuple):
        match, chain = chain
        matches.append(match)
    return matches[::-1], best.chunks


def _rank(path: _Path) -> tuple[int, int, int]:
    return -path.ours - path.theirs, path.chunks, path.distance


def _bits(start: int, length: int) -> int:
    return ((1 << length) - 1) << start


def _extend(paths: list[_Path], index: int, found: list[Match], fixed: Match | None) -> list[_Path]:
    """Return the paths after one more word of the reference."""
    longer = []
    for path in paths:
        if fixed is not None:
            distance = path.distance + abs(fixed.start - fixed.at)
            longer.append(_with(path, fixed, distance, path.used, path.used_reference))
            continue
        if path.used_reference >> index & 1:  # it belongs to a longer match
            longer.append(path)
            continue
        distance = path.distance
        for match in found:
            ours, theirs = _bits(match.at, match.width), _bits(match.start, match.length)
            if not (path.used & ours or path.used_reference & theirs):
                longer.append(_with(path, match, distance, path.used | ours, path.used_reference | theirs))
                distance += abs(match.start - match.at)
        longer.append(path._replace(chunks=path.chunks + (path.end != -1), distance=distance, end=-1))
    return longer


def _with(path: _Path, match: Match, distance: int, used: int, used_reference: int) -> _Path:
    """Return the path with one more match."""
    count = _COUNTS[match.kind]
    return _Path(
        int(path.ours + match.width * count),
        int(path.theirs + match.length * count),
        path.chunks + (path.end not in (-1, match.at)),
        distance,
        match.at + match.width,
        used,
        used_reference,
        (match, path.matches),
    )


def _unambiguous(found: list[list[Match]], ours: int, theirs: int) -> dict[int, Match]:
    """Return the matches whose words are in no other match, by where they start in the reference."""
    covered, covered_reference = [0] * ours, [0] * theirs
    for match in (match for matches in found for match in matches):
        for index in range(match.at, match.at + match.width):
            covered[index] += 1
        for index in range(match.start, match.start + match.length):
            covered_reference[index] += 1
    return {
        start: match
        for start, matches in enumerate(found)
        for match in matches
        if sum(covered[match.at : match.at + match.width]) == match.width
        and sum(covered_reference[start : start + match.length]) == match.length
    }


def _matches(hypothesis: Sequence[str], reference: Sequence[str], resources: Resources) -> list[list[Match]]:
    """Return all possible matches by where they start in the reference, kind by kind."""
    found: list[list[Match]] = [[] for _ in reference]
    kinds = (EXACT,) if list(hypothesis) == list(reference) else (EXACT, STEM, SYNONYM)
    for kind in kinds:
        for start, theirs in enumerate(reference):
            for at, ours in enumerate(hypothesis):
                if _are_alike(kind, ours, theirs, resources):
                    found[start].append(Match(kind, start, 1, at, 1))
    if kinds == (EXACT,):
        return found
    for start, length, at, width in _paraphrases(reference, hypothesis, resources):
        found[start].append(Match(PARAPHRASE, start, length, at, width))
    for at, width, start, length in _paraphrases(hypothesis, reference, resources):
        found[start].append(Match(PARAPHRASE, start, length, at, width))
    return found


def _are_alike(kind: int, ours: str, theirs: str, resources: Resources) -> bool:
    """Whether two words match by `kind`. Equal words match by no other kind."""
    if ours == theirs or kind == EXACT:
        return ours == theirs and kind == EXACT
    if kind == STEM:
        return resources.stem(ours) == resources.stem(theirs)
    return not resources.senses(ours).isdisjoint(resources.senses(theirs))


def _paraphrases(one: Sequence[str], other: Sequence[str], resources: Resources) -> list[tuple[int, int, int, int]]:
    """Return where phrases of one text have a paraphrase in the other: start and length in each."""
    found = []
    for start in range(len(one)):
        for length in range(1, min(LONGEST, len(one) - start) + 1):
            for phrase in resources.paraphrases.get(tuple(one[start : start + length]), ()):
                found += [
                    (start, length, at, len(phrase))
                    for at in range(len(other) - len(phrase) + 1)
                    if tuple(other[at : at + len(phrase)]) == phrase
                ]
    return found
