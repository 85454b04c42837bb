"""Captioned pictures in the formats that people have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unrolled.data.captions import read_captions, read_names
from unrolled.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two pictures, which are not opened here."""
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "images" / name).write_bytes(b"x")
    return tmp_path


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


FORMATS = {
    "flickr.token.txt": "a.jpg#0\tA dog .\na.jpg#1\tTwo  dogs\nb.jpg#0\tA cat\n",
    "coco.json": json.dumps(
        {
            "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
            "annotations": [
                {"image_id": 7, "caption": "A dog ."},
                {"image_id": 9, "caption": "A cat"},
                {"image_id": 7, "caption": "Two dogs"},
            ],
        }
    ),
    "karpathy.json": json.dumps(
        {
            "images": [
                {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "A dog ."}, {"raw": "Two dogs"}]},
                {"filename": "b.jpg", "split": "val", "sentences": [{"raw": "A cat"}]},
            ]
        }
    ),
    "results.csv": "image_name| comment_number| comment\na.jpg| 0| A dog .\na.jpg| 1   Two dogs\nb.jpg| 0| A cat\n",
    "blank.txt": "\n\na.jpg#0\tA dog .\na.jpg#1\tTwo  dogs\nb.jpg#0\tA cat\n",
    "list.json": json.dumps(
        [{"image": "a.jpg", "caption": ["A dog .", "Two dogs"]}, {"image": "b.jpg", "caption": "A cat"}]
    ),
    "list.jsonl": '{"image": "a.jpg", "captions": ["A dog .", "Two dogs"]}\n{"image": "b.jpg", "captions": ["A cat"]}\n',
    "rows.jsonl": '{"file": "a.jpg", "text": "A dog ."}\n{"file": "a.jpg", "text": "Two dogs"}\n'
    '{"file": "b.jpg", "text": "A cat"}\n',
    "captions.txt": "image,caption\na.jpg,A dog .\na.jpg,Two dogs\nb.jpg,A cat\n",
    "bare.csv": "a.jpg,A dog .\na.jpg,Two dogs\nb.jpg,A cat\n",
    "captions.tsv": "file\tcaption\na.jpg\tA dog .\na.jpg\tTwo dogs\nb.jpg\tA cat\n",
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_captions(folder: Path, name: str) -> None:
    pictures, notes = read_captions(_write(folder / name, FORMATS[name]))
    assert [one.name for one in pictures] == ["a.jpg", "b.jpg"]
    assert [one.captions for one in pictures] == [("A dog .", "Two dogs"), ("A cat",)]
    assert [one.file for one in pictures] == [folder / "images" / "a.jpg", folder / "images" / "b.jpg"]
    assert notes == []
    assert [one.split for one in pictures] == (["train", "val"] if name == "karpathy.json" else ["", ""])


