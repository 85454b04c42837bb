"""All scores of a set of captions, their intervals and their report."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.metrics.meteor.small import small_resources
from unrolled.errors import DataError
from unrolled.metrics.captions import captions_report, score_captions

FOUND = ["A dog runs.", "two dogs run", "a man on a horse", "a dog runs"]
WANTED = [
    ["A dog is running.", "The dog runs"],
    ["Two dogs run on the beach"],
    ["A man rides a horse.", "a man on a horse"],
    ["A cat sleeps."],
]
words = st.lists(st.sampled_from(["a", "dog", "runs", "on", "the", "beach"]), min_size=4, max_size=8).map(" ".join)


def test_values_of_four_captions():
    scores = score_captions(FOUND, WANTED, resamples=0, with_meteor=False)
    # 3 + 3 + 5 + 1 of 14 words are in a reference; the closest references have 3 + 6 + 5 + 3 words.
    assert scores.bleu1.value == pytest.approx(12 / 14 * math.exp(1 - 17 / 14))
    assert scores.bleu4.captions == pytest.approx([0, 0, 1, 0], abs=0.02)
    for score in (scores.rouge_l, scores.cider, scores.cider_d):
        assert score.captions.shape == (4,)
        assert score.value == pytest.approx(score.captions.mean())
        assert score.interval is None
    assert scores.rouge_l.captions[2] == 1


def test_variety():
    scores = score_captions(FOUND, WANTED, ["A man on a horse .", "a cat"], with_meteor=False)
    assert scores.distinct == 3 / 4
    assert scores.words == 9
    assert scores.novel.value == 3 / 4
    assert score_captions(FOUND, WANTED, with_meteor=False).novel is None


def test_intervals_are_those_of_the_mean_and_do_not_vary():
    scores = score_captions(FOUND * 50, WANTED * 50, with_meteor=False)
    for score in (scores.rouge_l, scores.cider_d):
        expected = 1.96 * score.captions.std() / math.sqrt(200)
        assert score.interval == pytest.approx(expected, rel=0.1)
    assert scores.bleu4.interval > 0
    assert scores.bleu4.interval == score_captions(FOUND * 50, WANTED * 50, with_meteor=False).bleu4.interval


@given(st.lists(words, min_size=2, max_size=5, unique=True))
def test_captions_equal_to_their_references(captions):
    scores = score_captions(captions, [[each] for each in captions], captions, resamples=0, with_meteor=False)
    for score in (scores.bleu1, scores.bleu2, scores.bleu3, scores.bleu4, scores.rouge_l):
        assert score.value == pytest.approx(1)
    assert scores.novel.value == 0
    assert scores.distinct == 1


def test_one_picture_has_no_document_frequencies():
    scores = score_captions(["a dog"], [["a dog"]], with_meteor=False)
    assert (scores.cider.value, scores.cider_d.value) == (0, 0)
    assert scores.bleu2.value == pytest.approx(1)


def test_report():
    scores = score_captions(FOUND, WANTED, resamples=100, with_meteor=False)
    report = captions_report(scores, "flickr8k")
    table = str(report)
    assert report.headline.startswith("CIDEr-D")
    assert report.heading == "flickr8k: 4 captions"
    assert "distinct captions" in table
    assert "75.0%" in table
    assert "new captions" not in table
    assert f"{100 * scores.bleu4.value:.1f} ± {100 * scores.bleu4.interval:.1f}" in table
    found = report.json()
    assert found["cider_d"] == scores.cider_d.value
    assert found["cider_d_interval"] == scores.cider_d.interval
    assert "100 resamples" in " ".join(report.notes)


def test_meteor_is_absent_without_its_data(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    scores = score_captions(FOUND, WANTED, resamples=0)
    report = captions_report(scores, "flickr8k")
    assert scores.meteor is None
    assert "METEOR" not in str(report)
    assert "meteor" not in report.json()
    assert "no METEOR: pip install pycocoevalcap snowballstemmer" in report.notes


def test_meteor_of_captions(monkeypatch, tmp_path):
    resources = small_resources(tmp_path)
    monkeypatch.setattr("unrolled.metrics.captions.find_resources", lambda: resources)
    scores = score_captions(FOUND, WANTED, resamples=100)
    assert scores.meteor.captions[2] == 1
    assert 0 < scores.meteor.value < 1
    assert scores.meteor.interval > 0
    assert "METEOR" in str(captions_report(scores, "flickr8k"))
    assert score_captions(FOUND, WANTED, resamples=0, with_meteor=False).meteor is None


def test_captions_that_cannot_be_scored():
    with pytest.raises(DataError, match="1 captions for 2 pictures"):
        score_captions(["a"], [["a"], ["b"]])
    with pytest.raises(DataError, match="no captions"):
        score_captions([], [])
    with pytest.raises(DataError, match="picture 2 has no reference"):
        score_captions(["a", "b"], [["a"], []])
