"""Links in a folder that may come from somebody else: what is written or read through one is another file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from unrolled.errors import RunError


def refuse_links(folder: Path, *, to_write: bool = False, deep: bool = True, but: str | None = None) -> None:
    """RunError if something in `folder` is a symbolic link, or neither a file nor a folder.

    to_write: files that have another name elsewhere (hard links) are refused too: they would change there as well.
    deep: at any depth. but: how the names begin that are passed over.
    `folder` itself may be a link.
    """
    for path, state in _entries(folder, deep):
        if but is not None and path.name.startswith(but):
            continue
        if stat.S_ISLNK(state.st_mode):
            raise RunError(f"{path}: is a symbolic link; put what it points to in its place, or remove it")
        if not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode):
            raise RunError(f"{path}: is neither a file nor a folder; remove it")
        if to_write and stat.S_ISREG(state.st_mode) and state.st_nlink > 1:
            raise RunError(f"{path}: has another name elsewhere (a hard link); copy the folder, and use the copy")


def is_plain_file(path: Path) -> bool:
    """Whether a regular file is there, under this name alone."""
    with suppress(OSError):
        state = os.lstat(path)
        return stat.S_ISREG(state.st_mode) and state.st_nlink == 1
    return False


def _entries(folder: Path, deep: bool) -> Iterator[tuple[Path, os.stat_result]]:
    """What is below a folder, without following links; what cannot be looked at says so where it is used."""
    with suppress(OSError), os.scandir(folder) as found:
        for entry in found:
            with suppress(FileNotFoundError):  # another process has just removed it
                state = entry.stat(follow_symlinks=False)
                yield Path(entry.path), state
                if deep and stat.S_ISDIR(state.st_mode):
                    yield from _entries(Path(entry.path), deep)
