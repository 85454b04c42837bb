"""Sources of text: files, folders, standard input, or the running Python's standard library."""

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

#: Folders of the standard library without typical code, such as tables and tests.
_NOT_CODE = {"test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data", "site-packages", "dist-packages"}


def find_sources(given: Sequence[str], glob: str | None = None, *, unpack: bool = True) -> list[Path]:
    """Return the files that `given` names.

    given: files, folders, or "-" for standard input. If it is empty, the result is the default corpus.
    glob: the pattern for files in a folder. Default: all files. Hidden files are never taken.
    unpack: unpack gzip files into temporary files. If false, they are returned as they are.

    Raises DataError if a path does not exist, or if a folder has no matching file.
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
        elif path.exists() and not path.is_file() and not path.is_dir():  # for example a pipe
            with path.open("rb") as pipe:
                files.append(_spool(pipe, path.name))
        elif path.is_dir():
            if glob and Path(glob).is_absolute():
                message = f"`glob` {glob}: a pattern for names within {name} is needed, not an absolute path"
                raise DataError(message, setting="glob")
            found = sorted(p for p in path.rglob(glob or "*") if p.is_file() and not _hidden(p.relative_to(path)))
            if not found:
                raise DataError(f"{name}: no file in this folder matches {glob or '*'!r}")
            files += found
        elif path.exists():
            files.append(path)
        else:
            raise DataError(f"{name}: no such file or folder")
    if all(path.is_file() and path.stat().st_size == 0 for path in files):
        raise DataError(f"{', '.join(given)}: empty, so there is nothing to learn from; name a file with text")
    return [_unpacked(path) for path in files] if unpack else files


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _spool_standard_input() -> Path:
    """Copy standard input to a temporary file, because it is needed twice (for the vocabulary, then for the tokens)."""
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
    """Return source files of the running Python's standard library, in a fixed order that mixes the topics."""
    root = Path(sysconfig.get_path("stdlib"))
    files: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = set(folders) - _NOT_CODE
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    files = [path for path in files if path.stat().st_size and _is_text(path)]
    if not files:
        raise DataError(f"{root}: this Python comes without its library's sources; name a file to learn from")
    return sorted(files, key=lambda p: hashlib.sha256(p.relative_to(root).as_posix().encode()).digest())


def _is_text(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True
