"""BLEU and ROUGE-L of captions: known values, COCO's own scorer where it is installed, and what holds for all captions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.metrics.overlap import bleu, bleu_statistics, rouge_l

tokens = st.lists(st.sampled_from("abcd"), max_size=9)
references = st.lists(tokens, min_size=1, max_size=4)
cases = st.lists(st.tuples(tokens, references), min_size=1, max_size=5)


def test_counts_of_a_caption():
    hypothesis, wanted = ["the", "the", "the", "cat"], [["the", "cat"], ["the", "cat", "sat", "on", "the", "mat"]]
    # `the` occurs at most twice in a reference; `the cat` once; both references are 2 tokens away, so the shorter.
    assert bleu_statistics(hypothesis, wanted) == [3, 1, 0, 0, 4, 3, 2, 1, 4, 2]


def test_precisions_and_the_penalty_on_brevity():
    wanted = [["a", "b", "c", "d", "e", "f"]]
    found = bleu(np.array(bleu_statistics(["a", "b", "c", "x"], wanted), dtype=float))
    penalty = math.exp(1 - 6 / 4)
    assert found[:3] == pytest.approx(
        [penalty * 3 / 4, penalty * (3 / 4 * 2 / 3) ** (1 / 2), penalty * (3 / 4 * 2 / 3 * 1 / 2) ** (1 / 3)]
    )
    assert found[3] == pytest.approx(0, abs=1e-3)


def test_rouge_takes_the_best_precision_and_the_best_recall():
    # Subsequences `a c` of 3 and 4 tokens, and `b` of 3 and 1.
    wanted = [["a", "x", "c", "y"], ["b"]]
    precision, recall = 2 / 3, 1
    expected = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    assert rouge_l(["a", "b", "c"], wanted) == pytest.approx(expected)


def test_captions_without_words():
    assert rouge_l([], [["a"]]) == 0
    assert rouge_l(["a"], [[]]) == 0
    assert bleu(np.array(bleu_statistics([], [["a"]]), dtype=float)).max() == 0


@given(st.lists(st.sampled_from("abcd"), min_size=4, max_size=9), references)
def test_a_caption_equal_to_a_reference_scores_one(caption, others):
    wanted = [*others, caption]
    assert bleu(np.array(bleu_statistics(caption, wanted), dtype=float)) == pytest.approx(np.ones(4))
    assert rouge_l(caption, wanted) == pytest.approx(1)


@given(tokens, references)
def test_the_order_of_references_is_irrelevant(hypothesis, wanted):
    assert bleu_statistics(hypothesis, wanted) == bleu_statistics(hypothesis, wanted[::-1])
    assert rouge_l(hypothesis, wanted) == rouge_l(hypothesis, wanted[::-1])


@given(cases)
def test_scores_equal_those_of_the_scorer_of_coco(cases):
    reason = "needs the package pycocoevalcap"
    their_bleu = pytest.importorskip("pycocoevalcap.bleu.bleu", reason=reason).Bleu(4)
    their_rouge = pytest.importorskip("pycocoevalcap.rouge.rouge", reason=reason).Rouge()
    wanted = {index: [" ".join(each) for each in some] for index, (_, some) in enumerate(cases)}
    found = {index: [" ".join(each)] for index, (each, _) in enumerate(cases)}
    total, alone = their_bleu.compute_score(wanted, found, verbose=0)
    statistics = np.array([bleu_statistics(*case) for case in cases], dtype=float)
    np.testing.assert_allclose(bleu(statistics), np.transpose(alone), atol=1e-9)
    np.testing.assert_allclose(bleu(statistics.sum(0)), total, atol=1e-9)
    ours = [rouge_l(*case) for case in cases]
    np.testing.assert_allclose(ours, their_rouge.compute_score(wanted, found)[1], atol=1e-9)
