"""NumPy's files of arrays, and what is said of those that cannot be read."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from unrolled.errors import DataError

#: What NumPy raises for files that are damaged, packed in a way that it does not know, or not its own.
_UNREADABLE = (
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    AttributeError,
    SyntaxError,
    RuntimeError,
    MemoryError,
    OverflowError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    zipfile.BadZipFile,
)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an archive, `.npz`, by their names; DataError if it cannot be read."""
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise DataError(f"{path}: not an archive of NumPy arrays (.npz), or a damaged one")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    except (OSError, *_UNREADABLE) as error:
        raise DataError(_reason(path, error)) from error


def read_array(path: Path) -> np.ndarray:
    """Return the array of a file, `.npy`; DataError if it cannot be read."""
    try:
        with path.open("rb") as file:
            if file.read(6) != np.lib.format.MAGIC_PREFIX:
                raise DataError(f"{path}: not a NumPy array (.npy)")
            file.seek(0)
            found: np.ndarray = np.load(file, allow_pickle=False)
    except (OSError, *_UNREADABLE) as error:
        raise DataError(_reason(path, error)) from error
    return found


def _reason(path: Path, error: Any) -> str:
    if isinstance(error, OSError):
        return f"{path}: {error.strerror or error}"
    said = str(error)
    if "allow_pickle" in said:  # NumPy advises to load what may run any program
        said = "it holds Python objects; save numbers or strings"
    return f"{path}: cannot be read as arrays ({said})"
