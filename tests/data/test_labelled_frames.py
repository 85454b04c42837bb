"""Archives of labelled frames, and what is wrong with them."""

import numpy as np
import pytest

from unrolled.data.frame_batches import collate
from unrolled.data.labelled_frames import read_frame_sequences
from unrolled.errors import DataError

FRAMES = np.arange(8, dtype=np.float16).reshape(4, 2)


def test_one_archive_of_many_sequences(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        one_frames=FRAMES,
        one_labels=[0, 0, 1, 1],
        two_scores=FRAMES[:3],
        two_labels=[2, 2, 2],
        classes=["cut", "mix", "serve"],
    )
    one, two = read_frame_sequences(tmp_path / "a.npz")
    assert (one.name, one.labels) == ("one", ("cut", "cut", "mix", "mix"))
    assert np.array_equal(one.frames, FRAMES)
    assert two.labels == ("serve",) * 3
    assert read_frame_sequences(tmp_path / "a.npz", with_labels=False)[0].labels == ()


def test_a_folder_of_archives(tmp_path):
    np.savez(tmp_path / "b.npz", frames=FRAMES, labels=["x"] * 4)
    np.savez(tmp_path / "a.npz", one_frames=FRAMES, one_labels=[7] * 4)
    assert [(one.name, one.labels[0]) for one in read_frame_sequences(tmp_path)] == [("a/one", "7"), ("b", "x")]


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({}, "no sequences of frames"),
        ({"frames": FRAMES}, "frames has no labels"),
        ({"frames": FRAMES, "labels": [1, 2]}, r"4 frames and labels \[2\]"),
        ({"frames": FRAMES, "labels": [0.5] * 4}, "whole numbers or strings"),
        ({"frames": FRAMES[0], "labels": [1, 2]}, r"must be numbers \[T, D\]"),
        ({"frames": np.zeros((0, 2)), "labels": np.zeros(0, int)}, r"must be numbers \[T, D\]"),
        ({"frames": FRAMES / 0, "labels": [1] * 4}, "not finite"),
        ({"frames": FRAMES, "labels": [1] * 4, "classes": ["a"]}, "the label 1 has no name"),
        ({"frames": FRAMES, "labels": [0] * 4, "classes": "a"}, r"`classes` must be strings \[K\]"),
        ({"frames": FRAMES, "labels": [0] * 4, "classes": [["a"]]}, r"`classes` must be strings \[K\]"),
        ({"frames": FRAMES, "labels": [0] * 4, "classes": ["a\tb"]}, "the label .* has a tab or a line end"),
        ({"a\n_frames": FRAMES, "a\n_labels": [0] * 4}, "the name .* has a tab or a line end"),
        ({"frames": FRAMES, "labels": [1] * 4, "other": [1]}, "'other' is neither frames nor labels"),
        (
            {"a_frames": FRAMES, "a_labels": [1] * 4, "b_frames": FRAMES[:, :1], "b_labels": [1] * 4},
            "a has 2 .* b has 1",
        ),
    ],
)
def test_bad_archives(tmp_path, arrays, reason):
    with np.errstate(all="ignore"):
        np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=reason):
        read_frame_sequences(tmp_path / "a.npz")


def test_labels_that_are_not_text_are_readable(tmp_path):
    np.savez(tmp_path / "a.npz", frames=FRAMES, labels=["\ud800"] * 4)
    assert read_frame_sequences(tmp_path / "a.npz")[0].labels == ("\ufffd",) * 4


def test_batches_are_padded():
    batch = collate([FRAMES, FRAMES[:1]], [[0, 1, 1, 0], [1]])
    assert batch.targets.t().tolist() == [[0, 1, 1, 0], [1, -1, -1, -1]]
    assert batch.count == 5
    assert batch.frames[1:, 1].abs().sum() == 0