def test_a_folder_has_a_text_next_to_each_picture(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png", "c.jpg", "._a.jpg"):
        (tmp_path / name).write_bytes(b"x")
    _write(tmp_path / "a.txt", "A dog .\nTwo dogs\n")
    _write(tmp_path / "b.txt", "A cat\n\n")
    pictures, notes = read_captions(tmp_path)
    assert [(one.name, one.captions) for one in pictures] == [("a.jpg", ("A dog .", "Two dogs")), ("b.png", ("A cat",))]
    assert notes == [
        "1 picture without a caption is left out: c.jpg",
        "1 picture with an empty caption, which is left out: b.png",
    ]


def test_what_is_missing_is_counted_and_named(folder: Path) -> None:
    text = FORMATS["flickr.token.txt"] + "c.jpg#0\tA cow\nd.jpg#0\tA hen\n"
    pictures, notes = read_captions(_write(folder / "t.txt", text))
    assert len(pictures) == 2
    assert notes == ["2 pictures with captions are missing: c.jpg, d.jpg"]
    pictures, notes = read_captions(folder / "t.txt", need_files=False)
    assert (len(pictures), notes) == (4, [])


def test_captions_of_a_picture_that_no_file_can_be_are_counted(folder: Path) -> None:
    text = "a.jpg#0\tA dog\n" + "x" * 300 + ".jpg#0\tA cat\n"
    pictures, notes = read_captions(_write(folder / "t.txt", text))
    assert [one.name for one in pictures] == ["a.jpg"]
    assert notes[0].startswith("1 picture with captions is missing: xxx")
    stored = json.loads(FORMATS["coco.json"])
    stored["annotations"].append({"image_id": 8, "caption": "A cow"})
    assert read_captions(_write(folder / "c.json", json.dumps(stored)))[1] == [
        "1 picture with captions is missing: image_id 8"
    ]
    half = '{"image": "\\ud800.jpg", "caption": "A cat"}\n' + FORMATS["list.jsonl"]
    assert read_captions(_write(folder / "t.jsonl", half))[1] == ["1 picture with captions is missing: \ufffd.jpg"]


def test_the_folder_of_a_list_may_be_that_of_the_pictures(folder: Path) -> None:
    stored = json.loads(FORMATS["karpathy.json"])
    for one in stored["images"]:
        one["filepath"] = "val2014"
    pictures, notes = read_captions(_write(folder / "k.json", json.dumps(stored)), folder / "images")
    assert [one.name for one in pictures] == ["val2014/a.jpg", "val2014/b.jpg"]
    assert [one.file.name for one in pictures] == ["a.jpg", "b.jpg"]
    assert notes == []


def test_pictures_without_captions_in_a_list_of_coco(folder: Path) -> None:
    stored = json.loads(FORMATS["coco.json"])
    stored["annotations"] = stored["annotations"][:1]
    pictures, notes = read_captions(_write(folder / "c.json", json.dumps(stored)))
    assert [one.name for one in pictures] == ["a.jpg"]
    assert notes == ["1 picture without a caption is left out: b.jpg"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.txt", "a.jpg#0\tA dog\nno caption\n", "line 2 is not a picture's name"),
        ("t.json", "1", "must hold a list of `images`"),
        ("t.json", "[1]", "object 1 is no JSON object"),
        ("t.csv", "image_name|comment_number|comment\na.jpg|A dog\n", "line 2 is not a picture's name"),
        ("t.json", '{"images": [{"id": 1}], "annotations": []}', "must hold `images` with `id` and `file_name`"),
        ("t.json", '{"images": [{"filename": "a.jpg"}]}', "must hold `images` with `id` and `file_name`"),
        ("t.json", '{"images": []}', "there are no captions in it"),
        ("t.jsonl", '{"image": "a.jpg"}\n', "line 1 has none of caption, captions"),
        ("t.jsonl", '{"image": "a.jpg", "caption": 3}\n', "captions strings or a list"),
        ("t.csv", "image,caption\na.jpg,A,dog\n", "line 2 has 3 columns"),
        ("t.csv", "x,y\n1,2\n", "name the columns with `file_column` and `text_column`"),
        ("t.txt", "z.jpg#0\tA dog\n", "none of its pictures is in"),
        ("t.txt", "", "there are no captions in it"),
        ("t.jsonl", '{"image": "a.jpg", "captions": []}\n', "no picture has a caption"),
        ("t.jpg", "", "a single picture has no caption"),
    ],
)
def test_lists_that_cannot_be_read_are_errors(folder: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_captions(_write(folder / name, text))


def test_a_folder_of_pictures_that_does_not_exist_is_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder of pictures"):
        read_captions(_write(folder / "t.txt", FORMATS["flickr.token.txt"]), folder / "elsewhere")


def test_columns_can_be_named(folder: Path) -> None:
    path = _write(folder / "t.csv", "picture,words\na.jpg,A dog\n")
    pictures, _ = read_captions(path, file_column="picture", text_column="words")
    assert pictures[0].captions == ("A dog",)


def test_names_are_read_one_per_line(tmp_path: Path) -> None:
    assert read_names(_write(tmp_path / "n.txt", "a.jpg\n\n b.jpg \n")) == {"a.jpg", "b.jpg"}
    with pytest.raises(DataError, match="no names of pictures"):
        read_names(_write(tmp_path / "n.txt", "\n"))
