"""Where a captioner's features come from: an image encoder, whose results are stored in the cache, or a user's file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from unrolled.data.arrays import read_arrays
from unrolled.data.captions import CaptionedPicture
from unrolled.data.tokens import Progress
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.tasks.captioning_settings import CaptionsConfig, Noticed


class Features(Protocol):
    """Features of pictures by row. positions, grid_size: 0 if there are no grids."""

    @property
    def signature(self) -> str:
        """What identifies the encoder, or the file."""
        ...

    @property
    def vector_size(self) -> int: ...

    @property
    def positions(self) -> int: ...

    @property
    def grid_size(self) -> int: ...

    def rows(self, keys: Sequence[str]) -> np.ndarray:
        """Return the rows of pictures, `[N]`, -1 for those that have none."""
        ...

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Return vectors `[N, D]`."""
        ...

    def grids(self, rows: np.ndarray) -> np.ndarray:
        """Return grids `[N, P, C]`."""
        ...


class GivenFeatures:
    """Features from a file `.npz`: `names [N]`, `vectors [N, D]`, and maybe `grids [N, P, C]`.

    Raises DataError if it cannot be read or its arrays do not fit together.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        arrays = read_arrays(self.path)
        if "names" not in arrays or "vectors" not in arrays:
            there = ", ".join(arrays) or "nothing"
            raise DataError(f"{path}: it must hold `names` and `vectors`, and holds {there}", setting="features")
        names, self._vectors, self._grids = arrays["names"], arrays["vectors"], arrays.get("grids")
        if names.ndim != 1 or names.dtype.kind not in "UT":  # of bytes, str() would be "b'...'"
            raise DataError(f"{path}: `names` must be strings [N], got {names.dtype}", setting="features")
        for name, values, axes in (("vectors", self._vectors, 2), ("grids", self._grids, 3)):
            if values is None:
                continue
            if values.ndim != axes or len(values) != len(names) or values.dtype.kind not in "fiu" or not values.size:
                wanted = "[N, D]" if axes == 2 else "[N, P, C]"
                raise DataError(
                    f"{path}: `{name}` must be numbers {wanted} for {len(names):,} names, got {list(values.shape)}",
                    setting="features",
                )
            if not all(np.isfinite(values[k : k + 256]).all() for k in range(0, len(values), 256)):
                raise DataError(f"{path}: some of its `{name}` are not finite numbers", setting="features")
        self._row = {str(name): row for row, name in enumerate(names)}

    @cached_property
    def signature(self) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(self._vectors[:64]).tobytes())
        return f"file:{self._vectors.shape[1]}:{digest.hexdigest()[:16]}"

    @property
    def vector_size(self) -> int:
        return int(self._vectors.shape[1])

    @property
    def positions(self) -> int:
        return 0 if self._grids is None else int(self._grids.shape[1])

    @property
    def grid_size(self) -> int:
        return 0 if self._grids is None else int(self._grids.shape[2])

    def rows(self, keys: Sequence[str]) -> np.ndarray:
        return np.array([self._row.get(key, -1) for key in keys], np.int64)

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._vectors[rows]
        return found

    def grids(self, rows: np.ndarray) -> np.ndarray:
        if self._grids is None:
            raise DataError(f"{self.path}: it has no `grids`, which this decoder attends to", setting="features")
        found: np.ndarray = self._grids[rows]
        return found


def open_features(
    config: CaptionsConfig, pictures: Sequence[CaptionedPicture], need_grids: bool, progress: Progress
) -> tuple[Features, list[str], list[str]]:
    """Return the features of pictures, the key of each, and the names of the pictures that have none.

    A picture without features has the key "". Pictures that have not been encoded before are encoded now.
    """
    if config.features:
        given = GivenFeatures(config.features)
        if need_grids and not given.positions:
            said = f"{config.features}: it has no `grids`, which this decoder attends to; choose another `model`"
            raise DataError(said, setting=("features", "model"))
        keys = [one.name for one in pictures]
        missing = given.rows(keys) < 0
        lacking = [key for key, out in zip(keys, missing, strict=True) if out]
        return given, ["" if out else key for key, out in zip(keys, missing, strict=True)], lacking
    from unrolled.tasks.picture_features import encode_pictures

    files = [one.file for one in pictures]
    store, hashes, unreadable = encode_pictures(files, config.encoder, progress)
    return store, hashes, [one.name for one in pictures if one.file in unreadable]


def features_again(
    config: CaptionsConfig, noticed: Noticed, files: Sequence[str], keys: Sequence[str], where: Path
) -> tuple[Features, np.ndarray]:
    """Return the features of a run's pictures, and their rows; pictures are encoded again if the cache lacks them.

    Raises RunError if features are missing and cannot be made again.
    """
    if config.features:
        try:
            given: Features = GivenFeatures(config.features)
        except DataError as error:
            raise RunError(f"{where}: its features are missing ({error})") from error
        return given, _found(given, noticed, keys, where)
    from unrolled.tasks.picture_features import encode_pictures, stored_features

    store = stored_features(noticed.encoder)
    rows = store.rows(keys)
    if (rows < 0).any():
        missing = [Path(file) for file, row in zip(files, rows, strict=True) if row < 0]
        gone = [file for file in missing if not file.is_file()]
        if gone:
            raise RunError(
                f"{where}: the features of {len(missing):,} pictures are no longer in the cache, and "
                f"{gone[0]} is gone, so they cannot be made again"
            )
        store = encode_pictures(missing, noticed.encoder, lambda what, share: None)[0]
    return store, _found(store, noticed, keys, where)


def _found(features: Features, noticed: Noticed, keys: Sequence[str], where: Path) -> np.ndarray:
    if features.signature != noticed.signature:
        raise RunError(f"{where}: its pictures were encoded by {noticed.signature}, not by {features.signature}")
    rows = features.rows(keys)
    if (rows < 0).any():
        raise RunError(f"{where}: {int((rows < 0).sum()):,} of its pictures have changed or have no features")
    return rows


def require_encoder(noticed: Noticed, where: Path) -> str:
    """Return the name of the image encoder of a run; ConfigurationError if it was trained on given features."""
    if not noticed.encoder:
        said = f"{where}: trained on given features, so it has no encoder for new pictures; give `features`"
        raise ConfigurationError(said, setting="features")
    return noticed.encoder
