"""Sequences of frames and their labels as batches, and what training changes in them at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from unrolled.data.batch import Batch, by_similar_length
from unrolled.data.frames import FrameStore, Normalisation, mask, stretch
from unrolled.data.line_images import distort
from unrolled.settings import require


@dataclass(frozen=True)
class FrameBatch(Batch):
    """Sequences of frames `[T, B, D]` with `lengths [B]`, and their labels, `targets [U, B]`, -1 after their end.

    U is T if every frame has a label.
    """

    frames: Tensor
    lengths: Tensor
    targets: Tensor

    axes: ClassVar[dict[str, int]] = {"lengths": 0}


@dataclass(frozen=True)
class Augmentation:
    """What training changes in every sequence at random.

    tempo: the most by which frames are stretched or shrunk in time, as a fraction. time_masks, feature_masks: see
    `mask`. distort: whether pictures are distorted. noise: the standard deviation of noise, in that of the features.
    """

    tempo: float = 0.0
    time_masks: int = 0
    feature_masks: int = 0
    distort: bool = False
    noise: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.tempo < 1, "tempo", "from 0 to below 1", self.tempo)
        require(0 <= self.noise < 100, "noise", "from 0 to below 100", self.noise)
        for name in ("time_masks", "feature_masks"):
            require(0 <= getattr(self, name) <= 100, name, "from 0 to 100", getattr(self, name))


def collate(frames: Sequence[np.ndarray], targets: Sequence[Sequence[int]] | None = None) -> FrameBatch:
    """Return a batch of inputs `[T, D]` and their labels, any number for each; without labels, for use."""
    steps, width = max((len(one) for one in frames), default=0), frames[0].shape[1]
    inputs = np.zeros((steps, len(frames), width), np.float32)
    for row, one in enumerate(frames):
        inputs[: len(one), row] = one
    given = targets or [[] for _ in frames]
    labels = np.full((max(map(len, given), default=0), len(frames)), -1, np.int64)
    for row, label in enumerate(given):
        labels[: len(label), row] = label
    lengths = np.array([len(one) for one in frames], np.int64)
    return FrameBatch(torch.from_numpy(inputs), torch.from_numpy(lengths), torch.from_numpy(labels))


class FrameBatches:
    """One pass over sequences: batches, in an order and with changes that depend only on `seed`.

    by_length: whether a batch holds sequences of similar lengths.
    """

    def __init__(
        self,
        store: FrameStore,
        numbers: Sequence[int],
        labels: Sequence[Sequence[int]],
        normalise: Normalisation,
        batch_size: int,
        seed: Sequence[int],
        augmentation: Augmentation,
        by_length: bool = True,
    ) -> None:
        self.store, self.labels, self.normalise = store, labels, normalise
        self.seed, self.augmentation = list(seed), augmentation
        chosen = np.asarray(numbers, np.int64)
        draw = np.random.default_rng(self.seed)
        if by_length:
            self.batches = [chosen[rows] for rows in by_similar_length(store.lengths[chosen], batch_size, draw, 8)]
        else:
            order = draw.permutation(chosen)
            self.batches = [order[k : k + batch_size] for k in range(0, len(order), batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def batch(self, number: int) -> FrameBatch:
        draw = np.random.default_rng([*self.seed, number])
        chosen = self.batches[number]
        frames = [self._changed(self.store[int(k)], draw) for k in chosen]
        return collate(frames, [self.labels[int(k)] for k in chosen])

    def _changed(self, frames: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        if self.augmentation.distort:
            frames = distort(frames, draw)
        return changed(self.normalise(frames), self.augmentation, draw)


def changed(values: np.ndarray, how: Augmentation, draw: np.random.Generator) -> np.ndarray:
    """Return normalised frames `[T, D]` with a random tempo, noise and masks."""
    if how.tempo:
        values = stretch(values, 1 + draw.uniform(-how.tempo, how.tempo))
    if how.noise:
        values = values + draw.normal(0, how.noise, values.shape).astype(np.float32)
    if (how.time_masks or how.feature_masks) and len(values):
        values = mask(values, draw, how.time_masks, how.feature_masks)
    return values
