"""Frames of many sequences in one mapped file, and what training changes in them at random."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from unrolled.data.lines import read_json
from unrolled.errors import DataError, RunError

#: The types in which frames are stored: those of pictures, and those of sound and features.
DTYPES = ("uint8", "float16", "float32")


def as_stored(frames: np.ndarray, dtype: str, name: str = "") -> np.ndarray:
    """Return frames in the type in which they are stored; DataError if some are too large for it."""
    with np.errstate(over="ignore"):  # an overflow becomes infinite, and is the error below
        values: np.ndarray = frames.astype(dtype, copy=False)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(f"{name}: some features are above {np.finfo(values.dtype).max:,.6g}; scale them")
    return values


@dataclass
class FrameWriter:
    """Writes sequences of frames, `[T, D]`, one after another."""

    file: IO[bytes]
    dtype: str
    width: int = 0
    lengths: list[int] = field(default_factory=list)

    def add(self, frames: np.ndarray, name: str = "") -> None:
        """Append a sequence; DataError if its frames have another width than those before it, or are too large."""
        self.width = self.width or frames.shape[1]
        if frames.shape[1] != self.width:
            raise DataError(f"{name}: its frames have {frames.shape[1]} values, those before it {self.width}")
        values = as_stored(frames, self.dtype, name)
        self.file.write(np.ascontiguousarray(values).tobytes())
        self.lengths.append(len(values))


class FrameStore(Sequence[np.ndarray]):
    """Sequences of frames `[T, D]` in a file that is mapped, not read."""

    def __init__(self, path: Path) -> None:
        """Open a store; RunError if it is missing or damaged."""
        described = path.with_suffix(".json")
        try:
            stored = read_json(described)
            dtype, self.width, lengths = stored["dtype"], stored["width"], stored["lengths"]
            if dtype not in DTYPES or not isinstance(self.width, int) or self.width < 1:
                raise ValueError("its dtype or width is not one that is written")
            if not all(type(length) is int and length >= 0 for length in lengths):
                raise ValueError("its lengths must be numbers from 0")
            self.lengths = np.array(lengths, np.int64)
            self._offsets = np.concatenate([[0], np.cumsum(self.lengths)])
            size, wanted = path.stat().st_size, int(self._offsets[-1]) * self.width * np.dtype(dtype).itemsize
            if size != wanted:
                raise ValueError(f"it has {size:,} bytes in place of {wanted:,}")
            shape = (int(self._offsets[-1]), self.width)
            self._frames = np.memmap(path, dtype, "r", shape=shape) if size else np.zeros(shape, dtype)
        except (OSError, ValueError, KeyError, TypeError, DataError) as error:
            raise RunError(f"{path}: missing or damaged ({error})") from error

    @staticmethod
    @contextmanager
    def write(path: Path, dtype: str) -> Iterator[FrameWriter]:
        """Write a store within the block."""
        with path.open("wb") as file:
            writer = FrameWriter(file, dtype)
            yield writer
        stored = {"dtype": dtype, "width": writer.width, "lengths": writer.lengths}
        path.with_suffix(".json").write_text(json.dumps(stored) + "\n", encoding="utf-8")

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> np.ndarray:  # type: ignore[override]
        found: np.ndarray = self._frames[self._offsets[number] : self._offsets[number + 1]]
        return found

    def moments(self, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the standard deviation of each feature over some of the sequences, `[D]` float32."""
        count, total, squares = 0, np.zeros(self.width), np.zeros(self.width)
        for number in numbers:
            frames = self[number].astype(np.float64)
            count, total, squares = count + len(frames), total + frames.sum(0), squares + (frames**2).sum(0)
        mean = total / max(count, 1)
        deviation = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
        return mean.astype(np.float32), np.where(deviation > 1e-5, deviation, 1).astype(np.float32)


@dataclass(frozen=True)
class Normalisation:
    """How frames become inputs: pictures from 0 to 1, features with mean 0 and deviation 1.

    moments: the mean and deviation of each feature in training; None: those of each sequence.
    """

    pictures: bool = False
    moments: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Return frames `[T, D]` as inputs, float32."""
        if self.pictures:
            return frames.astype(np.float32) / 255
        values = frames.astype(np.float32)
        if self.moments is not None:
            mean, deviation = self.moments
        elif len(values):
            mean, deviation = values.mean(0), values.std(0)
        else:
            return values
        normalised: np.ndarray = (values - mean) / (deviation + 1e-5)
        return normalised


def stored_moments(stored: Any, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the "mean" and the "deviation" of `FrameStore.moments` from JSON.

    Raises ValueError, KeyError or TypeError if `stored` holds something else.
    """
    mean, deviation = (np.array(stored[name], np.float32) for name in ("mean", "deviation"))
    if any(each.shape != (width,) or not np.isfinite(each).all() for each in (mean, deviation)):
        raise ValueError("its mean and deviation do not fit the frames")
    return mean, deviation


def stretch(frames: np.ndarray, factor: float) -> np.ndarray:
    """Return the frames `[T, D]` at a slower tempo, by linear interpolation: `factor` times as many."""
    if len(frames) < 2:
        return frames
    places = np.linspace(0, len(frames) - 1, max(2, round(len(frames) * factor)))
    below = np.minimum(places.astype(np.int64), len(frames) - 2)
    share = (places - below)[:, None].astype(np.float32)
    stretched: np.ndarray = frames[below] * (1 - share) + frames[below + 1] * share
    return stretched


def mask(frames: np.ndarray, draw: np.random.Generator, steps: int, bands: int) -> np.ndarray:
    """Return the frames `[T, D]`, normalised, with stretches of time and bands of features set to 0, their mean.

    steps, bands: how many of each. A stretch is at most 20 frames and a quarter of the sequence; a band is at most a
    quarter of the features.
    Source: Park et al. 2019, "SpecAugment".
    """
    frames = frames.copy()
    length, width = frames.shape
    for _ in range(steps):
        size = int(draw.integers(0, min(20, length // 4) + 1))
        first = int(draw.integers(0, length - size + 1))
        frames[first : first + size] = 0
    for _ in range(bands):
        size = int(draw.integers(0, width // 4 + 1))
        first = int(draw.integers(0, width - size + 1))
        frames[:, first : first + size] = 0
    return frames
