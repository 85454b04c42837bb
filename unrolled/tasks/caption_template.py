"""The template baseline of a captioner's run: its detector, which is learned once, and the captions of pictures."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from unrolled.cache import cached_data
from unrolled.data.pictures import read_picture
from unrolled.data.tokens import Progress
from unrolled.errors import DataError, RunError
from unrolled.tasks.caption_features import Features
from unrolled.tasks.captioning_data import Pictures
from unrolled.tasks.captioning_settings import Noticed
from unrolled.tasks.template import TemplateCaption, describe
from unrolled.tasks.template_detector import ObjectDetector, learn_detector


class Learnt(Protocol):
    """What a detector is learned from."""

    @property
    def noticed(self) -> Noticed: ...

    @property
    def pictures(self) -> Pictures: ...

    @property
    def features(self) -> Features: ...

    @property
    def feature_rows(self) -> np.ndarray: ...


def detector_of(task: Learnt, progress: Progress) -> ObjectDetector:
    """Return the detector of the objects that the captions of a run's training mention; it is kept in the cache.

    Raises DataError if the features have no grids, or the captions mention no object often enough.
    """
    if not task.features.positions:
        raise DataError("the template needs features with grids")
    captions = task.pictures.captions[: task.pictures.train]
    what = [task.noticed.signature, task.pictures.keys[: task.pictures.train], captions]
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]
    path = cached_data("detectors") / f"{digest}.safetensors"
    if path.is_file():
        try:
            return ObjectDetector.load(path, captions)
        except RunError:
            path.unlink(missing_ok=True)  # damaged: it is learned again
    detector = learn_detector(
        lambda numbers: task.features.grids(task.feature_rows[numbers]), captions, progress=progress
    )
    partial = path.with_name(f".{digest}.{os.getpid()}")
    detector.save(partial)
    partial.replace(path)
    return detector


def template_captions(
    detector: ObjectDetector, files: Sequence[str | Path], features: Features, rows: np.ndarray
) -> list[TemplateCaption]:
    """Return the template's caption of each picture file, whose features are these rows."""
    return [describe(detector, read_picture(file), features.grids(rows[k : k + 1])[0]) for k, file in enumerate(files)]
