"""Captions of similar pictures, and the consensus among them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.metrics.cider import Cider
from unrolled.tasks.caption_baselines import NearestNeighbours, Typicality, consensus, constant_caption

words = st.sampled_from("abcde")
captions = st.lists(words, min_size=1, max_size=6).map(tuple)
pictures = st.lists(st.lists(captions, min_size=1, max_size=3), min_size=2, max_size=5)


@settings(max_examples=100, deadline=None)
@given(pictures)
def test_similarities_are_those_of_cider(given_pictures: list) -> None:
    """CIDEr without clipping, of one caption against one other, is ten times the similarity."""
    every = [caption for some in given_pictures for caption in some]
    found = Typicality(given_pictures).similarities(np.arange(len(every)))
    cider = Cider(given_pictures)
    wanted = [[cider.score([one], [[other]])[0] / 10 for other in every] for one in every]
    others = ~np.eye(len(every), dtype=bool)  # of a caption and itself, n-grams that no other has are left out
    np.testing.assert_allclose(found[others], np.array(wanted)[others], atol=1e-5)


def test_the_consensus_is_most_similar_to_its_nearest() -> None:
    similarities = np.array([[9.0, 0.9, 0.0, 0.0], [0.9, 9.0, 0.2, 0.2], [0.0, 0.2, 9.0, 0.8], [0.0, 0.2, 0.8, 9.0]])
    assert consensus(similarities, 1) == 0
    assert consensus(similarities, 3) == 1
    assert consensus(np.ones((1, 1))) == 0


def test_neighbours_give_their_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unrolled.tasks.caption_baselines.NEIGHBOURS", 2)
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    known = [
        [("a", "dog", "runs"), ("a", "ball")],
        [("a", "dog", "runs", "fast")],
        [("the", "sea")],
        [("the", "sea", "shines")],
    ]
    neighbours = NearestNeighbours(vectors, known)
    assert neighbours.describe(np.array([[2.0, 0.1]])) == [("a", "dog", "runs")]
    assert neighbours.describe(np.array([[0.0, 0.5]]))[0][:2] == ("the", "sea")


def test_the_constant_caption_is_typical() -> None:
    known = [[("a", "dog", "runs")], [("a", "dog", "sits")], [("a", "dog", "runs", "home")], [("the", "sea")]]
    assert constant_caption(known) == ("a", "dog", "runs")
