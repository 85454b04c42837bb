"""Scores of segments: small cases by hand, and a direct definition on random ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.metrics.test_transcripts import distance
from unrolled.errors import DataError
from unrolled.metrics.segments import Segment, edit_score, matches, score_segments, segments_of

LABELS = st.lists(st.sampled_from("abc"), min_size=1, max_size=25)


def test_segments():
    assert segments_of("aabcc") == [Segment("a", 0, 2), Segment("b", 2, 3), Segment("c", 3, 5)]
    assert segments_of("aabcc", "b") == [Segment("a", 0, 2), Segment("c", 3, 5)]
    assert segments_of("") == []


def test_by_hand():
    score = score_segments(["aaaabbbbcc"], ["aaabbbbccc"])
    assert score.accuracy == 0.8
    assert score.edit == 1
    assert score.f1 == {10: 1, 25: 1, 50: 1}
    split = score_segments(["aaaaaaaaaa"], ["aaaaabaaaa"])  # a: 5 of 10 frames overlap, and 4 of 10
    assert split.accuracy == 0.9
    assert split.edit == pytest.approx(1 - 2 / 3)
    assert split.f1 == {10: pytest.approx(0.5), 25: pytest.approx(0.5), 50: pytest.approx(0.5)}
    late = score_segments(["aaaabbbb"], ["aabbbbbb"])
    assert late.f1[50] == 1
    assert score_segments(["aaaabbbb"], ["abbbbbbb"]).f1[50] == 0.5  # a: a quarter
    assert score_segments(["xxab"], ["xbab"], "x").segments == 2


def test_lengths_must_fit():
    with pytest.raises(DataError, match="as many labels"):
        score_segments(["ab"], ["a"])
    empty = score_segments([], [])
    assert (empty.frames, empty.accuracy) == (0, 0)


@given(LABELS, st.data())
def test_a_direct_definition(wanted, data):
    found = data.draw(st.lists(st.sampled_from("abc"), min_size=len(wanted), max_size=len(wanted)))
    first, second = segments_of(wanted), segments_of(found)
    assert "".join(one.label * (one.end - one.first) for one in first) == "".join(wanted)
    labels = [[one.label for one in each] for each in (first, second)]
    assert edit_score(first, second) == pytest.approx(1 - distance(*labels) / max(map(len, labels)))
    for overlap in (0.1, 0.5, 0.9):
        count = matches(first, second, overlap)
        shares = [[len(common(a, b)) / len(union(a, b)) if a.label == b.label else 0 for b in first] for a in second]
        assert count <= min(len(first), len(second))
        assert count == len({row.index(max(row)) for row in shares if max(row) >= overlap})
    same = score_segments([wanted], [wanted])
    assert same.accuracy == same.edit == same.f1[50] == 1


def common(a, b):
    return set(range(a.first, a.end)) & set(range(b.first, b.end))


def union(a, b):
    return set(range(a.first, a.end)) | set(range(b.first, b.end))
