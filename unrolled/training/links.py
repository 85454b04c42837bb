"""Rejects links in a folder that may come from somebody else, because a link leads to a file outside of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from unrolled.errors import RunError


def refuse_links(folder: Path, *, to_write: bool = False, deep: bool = True, but: str | None = None) -> None:
    """Raise RunError if an entry of `folder` is a symbolic link, or neither a file nor a folder.

    to_write: also reject files with another name elsewhere (hard links), because writing would change them there.
    deep: look at all depths.
    but: skip the entries whose names start with this.

    `folder` itself may be a link.
    """
    for path, state in _entries(folder, deep):
        if but is not None and path.name.startswith(but):
            continue
        if stat.S_ISLNK(state.st_mode):
            raise RunError(f"{path}: is a symbolic link; replace it by the file it points to, or remove it")
        if not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode):
            raise RunError(f"{path}: is neither a file nor a folder; remove it")
        if to_write and stat.S_ISREG(state.st_mode) and state.st_nlink > 1:
            raise RunError(f"{path}: has another name elsewhere (a hard link); copy the folder, and use the copy")


def is_plain_file(path: Path) -> bool:
    """Return whether `path` is a regular file without another name."""
    with suppress(OSError):
        state = os.lstat(path)
        return stat.S_ISREG(state.st_mode) and state.st_nlink == 1
    return False


def _entries(folder: Path, deep: bool) -> Iterator[tuple[Path, os.stat_result]]:
    """Iterate over the entries of a folder without following links; unreadable ones fail later, when they are used."""
    with suppress(OSError), os.scandir(folder) as found:
        for entry in found:
            with suppress(FileNotFoundError):  # another process has just removed it
                state = entry.stat(follow_symlinks=False)
                yield Path(entry.path), state
                if deep and stat.S_ISDIR(state.st_mode):
                    yield from _entries(Path(entry.path), deep)
