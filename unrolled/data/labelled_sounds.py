"""Recordings, or features of them, that have a class each: folders with a sub-folder per class, and lists of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from unrolled.data.audio import AUDIO_SUFFIXES
from unrolled.data.batch import by_similar_length
from unrolled.data.class_batches import ClassBatch, make_batch
from unrolled.data.frame_batches import Augmentation, changed
from unrolled.data.frames import FrameStore, Normalisation
from unrolled.data.transcripts import Item, read_items
from unrolled.errors import DataError

#: The names of columns and keys that hold a class, the usual ones first.
LABEL_KEYS = ("label", "class", "category", "target", "text")


def read_labelled_sounds(path: str | Path, file_column: str = "", label_column: str = "") -> list[Item]:
    """Return the items of a folder with a sub-folder per class, of a list or an archive; their texts are the classes.

    Lists and archives are those of `read_items`, with classes in place of transcripts.
    Raises DataError if there is no item, or an item has no class.
    """
    path = Path(path)
    items = list(_in_folders(path)) if path.is_dir() else read_items(path, file_column, label_column, LABEL_KEYS)
    if not items:
        raise DataError(f"{path}: there are no recordings in sub-folders of it, one sub-folder per class")
    for item in items:
        if not item.text:
            raise DataError(f"{path}: {item.name} has no class")
    return items


def _in_folders(folder: Path) -> Iterator[Item]:
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        for path in sorted(inner.rglob("*")):
            if path.suffix.lower() in (*AUDIO_SUFFIXES, ".npy") and not path.name.startswith("."):
                yield Item(str(path.relative_to(folder)), inner.name, path)


class NormalisedFrames(Sequence[np.ndarray]):
    """Some sequences of a store, normalised when they are read."""

    def __init__(self, store: FrameStore, numbers: Sequence[int], normalise: Normalisation) -> None:
        self.store, self.numbers, self.normalise = store, list(numbers), normalise

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, row: int) -> np.ndarray:  # type: ignore[override]
        return self.normalise(self.store[self.numbers[row]])


class SoundBatches:
    """One pass over sequences: batches of similar lengths, in an order and with changes that depend only on `seed`."""

    def __init__(
        self,
        frames: NormalisedFrames,
        targets: np.ndarray,
        batch_size: int,
        seed: Sequence[int],
        augmentation: Augmentation,
    ) -> None:
        self.frames, self.targets, self.augmentation, self.seed = frames, targets, augmentation, list(seed)
        draw = np.random.default_rng(self.seed)
        self.batches = by_similar_length(frames.store.lengths[frames.numbers], batch_size, draw, 8)

    def __len__(self) -> int:
        return len(self.batches)

    def batch(self, number: int) -> ClassBatch:
        draw, rows = np.random.default_rng([*self.seed, number]), self.batches[number]
        return make_batch([changed(self.frames[int(k)], self.augmentation, draw) for k in rows], self.targets[rows])
