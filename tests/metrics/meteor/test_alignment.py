"""Alignments: which words match, and what holds for every alignment."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.metrics.meteor.small import small_resources
from unrolled.metrics.meteor.alignment import EXACT, PARAPHRASE, STEM, SYNONYM, Match, align

texts = st.lists(
    st.sampled_from(["a", "big", "large", "dog", "dogs", "mouse", "rodent", "in", "front", "of", "before"]), max_size=9
)


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    found = small_resources(tmp_path_factory.mktemp("meteor"))
    found.prepare([["in", "front", "of"]], [["before"]])
    return found


def test_every_kind_of_match(resources):
    hypothesis = ["a", "big", "dog", "stands", "in", "front", "of", "mice"]
    matches, chunks = align(hypothesis, ["a", "large", "dogs", "before", "rodent"], resources)
    assert matches == [
        Match(EXACT, 0, 1, 0, 1),
        Match(SYNONYM, 1, 1, 1, 1),
        Match(STEM, 2, 1, 2, 1),
        Match(PARAPHRASE, 3, 1, 4, 3),
        Match(SYNONYM, 4, 1, 7, 1),
    ]
    assert chunks == 2


def test_among_equal_words_those_with_fewest_chunks_are_matched(resources):
    matches, chunks = align(["the", "dog", "and", "a", "dog", "sleep"], ["a", "dog", "sleep"], resources)
    assert [match.at for match in matches] == [3, 4, 5]
    assert chunks == 1


@given(hypothesis=texts, reference=texts)
def test_an_alignment_is_one_to_one_and_its_chunks_are_counted(resources, hypothesis, reference):
    matches, chunks = align(hypothesis, reference, resources)
    ours = [index for match in matches for index in range(match.at, match.at + match.width)]
    theirs = [index for match in matches for index in range(match.start, match.start + match.length)]
    assert len(set(ours)) == len(ours)
    assert sorted(set(theirs)) == theirs
    breaks = sum(
        (first.start + first.length, first.at + first.width) != (second.start, second.at)
        for first, second in pairwise(matches)
    )
    assert chunks == (breaks + 1 if matches else 0)


@given(hypothesis=st.lists(st.sampled_from("xyz"), max_size=6), reference=st.lists(st.sampled_from("xyz"), max_size=6))
def test_all_equal_words_are_matched(resources, hypothesis, reference):
    matches, _ = align(hypothesis, reference, resources)
    assert len(matches) == (Counter(hypothesis) & Counter(reference)).total()
    assert all(hypothesis[match.at] == reference[match.start] for match in matches)
