"""METEOR: values of its Java program, values by hand, and what holds for all captions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.metrics.meteor.small import small_resources
from unrolled.metrics.meteor import find_resources, meteor, meteor_statistics

texts = st.lists(
    st.sampled_from(["a", "the", "big", "large", "dog", "dogs", "mouse", "in", "front", "of", "before"]), max_size=8
)

#: Printed by `meteor-1.5.jar -l en -norm`.
PUBLISHED = [
    ("a dog runs on the beach", ["a dog runs on the beach"], 1.0),
    ("dogs running on a beach", ["a dog runs on the beach"], 0.33258538991824804),
    ("the beach on a dog runs", ["a dog runs on the beach"], 0.4776696620223255),
    ("a man with a man", ["a man holds a ball with a stick"], 0.19170688776815742),
    ("a t-shirt n't", ["a t shirt is n't red"], 0.3823020021630304),
    ("horse", ["two cats sleep"], 0.0),
    ("a dog and a dog and a cat", ["a cat and a dog"], 0.4619705312851165),
]
#: These need WordNet or the table of paraphrases.
WITH_DATA = [
    ("dogs running on a beach", ["a dog runs on the beach", "two dogs play"], 0.33939686512112605),
    ("a dog runs", ["two dogs ran", "the dog is running"], 0.2866017972133953),
    ("children play", ["a child plays football"], 0.2201011431777256),
    ("the man of the u.s. is on it", ["on the man of us it was"], 0.4006594198304605),
    ("a boy 's dog", ["a lad 's dog barks"], 0.24814008416744182),
    ("a big dog is in front of a house", ["there is a large dog before the house"], 0.40724489618523113),
]


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    found = small_resources(tmp_path_factory.mktemp("meteor"))
    found.prepare([["in", "front", "of"], ["before"]], [["in", "front", "of"], ["before"]])
    return found


def _score(hypothesis, references, resources):
    ours, theirs = resources.words(hypothesis), [resources.words(text) for text in references]
    return float(meteor(np.array(meteor_statistics(ours, theirs, resources), dtype=float)))


@pytest.mark.parametrize(("hypothesis", "references", "expected"), PUBLISHED)
def test_values_of_the_program(resources, hypothesis, references, expected):
    assert _score(hypothesis, references, resources) == pytest.approx(expected, abs=1e-9)


def test_values_of_the_program_with_its_data():
    data = find_resources()
    if data is None:
        pytest.skip("needs the packages pycocoevalcap and snowballstemmer")
    cases = [(data.words(text), [data.words(each) for each in wanted]) for text, wanted, _ in PUBLISHED + WITH_DATA]
    data.prepare([ours for ours, _ in cases], [each for _, wanted in cases for each in wanted])
    statistics = np.array([meteor_statistics(*case, data) for case in cases], dtype=float)
    assert meteor(statistics) == pytest.approx([value for *_, value in PUBLISHED + WITH_DATA], abs=1e-9)
    assert meteor(statistics.sum(0)) == pytest.approx(0.34600520249072975, abs=1e-9)


def test_content_words_and_one_fragment_by_hand(resources):
    # Precision 1/2, recall 1/3, and one chunk of one word.
    mean = 1 / (0.15 / (1 / 2) + 0.85 / (1 / 3))
    assert _score("dog x", ["dog y z"], resources) == pytest.approx(mean * (1 - 0.6))


def test_synonyms_and_paraphrases_by_hand(resources):
    assert _score("big dog", ["large dog"], resources) == pytest.approx(0.9)  # a synonym counts 0.8
    precision = (0.75 * (1 + 0.6) + 0.25 * (2 + 2 * 0.6)) / (0.75 * 2 + 0.25 * 4)
    recall = (0.75 * (1 + 0.6) + 0.25 * 2) / (0.75 * 2 + 0.25 * 2)
    for one, other, alpha in (("in front of", "before", 0.85), ("before", "in front of", 0.15)):
        expected = 1 / ((1 - alpha) / precision + alpha / recall)
        assert _score(f"a dog {one} it", [f"a dog {other} it"], resources) == pytest.approx(expected)


@given(caption=texts.filter(bool), others=st.lists(texts, max_size=3))
def test_a_caption_equal_to_a_reference_scores_one(resources, caption, others):
    statistics = meteor_statistics(caption, [*others, caption], resources)
    assert meteor(np.array(statistics, dtype=float)) == pytest.approx(1)


@given(hypothesis=texts, references=st.lists(texts, min_size=1, max_size=4))
def test_the_order_of_references_is_irrelevant(resources, hypothesis, references):
    forwards = meteor(np.array(meteor_statistics(hypothesis, references, resources), dtype=float))
    backwards = meteor(np.array(meteor_statistics(hypothesis, references[::-1], resources), dtype=float))
    assert forwards == pytest.approx(backwards)
    assert 0 <= forwards <= 1


def test_a_caption_without_words(resources):
    assert _score("", ["a dog"], resources) == 0
