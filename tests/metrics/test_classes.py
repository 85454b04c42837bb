"""Scores of classes, against their definitions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.metrics.classes import score_classes


def test_one_label_each():
    scores = score_classes([["a"], ["a"], ["b"], ["c"]], [["a"], ["b"], ["b"], ["b"]])
    assert scores.accuracy == 0.5 == scores.micro_f1
    assert scores.confusion == {"a": {"a": 1, "b": 1}, "b": {"b": 1}, "c": {"b": 1}}
    assert (scores.each["b"].precision, scores.each["b"].recall, scores.each["b"].f1) == (1 / 3, 1, 0.5)
    assert scores.macro_f1 == pytest.approx((2 / 3 + 0.5 + 0) / 3)


def test_several_labels():
    scores = score_classes([["a", "b"], [], ["a"]], [["a"], [], ["b"]], multi=True)
    assert scores.accuracy == pytest.approx(1 / 3)
    assert (scores.total.precision, scores.total.recall) == (0.5, 1 / 3)
    assert scores.micro_f1 == pytest.approx(0.4)
    assert scores.confusion == {}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=1))
def test_a_table_of_confusions_holds_all_counts(pairs):
    scores = score_classes([[one] for one, _ in pairs], [[other] for _, other in pairs])
    for one, other in pairs:
        assert scores.confusion[one][other] == pairs.count((one, other))
    for label, score in scores.each.items():
        right = pairs.count((label, label))
        wanted, found = (sum(pair[k] == label for pair in pairs) for k in (0, 1))
        assert (score.right, score.wanted, score.found) == (right, wanted, found)
    assert scores.micro_f1 == pytest.approx(scores.accuracy)
