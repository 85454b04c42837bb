"""Where text comes from: files, folders, standard input, or the running Python's own standard library."""

from __future__ import annotations

import atexit
import gzip
import hashlib
import os
import shutil
import sys
import sysconfig
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

from unrolled.data.lines import GZIP
from unrolled.errors import DataError

#: Parts of the standard library that are tables or tests, not code that a person would write.
_NOT_CODE = {"test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data", "site-packages", "dist-packages"}


def find_sources(given: Sequence[str], glob: str | None = None, *, unpack: bool = True) -> list[Path]:
    """The files that `given` names: files as they are, folders by `glob` (default: all but hidden ones), `-` for
    standard input, and nothing at all for the default corpus. DataError if one is missing or matches nothing.

    unpack: put what is packed by gzip into temporary files; without, it is bytes like any other.
    """
    if not given:
        return standard_library()
    files: list[Path] = []
    for name in given:
        path = Path(name)
        if not name:
            raise DataError("the path of the text is empty")
        if name == "-":
            files.append(_spool_standard_input())
        elif path.exists() and not path.is_file() and not path.is_dir():  # a pipe
            with path.open("rb") as pipe:
                files.append(_spool(pipe, path.name))
        elif path.is_dir():
            if glob and Path(glob).is_absolute():
                said = f"`glob` {glob}: a pattern for names within {name}, not a path of its own"
                raise DataError(said, setting="glob")
            found = sorted(p for p in path.rglob(glob or "*") if p.is_file() and not _hidden(p.relative_to(path)))
            if not found:
                raise DataError(f"{name}: no file in this folder matches {glob or '*'!r}")
            files += found
        elif path.exists():
            files.append(path)
        else:
            raise DataError(f"{name}: no such file or folder")
    if all(path.is_file() and path.stat().st_size == 0 for path in files):
        raise DataError(f"{', '.join(given)}: empty, there is nothing to learn from")
    return [_unpacked(path) for path in files] if unpack else files


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _spool_standard_input() -> Path:
    """Standard input is read once but needed twice (vocabulary, then tokens), so it goes to a temporary file."""
    if sys.stdin is None:
        raise DataError("standard input is closed: pipe text into it, or name a file")
    if sys.stdin.isatty():
        raise DataError("standard input is a terminal: pipe text into it, or name a file")
    return _spool(sys.stdin.buffer, "standard-input")


def _unpacked(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            if file.read(2) != GZIP:
                return path
        with gzip.open(path) as packed:
            return _spool(cast(BinaryIO, packed), path.name.removesuffix(".gz"))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: cannot be read: a damaged gzip file ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _spool(stream: BinaryIO, name: str) -> Path:
    folder = tempfile.mkdtemp(prefix="unrolled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder, name)
    with path.open("wb") as spool:
        shutil.copyfileobj(stream, spool)
    return path


def standard_library() -> list[Path]:
    """Source files of the running Python's standard library, in an order that mixes the topics and never changes."""
    root = Path(sysconfig.get_path("stdlib"))
    files: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = set(folders) - _NOT_CODE
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    files = [path for path in files if path.stat().st_size and _is_text(path)]
    if not files:
        raise DataError(f"{root}: this Python comes without its library's sources; name a file to learn")
    return sorted(files, key=lambda p: hashlib.sha256(p.relative_to(root).as_posix().encode()).digest())


def _is_text(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True
