"""Boxes of objects, from COCO's instances."""

import json

import pytest

from unrolled.data.boxes import Box, LabelledBox, read_boxes
from unrolled.errors import DataError

STORED = {
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
    "categories": [{"id": 1, "name": "Sheep"}, {"id": 2, "name": "traffic light"}],
    "annotations": [
        {"image_id": 7, "category_id": 1, "bbox": [10, 20, 30, 5]},
        {"image_id": 7, "category_id": 2, "bbox": [0, 0, 1.5, 2], "score": 0.25},
    ],
}


def written(tmp_path, **changed):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(STORED | changed))
    return path


def test_boxes_by_picture(tmp_path):
    assert read_boxes(written(tmp_path)) == {
        "a.jpg": [
            LabelledBox("sheep", Box(10, 20, 40, 25)),
            LabelledBox("traffic light", Box(0, 0, 1.5, 2), 0.25),
        ],
        "b.jpg": [],
    }


@pytest.mark.parametrize(
    "fault",
    [
        {"image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1]},
        {"image_id": 7, "category_id": 9, "bbox": [0, 0, 1, 1]},
        {"image_id": 7, "category_id": 1},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 1]},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, -1, 1]},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, float("nan"), 1]},
        [7, 1],
    ],
)
def test_a_faulty_annotation_is_named(tmp_path, fault):
    with pytest.raises(DataError, match=r"instances\.json: annotation 2 needs"):
        read_boxes(written(tmp_path, annotations=[STORED["annotations"][0], fault]))


@pytest.mark.parametrize("stored", [[], {}, {"images": [{}], "categories": [], "annotations": []}, 3])
def test_another_kind_of_file(tmp_path, stored):
    path = tmp_path / "other.json"
    path.write_text(json.dumps(stored))
    with pytest.raises(DataError, match=r"other\.json: it must hold `images`"):
        read_boxes(path)


def test_what_two_boxes_share():
    box, other = Box(0, 0, 4, 2), Box(3, 1, 6, 5)
    assert box.shared(other) == other.shared(box) == 1
    assert box.shared(Box(4, 0, 5, 2)) == 0
    assert (box.area, box.centre, other.width, other.height) == (8, (2, 1), 3, 4)
