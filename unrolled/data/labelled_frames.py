"""Sequences of frames with a label each, in NumPy archives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unrolled.data.arrays import read_arrays
from unrolled.data.lines import readable
from unrolled.errors import DataError

#: The names of arrays of frames; in an archive of many sequences they come after the sequence's name and a `_`.
FRAMES = ("frames", "features", "scores")
LABELS = "labels"
#: An array of the labels' names, if the labels are numbers.
NAMES = "classes"


@dataclass(frozen=True)
class FrameSequence:
    """The frames of a sequence, `[T, D]`, and a label for each; no labels if they were not read."""

    name: str
    frames: np.ndarray
    labels: tuple[str, ...] = ()


def read_frame_sequences(path: str | Path, with_labels: bool = True) -> list[FrameSequence]:
    """Return the sequences of an archive (`.npz`), or of a folder of archives.

    An archive holds `frames [T, D]` (or `features`, or `scores`) and `labels [T]`, or, for several sequences, these
    arrays with the sequence's name in front: `video1_frames` and `video1_labels`. Labels are strings, or numbers, whose
    names may be in an array `classes`.
    Raises DataError, which names the array, if one is missing, does not fit the others, or holds numbers that are not
    finite.
    """
    path = Path(path)
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    found = [one for file in files for one in _of_file(file, with_labels, alone=not path.is_dir())]
    if not found:
        raise DataError(f"{path}: there are no sequences of frames in it")
    widths = {one.frames.shape[1]: one.name for one in found}
    if len(widths) > 1:
        (first, name), (other, other_name) = list(widths.items())[:2]
        raise DataError(f"{path}: {name} has {first} values per frame, {other_name} has {other}")
    return found


def _of_file(path: Path, with_labels: bool, alone: bool) -> list[FrameSequence]:
    arrays = read_arrays(path)
    classes = arrays.pop(NAMES, None)
    if classes is not None and (classes.ndim != 1 or classes.dtype.kind not in "UTiu"):
        raise DataError(f"{path}: `{NAMES}` must be strings [K], got {classes.dtype} {list(classes.shape)}")
    found, used = [], set()
    for name, frames in arrays.items():
        kind = next((kind for kind in FRAMES if name == kind or name.endswith(f"_{kind}")), None)
        if kind is None:
            continue
        prefix = name.removesuffix(kind)
        labels = arrays.get(f"{prefix}{LABELS}")
        used |= {name, f"{prefix}{LABELS}"}
        called = prefix.removesuffix("_") or path.stem
        if not alone and prefix:
            called = f"{path.stem}/{called}"
        called = _on_one_line(path, "name", called)
        found.append(_sequence(path, called, name, frames, labels, classes, with_labels))
    if unused := sorted(arrays.keys() - used):
        wanted = f"NAME_{FRAMES[0]} and NAME_{LABELS}"
        raise DataError(
            f"{path}: the array {unused[0]!r} is neither frames nor labels of them; they are called {wanted}"
        )
    return found


def _sequence(
    path: Path,
    called: str,
    name: str,
    frames: np.ndarray,
    labels: np.ndarray | None,
    classes: np.ndarray | None,
    with_labels: bool,
) -> FrameSequence:
    if frames.ndim != 2 or frames.dtype.kind not in "fiu" or not frames.size:
        raise DataError(f"{path}: {name} must be numbers [T, D], got {frames.dtype} {list(frames.shape)}")
    if not np.isfinite(frames).all():
        raise DataError(f"{path}: {name} holds numbers that are not finite")
    if not with_labels:
        return FrameSequence(called, frames)
    if labels is None:
        raise DataError(f"{path}: {name} has no labels: there is no array {name.removesuffix('frames')}{LABELS}")
    if labels.shape != frames.shape[:1]:
        raise DataError(f"{path}: {called} has {len(frames):,} frames and labels {list(labels.shape)}")
    if labels.dtype.kind not in "iuU":
        raise DataError(f"{path}: the labels of {called} must be whole numbers or strings, got {labels.dtype}")
    return FrameSequence(called, frames, tuple(_named(path, label, classes) for label in labels.tolist()))


def _named(path: Path, label: Any, classes: np.ndarray | None) -> str:
    if classes is not None and not isinstance(label, str):
        if not 0 <= label < len(classes):
            raise DataError(f"{path}: the label {label} has no name among the {len(classes)} classes")
        label = classes[label]
    return _on_one_line(path, "label", str(label))


def _on_one_line(path: Path, what: str, name: str) -> str:
    """Return a name that can stand in a line of the output, with � for what is no character; DataError otherwise."""
    if any(character in name for character in "\t\n\r"):
        raise DataError(f"{path}: the {what} {name!r} has a tab or a line end, which separate them in the output")
    return readable(name)
