"""Detectors that learn from captions of whole pictures, on grids with planted objects."""

import random

import numpy as np
import pytest

from unrolled.data.boxes import Box, LabelledBox
from unrolled.errors import DataError, RunError, ShapeError
from unrolled.tasks.template_detector import ObjectDetector, learn_detector

OBJECTS, SIDE, FEATURES = ("dog", "ball", "boy", "road"), 3, 8
#: The feature that is there with the dog's if there are two.
TWO = 7
#: Phrases in which each object stands, so that it is recognised as one.
PHRASES = {
    "dog": ("a brown dog is here", "a dog is running", "the black dog runs"),
    "ball": ("the red ball", "a ball", "there is a red ball"),
    "boy": ("a small boy is smiling", "the boy is here", "a boy is running"),
    "road": ("down the road", "on a road", "across the road"),
}


def planted(count=400, seed=0):
    """Return grids `[N, 9, 8]` in which each object is a direction at one position, captions, and the positions."""
    draw = random.Random(seed)
    grids = np.random.default_rng(seed).normal(0, 0.3, (count, SIDE * SIDE, FEATURES)).astype(np.float16)
    captions, places = [], []
    for row in range(count):
        there = draw.sample(OBJECTS, draw.randint(1, 2))
        where = dict(zip(there, draw.sample(range(SIDE * SIDE), len(there)), strict=True))
        several = draw.random() < 0.4
        for name, place in where.items():
            grids[row, place, OBJECTS.index(name)] += 3
            if name == "dog" and several:
                grids[row, place, TWO] += 3
        phrases = PHRASES | ({"dog": ("two dogs are here", "two brown dogs run")} if several else {})
        captions.append([" and ".join(draw.choice(phrases[name]) for name in there) for _ in range(2)])
        places.append(where)
    return grids, captions, places


@pytest.fixture(scope="module")
def learned():
    grids, captions, _ = planted()
    return learn_detector(lambda numbers: grids[numbers], captions), captions


def picture(size=90):
    return np.full((size, size, 3), 128, np.uint8)


def test_objects_are_found_where_they_are(learned):
    detector, _ = learned
    assert set(detector.words.labels) == set(OBJECTS)
    grids, _, places = planted(100, seed=1)
    found = [detector.detect(picture(), grid, least=0.5) for grid in grids]
    right = [{one.label for one in some} == set(where) for some, where in zip(found, places, strict=True)]
    assert np.mean(right) > 0.9
    inside = []
    for some, where in zip(found, places, strict=True):
        for one in some:
            if one.label in where:
                row, column = divmod(where[one.label], SIDE)
                x, y = 30 * column + 15, 30 * row + 15
                inside.append(one.box.left <= x <= one.box.right and one.box.top <= y <= one.box.bottom)
    assert np.mean(inside) > 0.9


def test_several_objects_are_counted(learned):
    detector, _ = learned
    assert detector.plurals == ("dog",)
    grid = np.zeros((SIDE * SIDE, FEATURES))
    grid[[2, 4], [OBJECTS.index("dog"), OBJECTS.index("ball")]] = 3
    assert {one.label: one.count for one in detector.detect(picture(), grid)} == {"dog": 1, "ball": 1}
    grid[[2, 4], TWO] = 3
    assert {one.label: one.count for one in detector.detect(picture(), grid)} == {"dog": 2, "ball": 1}


def test_detections_are_sorted_and_limited(learned):
    detector, _ = learned
    grid = planted(1, seed=2)[0][0]
    every = detector.detect(picture(), grid, least=0.0, most=3)
    assert len(every) == 3
    assert [one.probability for one in every] == sorted((one.probability for one in every), reverse=True)
    assert len(detector.detect(picture(), grid, least=1.1)) == 1  # a picture is of something


def test_the_same_seed_learns_the_same(learned):
    detector, captions = learned
    grids = planted()[0]
    again = learn_detector(lambda numbers: grids[numbers], captions)
    assert (again.model.weight == detector.model.weight).all()


def test_the_colour_of_an_object_is_that_of_its_pixels_and_of_what_captions_say(learned):
    detector, _ = learned
    array = picture()
    array[30:60, 30:60] = (30, 25, 25)
    box, whole = Box(30, 30, 60, 60), np.ones((90, 90))
    assert detector.colour(array, "dog", box, whole) == "black"
    array[30:60, 30:60] = (105, 68, 42)
    assert detector.colour(array, "dog", box, whole) == "brown"
    assert detector.colour(array, "boy", box, whole) == ""  # no caption gives boys a colour


def test_detections_from_boxes(learned):
    detector, _ = learned
    box, other = Box(0, 0, 40, 40), Box(50, 50, 80, 90)
    given = [LabelledBox("dog", box, 0.6), LabelledBox("dogs", other, 0.9), LabelledBox("zebra", box, 0.1)]
    (found,) = detector.from_boxes(picture(), given)
    assert (found.label, found.count, found.box, found.probability) == ("dog", 2, other, 0.9)
    (zebra,) = detector.from_boxes(picture(), [LabelledBox("zebra", box)])
    assert zebra.label == "zebra"
    assert detector.from_boxes(picture(), []) == []


def test_a_saved_detector_is_the_same(learned, tmp_path):
    detector, captions = learned
    detector.save(tmp_path / "objects.safetensors")
    again = ObjectDetector.load(tmp_path / "objects.safetensors", captions)
    grid = planted(1, seed=3)[0][0]
    assert again.detect(picture(), grid) == detector.detect(picture(), grid)


def test_a_file_that_is_missing_damaged_or_of_other_captions(learned, tmp_path):
    detector, captions = learned
    path = tmp_path / "objects.safetensors"
    with pytest.raises(RunError, match="no detector of objects here"):
        ObjectDetector.load(path, captions)
    path.write_bytes(b"damaged")
    with pytest.raises(RunError, match="no detector of objects here"):
        ObjectDetector.load(path, captions)
    detector.save(path)
    with pytest.raises(RunError, match="its objects are not those of the captions"):
        ObjectDetector.load(path, [some for some in captions if "ball" not in " ".join(some)])


def test_what_cannot_be_learned():
    with pytest.raises(DataError, match="mention no object often enough"):
        learn_detector(lambda numbers: np.zeros((len(numbers), 9, 4)), [["running"], ["jumping"]])


def test_a_grid_without_places(learned):
    captions = learned[1]
    with pytest.raises(ShapeError, match="8 positions is not square"):
        learn_detector(lambda numbers: np.zeros((len(numbers), 8, 4)), captions)
    with pytest.raises(ShapeError, match="not square"):
        learned[0].detect(picture(), np.zeros((8, FEATURES)))
