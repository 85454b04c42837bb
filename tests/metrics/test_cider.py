"""CIDEr and CIDEr-D: known values, COCO's own scorer where it is installed, and what holds for all captions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.errors import ConfigurationError, DataError
from unrolled.metrics.cider import Cider, CiderD

tokens = st.lists(st.sampled_from("abcdef"), max_size=9)
long_tokens = st.lists(st.sampled_from("abcdef"), min_size=4, max_size=9)
references = st.lists(tokens, min_size=1, max_size=4)
OTHERS = [[["x", "y"]], [["z"]]]


def test_one_shared_word_of_two():
    metric = CiderD([[["a", "b"]], [["c", "d"]]])
    # Every n-gram has the weight ln 2. Of the unigrams one of two is shared: cos = 1/2. No bigram is.
    assert metric.score([["a", "c"]], [[["a", "b"]]]) == pytest.approx([10 * 0.5 / 4])


def test_a_repeated_word_is_clipped_and_the_length_is_penalised():
    documents = [[["a", "b"]], [["c", "d"]]]
    hypothesis, wanted = [["a", "a", "a", "a"]], [[["a", "b"]]]
    # Unigrams, in units of ln 2: (4, 0) and (1, 1). Three bigrams are longer than one by 2.
    clipped = 1 / (4 * math.sqrt(2)) * math.exp(-(2**2) / (2 * 6**2))
    assert CiderD(documents).score(hypothesis, wanted) == pytest.approx([10 * clipped / 4])
    assert Cider(documents).score(hypothesis, wanted) == pytest.approx([10 * 4 / (4 * math.sqrt(2)) / 4])


def test_a_word_of_every_picture_counts_nothing():
    metric = CiderD([[["a", "b"]], [["a", "c"]]])
    scores = metric.score([["a"], ["b"]], [[["a", "b"]], [["a", "b"]]])
    assert scores == pytest.approx([0, 10 / 4 * math.exp(-1 / 72)])  # one bigram more or less


@pytest.mark.parametrize("kind", [Cider, CiderD])
@given(found=st.lists(tokens, min_size=3, max_size=3), wanted=st.lists(references, min_size=3, max_size=3))
def test_the_order_of_references_is_irrelevant(kind, found, wanted):
    forwards = kind(wanted).score(found, wanted)
    backwards = kind([each[::-1] for each in wanted[::-1]]).score(found, [each[::-1] for each in wanted])
    assert backwards == pytest.approx(forwards)
    assert (forwards >= 0).all()
    assert (forwards <= 10 + 1e-9).all()


@given(long_tokens)
def test_a_caption_equal_to_its_reference_has_the_highest_score(caption):
    for kind in (Cider, CiderD):
        assert kind([[caption], *OTHERS]).score([caption], [[caption]]) == pytest.approx([10])


@given(st.lists(st.integers(0, 5), max_size=8), st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_the_end_counts_as_a_token(hypothesis, reference):
    documents = [[reference], [[6, 7]], [[8]]]
    closed = [[[*each, 99] for each in some] for some in documents]
    metric = CiderD(documents, end=99)
    wanted = CiderD(closed).score([[*hypothesis, 99]], [[[*reference, 99]]])
    assert metric.score([[*hypothesis, 99, 1, 99]], [[reference]]) == pytest.approx(wanted)
    unfinished = CiderD(closed).score([hypothesis], [[[*reference, 99]]])
    assert metric.score([hypothesis], [[reference]]) == pytest.approx(unfinished)


def test_a_caption_that_stops_in_the_right_place_is_rewarded():
    metric = CiderD([[["a", "dog"]], [["two", "cats"]]], end=".")
    ended, unfinished = metric.score([["a", "dog", "."], ["a", "dog"]], [[["a", "dog"]]] * 2)
    assert ended > unfinished


@given(found=st.lists(tokens, min_size=2, max_size=5), data=st.data())
def test_scores_equal_those_of_the_scorer_of_coco(found, data):
    scorer = pytest.importorskip("pycocoevalcap.cider.cider", reason="needs the package pycocoevalcap")
    wanted = data.draw(st.lists(references, min_size=len(found), max_size=len(found)))
    wanted[0][0] = ["a"]  # that scorer needs an n-gram
    theirs = scorer.Cider().compute_score(
        {index: [" ".join(each) for each in some] for index, some in enumerate(wanted)},
        {index: [" ".join(each)] for index, each in enumerate(found)},
    )[1]
    np.testing.assert_allclose(CiderD(wanted).score(found, wanted), theirs, atol=1e-9)


def test_one_picture_has_no_document_frequencies():
    with pytest.raises(ConfigurationError, match="at least 2 pictures"):
        CiderD([[["a"]]])


def test_what_does_not_belong_together():
    metric = CiderD([[["a"]], [["b"]]])
    with pytest.raises(DataError, match="1 hypotheses for 2"):
        metric.score([["a"]], [[["a"]], [["b"]]])
    with pytest.raises(DataError, match="hypothesis 2 has no reference"):
        metric.score([["a"], ["b"]], [[["a"]], []])
