"""Features of pictures, kept in the cache by the encoder and by the content of the picture's file."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import zlib
from collections.abc import Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from unrolled.cache import cached_data, is_own_file
from unrolled.data.frames import as_stored
from unrolled.errors import DataError, ShapeError

#: The bytes of an entry of the index: the picture's SHA-256 and a checksum of it and of the row's number.
_HASH, _ENTRY = 32, 36
#: After this many bytes are read, the pages of the mapped file are released: they count as the process's memory.
_RELEASE = 64 << 20


def picture_key(path: str | Path) -> str:
    """Return what identifies a picture: the SHA-256 of its file's content. Raises DataError if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a picture ({error.strerror or error})") from error


class FeatureStore:
    """The features of one encoder: for each picture a vector `[D]` and a grid `[P, C]` in float16, in a mapped file.

    signature: what identifies the encoder and its weights. vector_size, positions, grid_size: D, P and C.

    Rows are only ever appended, and pictures are found by an index next to the file. A row counts when its entry in the
    index is written, which happens after its values are on the disk. So a process may be killed at any time, a disk may
    fill up, and several processes may add rows at once. Nothing is ever removed; a user may delete the files.

    Raises DataError if the cache's folder cannot be used.
    """

    def __init__(self, signature: str, vector_size: int, positions: int, grid_size: int) -> None:
        self.signature, self.vector_size = signature, vector_size
        self.positions, self.grid_size = positions, grid_size
        self._width = vector_size + positions * grid_size
        stem = str(cached_data("features") / re.sub(r"[^\w.-]+", "_", signature))
        self.path, self._index, self._lock = Path(f"{stem}.rows"), Path(f"{stem}.index"), Path(f"{stem}.lock")
        written = {"signature": signature, "vector_size": vector_size, "positions": positions, "grid_size": grid_size}
        self._header = json.dumps(written).encode() + b"\n"
        self._files = (0, 0)  # the numbers of the files that the rows are those of
        self._row: dict[str, int] = {}
        self._mapped, self._values = (self._files, 0), np.zeros((0, self._width), np.float16)
        self._unreleased = 0
        self._refresh()

    def __len__(self) -> int:
        return len(self._row)

    def rows(self, keys: Sequence[str]) -> np.ndarray:
        """Return the rows of pictures by `picture_key`, `[N]` int64, with -1 for those that have none yet."""
        self._refresh()
        now = self._files, len(self._row)
        if now != self._mapped and self._row:
            self._values = np.memmap(self.path, np.float16, "r", shape=(len(self._row), self._width))
            self._mapped = now
        return np.array([self._row.get(key, -1) for key in keys], np.int64)

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Return those of the keys that have no row yet, each once."""
        self._refresh()
        return [key for key in dict.fromkeys(keys) if key not in self._row]

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Return the vectors of rows, `[N, D]` float16."""
        return self._read(rows, 0, self.vector_size)

    def grids(self, rows: np.ndarray) -> np.ndarray:
        """Return the grids of rows, `[N, P, C]` float16."""
        found = self._read(rows, self.vector_size, self._width)
        return found.reshape(len(found), self.positions, self.grid_size)

    def _read(self, rows: np.ndarray, first: int, end: int) -> np.ndarray:
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self._values):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self._values)}")
        found = np.asarray(self._values[rows, first:end])
        self._unreleased += found.nbytes
        mapped: Any = getattr(self._values, "_mmap", None)
        if self._unreleased > _RELEASE and hasattr(mapped, "madvise"):
            mapped.madvise(mmap.MADV_DONTNEED)
            self._unreleased = 0
        return found

    def add(self, keys: Sequence[str], vectors: np.ndarray, grids: np.ndarray) -> None:
        """Add the vectors `[N, D]` and the grids `[N, P, C]` of pictures. Those that have a row already keep it.

        Raises ShapeError if they have other shapes, and DataError if the disk is full or features are too large for
        float16; the store can be used all the same.
        """
        shapes, known = (vectors.shape[1:], grids.shape[1:]), ((self.vector_size,), (self.positions, self.grid_size))
        if shapes != known:
            raise ShapeError(f"{self.signature}: features {shapes} of each picture in place of {known}")
        values = np.concatenate([vectors, grids.reshape(len(keys), self._width - self.vector_size)], 1)
        values = as_stored(values, "float16", self.signature)
        try:
            with FileLock(self._lock, mode=0o600):
                wanted = set(self.missing(keys))
                new = {key: k for k, key in enumerate(keys) if key in wanted}
                if new:
                    self._append([*new], values[[*new.values()]])
        except OSError as error:
            self._refresh()
            kept = f"the {len(self):,} pictures that are encoded are kept"
            advice = "free some space, or set UNROLLED_CACHE to another folder"
            raise DataError(f"{self.path}: cannot be written ({error.strerror}); {kept}; {advice}") from error

    def _append(self, keys: Sequence[str], values: np.ndarray) -> None:
        count = len(self._row)
        end, room = len(self._header) + _ENTRY * count, 2 * self._width * count
        if not count:
            self.path.unlink(missing_ok=True)  # another process may still read rows whose index was deleted
        with _open(self.path) as data, _open(self._index) as index:
            if not count:
                index.truncate(0)
                _write(index, 0, self._header)
            index.truncate(end)  # what a power failure has left there must not describe the rows that come now
            try:
                _write(data, room, values.tobytes())
                os.fsync(data.fileno())
            except OSError:
                with suppress(OSError):
                    data.truncate(room)
                raise
            _write(index, end, b"".join(_entry(bytes.fromhex(key), count + k) for k, key in enumerate(keys)))
        self._refresh()

    def _refresh(self) -> None:
        """Read the entries of the index that other processes, or this one, have added."""
        try:
            with self._index.open("rb") as index:
                state, data = os.fstat(index.fileno()), os.stat(self.path)
                if not (is_own_file(state) and is_own_file(data)):
                    raise DataError(f"{self._index}: other users can change it, or it is a link; delete it")
                known, most = len(self._header) + _ENTRY * len(self._row), data.st_size // (2 * self._width)
                files = state.st_ino, data.st_ino
                if files != self._files or state.st_size < known or most < len(self._row):
                    self._row, self._files, known = {}, files, len(self._header)
                if index.read(len(self._header)) != self._header:
                    self._row = {}
                    return
                index.seek(known)
                added = index.read()
        except FileNotFoundError:
            self._row, self._files = {}, (0, 0)
            return
        except OSError as error:
            raise DataError(f"{self._index}: cannot be read ({error.strerror or error})") from error
        for start in range(0, len(added) - _ENTRY + 1, _ENTRY):
            row, entry = len(self._row), added[start : start + _ENTRY]
            if row >= most or entry != _entry(entry[:_HASH], row):
                break  # the end was not written before a power failure
            self._row[entry[:_HASH].hex()] = row


def _entry(key: bytes, row: int) -> bytes:
    return key + zlib.crc32(key + row.to_bytes(8, "little")).to_bytes(4, "little")


def _open(path: Path) -> FileIO:
    """Open a file to read and write, which is created for the user alone; OSError if it is a link."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return FileIO(os.open(path, flags, 0o600), "r+b")


def _write(file: FileIO, start: int, content: bytes) -> None:
    file.seek(start)
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
