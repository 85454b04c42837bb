"""Captions as numbers, and passes over them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.data.caption_batches import CaptionBatches, EncodedCaptions
from unrolled.errors import RunError

END = 9
many_captions = st.lists(
    st.lists(st.lists(st.integers(0, 8), max_size=5), min_size=1, max_size=7), min_size=1, max_size=9
)


def read(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The features of picture k are k."""
    vectors = np.asarray(pictures, np.float16)[:, None] * np.ones(3, np.float16)
    return vectors, np.repeat(vectors[:, None], 4, 1)


@settings(max_examples=60, deadline=None)
@given(many_captions, st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))
def test_a_pass_reads_every_caption_once(captions: list, batch_size: int, each: int, seed: int) -> None:
    encoded = EncodedCaptions.of([[np.array(one, np.int64) for one in some] for some in captions])
    batches = CaptionBatches(encoded, read, range(len(captions)), batch_size, each, END, (seed, 0))
    found: Counter[tuple[int, tuple[int, ...]]] = Counter()
    for k in range(len(batches)):
        batch = batches.batch(k)
        _, rows, columns = batch.targets.shape
        assert rows <= batch_size
        assert columns == each
        assert batch.vectors[:, 0].tolist() == batch.pictures.tolist()
        assert batch.grids is not None
        assert batch.grids[:, 0, 0].tolist() == batch.pictures.tolist()
        assert batch.count == int((batch.targets >= 0).sum())
        for row in range(rows):
            for column in range(columns):
                tokens = [token for token in batch.targets[:, row, column].tolist() if token >= 0]
                if tokens:
                    assert tokens[-1] == END
                    found[int(batch.pictures[row]), tuple(tokens[:-1])] += 1
    assert found == Counter((k, tuple(one)) for k, some in enumerate(captions) for one in some)
    again = CaptionBatches(encoded, read, range(len(captions)), batch_size, each, END, (seed, 0))
    assert all((again.batch(k).targets == batches.batch(k).targets).all() for k in range(len(batches)))


def test_rows_of_a_batch_are_shared_among_processes() -> None:
    encoded = EncodedCaptions.of([[np.array([k])] for k in range(3)])
    batch = CaptionBatches(encoded, read, range(3), 3, 2, END, (1, 0)).batch(0)
    parts = [batch.share(rank, 2) for rank in range(2)]
    assert sum(part.count for part in parts) == batch.count
    assert [len(part.vectors) for part in parts] == [part.targets.size(1) for part in parts] == [1, 2]


def test_captions_are_stored(tmp_path: Path) -> None:
    encoded = EncodedCaptions.of([[np.array([1, 2]), np.array([], np.int64)], [np.array([3])]])
    encoded.save(tmp_path / "c.safetensors")
    again = EncodedCaptions.load(tmp_path / "c.safetensors")
    assert [[one.tolist() for one in again[k]] for k in range(2)] == [[[1, 2], []], [[3]]]
    assert again.fit(4)
    assert not again.fit(3)
    (tmp_path / "c.safetensors").write_bytes(b"x")
    with pytest.raises(RunError, match="no encoded captions here"):
        EncodedCaptions.load(tmp_path / "c.safetensors")
