"""Spans of IOB2 and BIOES, as the strict mode of `seqeval` finds them."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.metrics.spans import from_iob1, is_valid, may_follow, scheme_of, score_spans, spans

TAGS = {
    "iob2": ["O", "B-X", "I-X", "B-Y", "I-Y"],
    "bioes": ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in "XY")],
}


def marked(length, found, scheme):
    """The tags of these spans, which do not overlap, in a sentence of that length."""
    tags = ["O"] * length
    for kind, first, end in found:
        for place in range(first, end):
            prefix = "B" if place == first else "I"
            if scheme == "bioes" and place == end - 1:
                prefix = "S" if place == first else "E"
            tags[place] = f"{prefix}-{kind}"
    return tags


@pytest.mark.parametrize("scheme", TAGS)
@settings(deadline=None)
@given(cuts=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.sampled_from("XY")), max_size=5))
def test_spans_are_found_again(scheme, cuts):
    found, place = [], 0
    for gap, length, kind in cuts:
        found.append((kind, place + gap, place + gap + length))
        place += gap + length
    tags = marked(place + 1, found, scheme)
    assert spans(tags, scheme) == found
    assert is_valid(tags, scheme)


@pytest.mark.parametrize("scheme", TAGS)
def test_what_is_valid_is_what_some_spans_are_marked_as(scheme):
    """Of all sentences of three tags: those that obey the scheme are those that their own spans give again."""
    for tags in product(TAGS[scheme], repeat=3):
        assert is_valid(tags, scheme) == (marked(3, spans(tags, scheme), scheme) == list(tags))


@pytest.mark.parametrize(
    ("tags", "scheme", "found"),
    [
        ("I-X I-X O", "iob2", []),
        ("O I-X B-X", "iob2", [("X", 2, 3)]),
        ("B-X I-Y I-X", "iob2", [("X", 0, 1)]),
        ("B-X B-X I-X", "iob2", [("X", 0, 1), ("X", 1, 3)]),
        ("B-X I-X O", "bioes", []),
        ("B-X O E-X", "bioes", []),
        ("B-X E-Y S-Y", "bioes", [("Y", 2, 3)]),
        ("E-X S-X B-X E-X", "bioes", [("X", 1, 2), ("X", 2, 4)]),
    ],
)
def test_broken_tags_belong_to_no_span(tags, scheme, found):
    assert spans(tags.split(), scheme) == found


def test_schemes():
    assert scheme_of(["O", "B-PER", "I-PER"]) == "iob2"
    assert scheme_of(["O", "B-PER", "I-PER", "E-PER", "S-PER"]) == "bioes"
    assert scheme_of(["NOUN", "VERB"]) is None
    assert scheme_of(["O", "B", "I"]) is None
    assert scheme_of(["O"]) is None
    assert scheme_of(["B-X", "I-X"]) == "iob2"
    assert scheme_of(["O", "B-X", "b-y"]) is None
    assert scheme_of(["O", "-LRB-"]) is None
    assert spans(["B-X", "-LRB-", "", "IE-x"], "iob2") == [("X", 0, 1)]


def test_the_rules():
    assert may_follow(None, "B-X", "iob2")
    assert not may_follow(None, "I-X", "iob2")
    assert not may_follow("B-X", "I-Y", "iob2")
    assert may_follow("I-X", None, "iob2")
    assert not may_follow("B-X", None, "bioes")
    assert not may_follow("E-X", "I-X", "bioes")


def test_iob1_becomes_iob2():
    tags = ["I-X", "I-X", "B-X", "O", "I-Y", "I-X"]
    assert from_iob1(tags) == ["B-X", "I-X", "B-X", "O", "B-Y", "B-X"]
    assert is_valid(from_iob1(tags), "iob2")


def test_scores():
    wanted = [["B-X", "I-X", "O", "B-Y"], ["B-X", "O", "O"]]
    found = [["B-X", "I-X", "O", "B-X"], ["O", "O", "O"]]
    total, each = score_spans(wanted, found, "iob2")
    assert (total.wanted, total.found, total.right) == (3, 2, 1)
    assert total.precision == 1 / 2
    assert total.recall == 1 / 3
    assert total.f1 == pytest.approx(0.4)
    assert each["Y"].f1 == 0
    assert each["X"].f1 == 0.5
