"""Captions filled from detections."""

import numpy as np
import pytest
import torch

from unrolled.data.boxes import Box, LabelledBox
from unrolled.data.object_statistics import ObjectStatistics
from unrolled.data.object_words import ObjectWords
from unrolled.models.word_detector import WordDetector
from unrolled.tasks.template import describe, describe_boxes, fill_template, preposition
from unrolled.tasks.template_detector import Detection, ObjectDetector

LABELS = ("sky", "road", "sheep", "dog", "grass", "ball", "man")
WORDS = ObjectWords({label: label for label in LABELS} | {"dogs": "dog"}, LABELS)
CAPTIONS = [
    *[["a brown dog in the grass", "two dogs with a red ball"]] * 5,
    *[["a white sheep by a road", "a gray sky over the road"]] * 5,
    *[["a man with a ball"]] * 5,
    ["a man near a dog"], ["a man over a sheep"], ["a dog under a ball"],
]  # fmt: skip
STATISTICS = ObjectStatistics(WORDS, [[text.split() for text in some] for some in CAPTIONS])
SIZE = (100, 100)


def test_the_template_of_the_lectures():
    detections = [
        Detection("sky", 0.9, Box(0, 0, 100, 40), 1, "gray"),
        Detection("road", 0.8, Box(0, 60, 100, 100), 1, "gray"),
        Detection("sheep", 0.7, Box(60, 62, 80, 98), 1, "gray"),
    ]
    found = fill_template(detections, SIZE, STATISTICS)
    assert found.text == (
        "This is a picture of one sky, one road and one sheep. The gray sky is over the gray road. "
        "The gray sheep is by the gray road."
    )
    assert found.detections == tuple(detections)


def test_several_and_uncounted_objects():
    detections = [
        Detection("dog", 0.9, Box(20, 30, 60, 70), 2, "brown"),
        Detection("grass", 0.8, Box(0, 10, 100, 100), 1, "green"),
    ]
    found = fill_template(detections, SIZE, STATISTICS)
    assert found.text == "This is a picture of two dogs and grass. The two brown dogs are in the green grass."
    assert found.short == "two brown dogs in the grass"


def test_a_short_caption_begins_with_what_captions_begin_with():
    detections = [
        Detection("grass", 0.9, Box(0, 10, 100, 100)),
        Detection("ball", 0.8, Box(40, 40, 50, 50), 1, "red"),
        Detection("dog", 0.7, Box(20, 30, 60, 70), 1, "brown"),
    ]
    assert fill_template(detections, SIZE, STATISTICS).short == "a brown dog with a red ball in the grass"


@pytest.mark.parametrize(
    ("count", "text", "short"),
    [(1, "one dog. The dog is black.", "a black dog"), (12, "many dogs. The many dogs are black.", "many black dogs")],
)
def test_one_detection(count, text, short):
    found = fill_template([Detection("dog", 0.9, Box(0, 0, 9, 9), count, "black")], SIZE, STATISTICS)
    assert found.text == f"This is a picture of {text}"
    assert found.short == short


def test_nothing_detected():
    found = fill_template([], SIZE, STATISTICS)
    assert (found.text, found.short, found.detections) == ("This is a picture.", "a picture", ())


@pytest.mark.parametrize(
    ("first", "second", "word"),
    [
        (Box(20, 0, 60, 20), Box(20, 60, 60, 100), "over"),
        (Box(20, 70, 60, 100), Box(20, 0, 60, 30), "under"),
        (Box(0, 40, 20, 60), Box(70, 40, 90, 60), "near"),
    ],
)
def test_the_preposition_suits_the_boxes(first, second, word):
    # The captions have `near`, `over` and `under`, each once, and none between a man and a sheep that are far apart.
    texts = ["a man near a dog", "a man over a dog", "a man under a dog"]
    statistics = ObjectStatistics(WORDS, [[text.split()] for text in texts])
    found = preposition(Detection("man", 1, first), Detection("dog", 1, second), SIZE, statistics, spatial=True)
    assert found == word


def detector():
    """A detector of dogs and grass: each is a feature of a grid."""
    model = WordDetector(len(LABELS), len(LABELS))
    model.weight.data.copy_(20 * torch.eye(len(LABELS)))
    model.bias.data.fill_(-10)
    return ObjectDetector(model, WORDS, STATISTICS)


def test_a_picture_is_described():
    picture = np.full((90, 90, 3), (60, 140, 50), np.uint8)
    picture[30:60, 30:60] = (100, 66, 40)
    grid = np.zeros((9, len(LABELS)))
    grid[4, LABELS.index("dog")] = 1
    grid[:, LABELS.index("grass")] = 0.9
    found = describe(detector(), picture, grid)
    assert found.short == "a brown dog in the grass"
    assert [one.label for one in found.detections] == ["grass", "dog"]


def test_boxes_are_described():
    picture = np.full((100, 100, 3), (130, 130, 130), np.uint8)
    boxes = [LabelledBox("sheep", Box(60, 62, 80, 98)), LabelledBox("road", Box(0, 60, 100, 100))]
    found = describe_boxes(detector(), picture, boxes)
    assert found.text.startswith("This is a picture of one road and one sheep.")
    assert "sheep is by the" in found.text
    assert describe_boxes(detector(), picture, []).text == "This is a picture."
