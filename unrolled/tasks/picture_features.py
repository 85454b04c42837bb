"""Features of picture files by an image encoder, computed by all processors and stored in the cache."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unrolled.data.feature_store import FeatureStore, picture_key
from unrolled.data.pictures import read_picture, scaled
from unrolled.data.process_pool import ProcessPool, answer_jobs, processors
from unrolled.data.tokens import Progress
from unrolled.errors import DataError
from unrolled.models.image_encoders import ImageEncoder, image_encoder

#: The pictures that a process encodes at a time. Up to `ALONE` pictures need no other processes.
BATCH, ALONE = 16, 64

#: A picture's file and its key.
_Picture = tuple[str, str]


def encode_pictures(
    files: Sequence[Path],
    encoder: str,
    progress: Progress = lambda what, share: None,
    processes: int | None = None,
) -> tuple[FeatureStore, list[str], dict[Path, str]]:
    """Encode the pictures that have no features yet. Return the store, the key of each file, and what cannot be read.

    encoder: a name, see `image_encoder`. processes: how many may encode, by default one for each processor.
    A file that cannot be read has the key "" and is in the last result, with the reason.

    An interrupted call goes on where it was. Raises ConfigurationError if there is no such encoder, and DataError if
    the features cannot be stored.
    """
    made = image_encoder(encoder)
    store = _store_of(made)
    keys, unread = _keys(files, progress)
    file_of = {key: str(file) for file, key in zip(files, keys, strict=True)}
    missing = [(file_of[key], key) for key in store.missing([key for key in keys if key])]
    batches = [missing[k : k + BATCH] for k in range(0, len(missing), BATCH)]
    reasons: dict[str, str] = {}
    count = min(processors() if processes is None else processes, len(batches))
    if len(missing) <= ALONE or count < 2:
        encoded = _encoded_here(made, store, batches)
    else:
        encoded = _encoded_elsewhere(encoder, batches, count)
    with closing(encoded):
        for done, found in enumerate(encoded, 1):
            reasons.update(found)
            progress("encoding the pictures", done / len(batches))
    for number, (file, key) in enumerate(zip(files, keys, strict=True)):
        if key in reasons:
            keys[number], unread[file] = "", reasons[key]
    return store, keys, unread


def stored_features(encoder: str) -> FeatureStore:
    """Return the store of the features of an encoder, by its name; see `encode_pictures`."""
    return _store_of(image_encoder(encoder))


def _store_of(encoder: ImageEncoder) -> FeatureStore:
    return FeatureStore(encoder.signature, encoder.vector_size, encoder.grid_size, encoder.grid_channels)


def _keys(files: Sequence[Path], progress: Progress) -> tuple[list[str], dict[Path, str]]:
    """Return the key of each file, which is empty if it cannot be read, and the reasons."""
    keys: list[str] = []
    unread: dict[Path, str] = {}
    for file in files:
        try:
            keys.append(picture_key(file))
        except DataError as error:
            keys.append("")
            unread[file] = str(error)
        if len(keys) % 100 == 0:
            progress("reading the pictures", len(keys) / len(files))
    return keys, unread


def _encode(encoder: ImageEncoder, store: FeatureStore, batch: Sequence[_Picture]) -> dict[str, str]:
    """Store the features of pictures. Return why those that cannot be read cannot, by their keys."""
    keys, pictures, reasons = [], [], {}
    for file, key in batch:
        try:
            pictures.append(scaled(read_picture(file), encoder.input_size))
            keys.append(key)
        except DataError as error:
            reasons[key] = str(error)
    if keys:
        vectors, grids = encoder.encode(np.stack(pictures))
        store.add(keys, vectors.cpu().numpy(), grids.cpu().numpy())
    return reasons


def _encoded_here(
    encoder: ImageEncoder, store: FeatureStore, batches: Sequence[Sequence[_Picture]]
) -> Generator[dict[str, str], None, None]:
    yield from (_encode(encoder, store, batch) for batch in batches)


def _encoded_elsewhere(
    encoder: str, batches: Sequence[Sequence[_Picture]], count: int
) -> Generator[dict[str, str], None, None]:
    one_each = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with ProcessPool(__name__, count, "encodes pictures", one_each) as pool:
        yield from pool.ask({"encoder": encoder}, batches)


def main() -> None:
    """Encode batches of pictures in a process of their own; see `ProcessPool`."""
    torch.set_num_threads(1)
    answer_jobs(_prepare)


def _prepare(setup: Mapping[str, Any]) -> Callable[[Any], dict[str, str]]:
    encoder = image_encoder(setup["encoder"])
    store = _store_of(encoder)

    def encode(batch: Sequence[_Picture]) -> dict[str, str]:
        try:
            return _encode(encoder, store, batch)
        except (RuntimeError, MemoryError) as error:  # PyTorch's error when memory runs out is a RuntimeError
            reason = " ".join(str(error).split())
            raise DataError(f"{batch[0][0]}: cannot be encoded ({reason or type(error).__name__})") from error

    return encode
