"""Missed and false detections, and wrong colours."""

import pytest

from unrolled.data.boxes import Box
from unrolled.data.object_statistics import ObjectStatistics
from unrolled.data.object_words import ObjectWords
from unrolled.errors import DataError
from unrolled.models.word_detector import WordDetector
from unrolled.tasks.template_detector import Detection, ObjectDetector
from unrolled.tasks.template_faults import FaultRates, WrongColour, false, fault_rates, missed, wrong_colours

LABELS = ("man", "player", "dog", "ball", "cat")
WORDS = ObjectWords({label: label for label in LABELS} | {"dogs": "dog"}, LABELS)
TRAINING = [["a player with a ball", "a man with a ball"]] * 10
STATISTICS = ObjectStatistics(WORDS, [[text.split() for text in some] for some in TRAINING])
DETECTOR = ObjectDetector(WordDetector(2, len(LABELS)), WORDS, STATISTICS)

CAPTIONS = ["A man plays with two brown dogs.", "A man and a white dog.", "A player kicks a ball.", "A dog, a ball."]


def detection(label, colour=""):
    return Detection(label, 0.9, Box(0, 0, 1, 1), 1, colour)


def test_missed_objects_are_those_of_two_captions():
    assert missed(DETECTOR, [], CAPTIONS) == ["dog", "man", "ball"]
    assert missed(DETECTOR, [detection("dog")], CAPTIONS) == ["man", "ball"]


def test_another_word_for_the_same_thing_is_no_fault():
    assert missed(DETECTOR, [detection("player")], CAPTIONS) == ["dog", "ball"]
    assert false(DETECTOR, [detection("player")], ["A man."]) == []


def test_false_objects_are_those_of_no_caption():
    cat = detection("cat")
    assert false(DETECTOR, [detection("dog"), cat, detection("ball")], CAPTIONS) == [cat]


def test_wrong_colours_are_those_of_no_caption():
    assert wrong_colours(DETECTOR, [detection("dog", "brown")], CAPTIONS) == []
    black = detection("dog", "black")
    assert wrong_colours(DETECTOR, [black], CAPTIONS) == [WrongColour(black, ("brown", "white"))]
    assert wrong_colours(DETECTOR, [detection("ball", "red"), detection("dog")], CAPTIONS) == []  # nobody says


def test_rates():
    found = fault_rates(
        DETECTOR, [[detection("dog", "black"), detection("cat")], [detection("dog", "white")]], [CAPTIONS, CAPTIONS]
    )
    assert found == FaultRates(mentioned=6, missed=4, detected=3, false=1, coloured=2, wrong_colours=1)
    assert (found.missed_rate, found.false_rate, found.wrong_colour_rate) == pytest.approx((2 / 3, 1 / 3, 0.5))
    assert fault_rates(DETECTOR, [], []).missed_rate == 0
    with pytest.raises(DataError, match="1 pictures and the captions of 2"):
        fault_rates(DETECTOR, [[]], [CAPTIONS, CAPTIONS])
