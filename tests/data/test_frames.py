"""Stored frames come back, and what training changes in frames keeps their meaning."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.data.frame_batches import Augmentation, FrameBatches, collate
from unrolled.data.frames import FrameStore, Normalisation, mask, stretch
from unrolled.errors import ConfigurationError, DataError, RunError


def store(path, sequences, dtype="float16"):
    with FrameStore.write(path, dtype) as writer:
        for number, frames in enumerate(sequences):
            writer.add(frames, str(number))
    return FrameStore(path)


def test_sequences_come_back(tmp_path):
    given = [np.random.default_rng(k).normal(size=(k, 3)).astype(np.float16) for k in (4, 0, 7)]
    found = store(tmp_path / "frames.bin", given)
    assert len(found) == 3
    assert all(np.array_equal(one, other) for one, other in zip(found, given, strict=True))
    mean, deviation = found.moments([0, 2])
    joined = np.concatenate(given).astype(np.float64)
    assert np.allclose(mean, joined.mean(0), atol=1e-6)
    assert np.allclose(deviation, joined.std(0), atol=1e-6)


def test_what_does_not_fit_is_an_error(tmp_path):
    with pytest.raises(DataError, match="have 2 values, those before it 3"):
        store(tmp_path / "a.bin", [np.zeros((1, 3)), np.zeros((1, 2))])
    with pytest.raises(DataError, match="above 65,504"):
        store(tmp_path / "a.bin", [np.full((1, 3), 1e6)])
    store(tmp_path / "a.bin", [np.zeros((2, 3))])
    with (tmp_path / "a.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(RunError, match="has 13 bytes in place of 12"):
        FrameStore(tmp_path / "a.bin")
    (tmp_path / "a.json").write_text('{"dtype": "object", "width": 3, "lengths": [2]}')
    with pytest.raises(RunError, match="missing or damaged"):
        FrameStore(tmp_path / "a.bin")


@given(st.integers(2, 30), st.floats(0.5, 1.5))
def test_a_stretched_line_is_a_line(length, factor):
    frames = np.arange(length, dtype=np.float32)[:, None]
    found = stretch(frames, factor)
    assert len(found) == max(2, round(length * factor))
    assert found[0] == frames[0]
    assert found[-1] == pytest.approx(frames[-1], rel=1e-5)
    assert np.allclose(np.diff(found[:, 0]), (length - 1) / (len(found) - 1), atol=1e-4)


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 3), st.integers(0, 3), st.integers(0, 99))
def test_masks_blank_out_stretches_and_bands(length, width, steps, bands, seed):
    frames = np.ones((length, width), np.float32)
    found = mask(frames, np.random.default_rng(seed), steps, bands)
    assert np.all(frames == 1)
    blank = found == 0
    assert np.array_equal(blank, blank.all(1)[:, None] | blank.all(0)[None])
    assert blank.all(1).sum() <= steps * min(20, length // 4) or blank.all()
    assert blank.all(0).sum() <= bands * (width // 4)


def test_batches_depend_on_the_seed_alone(tmp_path):
    frames = [np.random.default_rng(k).normal(size=(5 + k, 3)) for k in range(20)]
    found, labels = store(tmp_path / "a.bin", frames), [[1] * (k % 4) for k in range(20)]

    def batches(seed):
        changes = Augmentation(tempo=0.2, time_masks=1, feature_masks=1, noise=0.1)
        return FrameBatches(found, range(16), labels, Normalisation(), 4, (1, seed), changes)

    first, again, other = batches(1), batches(1), batches(2)
    assert len(first) == 4
    assert np.array_equal(first.batch(2).frames, again.batch(2).frames)
    assert not np.array_equal(first.batch(2).lengths, other.batch(2).lengths) or not np.array_equal(
        first.batch(2).frames, other.batch(2).frames
    )
    assert sorted(k for batch in first.batches for k in batch) == list(range(16))
    batch = first.batch(0)
    assert batch.count == sum(len(labels[k]) for k in first.batches[0])
    part = batch.rows(1, 3)
    assert np.array_equal(part.frames, batch.frames[:, 1:3])
    assert np.array_equal(part.lengths, batch.lengths[1:3])
    with pytest.raises(ConfigurationError):
        Augmentation(tempo=1.0)


def test_normalisation():
    frames = np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float16)
    found = Normalisation()(frames)
    assert np.allclose(found.mean(0), 0, atol=1e-3)
    assert np.allclose(found.std(0), 1, atol=1e-2)
    fixed = Normalisation(moments=(np.full(4, 3, np.float32), np.full(4, 2, np.float32)))(frames)
    assert np.allclose(fixed, (frames.astype(np.float32) - 3) / 2, atol=1e-3)
    assert Normalisation(pictures=True)(np.array([[255, 0]], np.uint8)).tolist() == [[1, 0]]
    assert Normalisation()(frames[:0]).shape == (0, 4)
    assert collate([frames, frames[:3]], [[1, 2], []]).targets.tolist() == [[1, -1], [2, -1]]
