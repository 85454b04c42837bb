"""Where this program keeps what it can make again, compiled steps and encoded text, and what it trusts there.

Apart from the cache it has a folder of state, what it cannot make again; that is guarded in the same way.

What lies in the cache is loaded as code, so that nobody else may be able to change it. The folder is found by a path
of which only this user and root can change any part, opened by descriptor, and its owner and mode are checked; so are
those of every file that is read from it, since a folder that was open once may hold what others have put there.
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from unrolled.errors import CacheError, ConfigurationError

#: MiB, and files, beyond which the longest unused are removed.
LIMIT, MOST_FILES = 512, 20_000
#: Seconds after which what a process has begun, and not finished, is taken for a killed one's.
_ABANDONED = 3600
#: Seconds after which the time of the last use is noted again.
_USED = 600
#: How many additions a process makes at most before it looks at the bounds again.
_SELDOM = 64
#: By a cache's path: the bytes and files that this process may still add before it looks at the bounds again.
_room: dict[str, tuple[int, int]] = {}
_KEPT = re.compile(r"[0-9a-f]{32}\.(?:so|sha256|plan)")
_BEGUN = re.compile(r"(?:building|saving)-\w+")
_POSIX = hasattr(os, "getuid") and os.open in os.supports_dir_fd
_NOT_FOLLOWED = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_AS_IT_IS = getattr(os, "O_BINARY", 0)


def cache_directory() -> Path:
    """`$UNROLLED_CACHE`, or `unrolled` in the user's cache directory."""
    given = os.environ.get("UNROLLED_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unrolled"


def state_directory() -> Path:
    """`$UNROLLED_STATE`, or `unrolled` in the user's directory of state."""
    given = os.environ.get("UNROLLED_STATE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "unrolled"


@dataclass(frozen=True)
class _Guarded:
    """A folder that nobody else may be able to change, as messages name it."""

    path: Path
    what: str = "cache"
    variable: str = "UNROLLED_CACHE"

    def __str__(self) -> str:
        return f"the {self.what} {self.path}"

    @property
    def advice(self) -> str:
        return f"set {self.variable} to a folder below one of your own"


@dataclass(frozen=True)
class Folder:
    """An open folder of the cache: it stays the one that was checked, whatever becomes of its path.

    Where the system has no descriptors of folders, it is known by its path.
    """

    path: Path
    descriptor: int | None

    def at(self, name: str) -> str:
        """A path of what is in the folder, for those who take no descriptor."""
        through = f"/proc/self/fd/{self.descriptor}"
        return f"{through}/{name}" if self.descriptor is not None and os.path.isdir(through) else str(self.path / name)

    def read(self, name: str) -> bytes | None:
        """What is in a file of the user's own that nobody else can write; None if there is no such file."""
        try:
            file = self._open(name, os.O_RDONLY)
        except OSError:  # a link among them
            return None
        try:
            state = os.fstat(file)
            if not is_own_file(state):
                return None
            if time.time() - state.st_mtime > _USED:
                with suppress(OSError):  # on a disk that cannot be written
                    os.utime(file if os.utime in os.supports_fd else self.at(name))
            with open(file, "rb", closefd=False) as content:
                return content.read()
        finally:
            os.close(file)

    def write(self, name: str, content: bytes) -> None:
        """Put a file there in one step, readable for the user alone; OSError if that cannot be done."""
        begun = f"saving-{secrets.token_hex(8)}"
        file = self._open(begun, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with open(file, "wb") as out:
                out.write(content)
            try:
                self._rename(begun, name)
            except IsADirectoryError:
                self._rename(name, f"saving-{secrets.token_hex(8)}")  # which goes in time
                self._rename(begun, name)
        except BaseException:
            self.remove(begun)
            raise

    def _rename(self, old: str, new: str) -> None:
        os.replace(self._name(old), self._name(new), src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def remove(self, name: str) -> None:
        """Remove a file; nothing if it is not there, or cannot be removed."""
        with suppress(OSError):
            os.unlink(self._name(name), dir_fd=self.descriptor)

    def remove_foreign(self, name: str) -> None:
        """Remove what is not a file of the user's own: before a library opens it by its name."""
        with suppress(OSError):
            state = os.stat(self._name(name), dir_fd=self.descriptor, follow_symlinks=False)
            if not is_own_file(state):
                os.unlink(self._name(name), dir_fd=self.descriptor)

    @contextmanager
    def workplace(self) -> Iterator[Folder]:
        """A new folder inside, of a name that nobody knows; it goes with what is in it."""
        name = f"building-{secrets.token_hex(8)}"
        os.mkdir(self._name(name), 0o700, dir_fd=self.descriptor)
        try:
            with _opened(_Guarded(self.path / name), name, self.descriptor) as inside:
                yield inside
        finally:
            self._remove_folder(name)

    def trim(self) -> None:
        """Remove the longest unused files beyond the bounds, and what killed processes have left.

        Another process may find that a file has gone which it was about to read: it makes it again. A library that is
        loaded stays so.
        """
        most = limit()
        entries: dict[str, list[Any]] = {}
        total = count = 0
        for name, state in self._entries():
            if _KEPT.fullmatch(name):
                size = max(state.st_size, getattr(state, "st_blocks", 0) * 512)
                # A library and its digest are one: the youngest time, both sizes.
                entry = entries.setdefault(name.partition(".")[0], [0.0, 0, []])
                entry[0], entry[1] = max(entry[0], state.st_mtime), entry[1] + size
                entry[2].append(name)
                total, count = total + size, count + 1
            elif _BEGUN.fullmatch(name) and time.time() - state.st_mtime > _ABANDONED:
                self._remove_folder(name) if stat.S_ISDIR(state.st_mode) else self.remove(name)
        for _, size, names in sorted(entries.values(), key=lambda entry: entry[0]):
            if total <= most and count <= MOST_FILES:
                break
            for name in names:
                self.remove(name)
            total, count = total - size, count - len(names)
        # Others may add as well: a quarter of what is left is for this process.
        _room[str(self.path)] = (most - total) // 4, min((MOST_FILES - count) // 4, _SELDOM)

    def added(self, size: int) -> None:
        """Keep the cache within its bounds after a file of `size` bytes was added; the folder is not read each time."""
        room, files = _room.get(str(self.path), (0, 0))
        if size < room and files > 0:
            _room[str(self.path)] = room - size, files - 1
        else:
            self.trim()

    def _entries(self) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(self.path if self.descriptor is None else self.descriptor) as found:
            for entry in found:
                with suppress(OSError):  # another process has just removed it
                    yield entry.name, entry.stat(follow_symlinks=False)

    def _remove_folder(self, name: str) -> None:
        with suppress(OSError, CacheError):
            with _opened(_Guarded(self.path / name), name, self.descriptor) as inside:
                for child, _ in inside._entries():
                    inside.remove(child)
            os.rmdir(self._name(name), dir_fd=self.descriptor)

    def _name(self, name: str) -> str | Path:
        return self.path / name if self.descriptor is None else name

    def _open(self, name: str, flags: int) -> int:
        return os.open(self._name(name), flags | _NOT_FOLLOWED | _AS_IT_IS, 0o600, dir_fd=self.descriptor)


@contextmanager
def open_cache(*inside: str, make: bool = False) -> Iterator[Folder | None]:
    """The cache's folder, or one `inside` it; None if there is none and none is to be made.

    CacheError if others could have changed what is in it, OSError if it cannot be made or opened.
    """
    with _open(_Guarded(cache_directory().joinpath(*inside).absolute()), make) as folder:
        yield folder


@contextmanager
def open_state(*inside: str, make: bool = False) -> Iterator[Folder | None]:
    """As `open_cache`, of the folder of state."""
    path = state_directory().joinpath(*inside).absolute()
    with _open(_Guarded(path, "folder of state", "UNROLLED_STATE"), make) as folder:
        yield folder


@contextmanager
def _open(named: _Guarded, make: bool) -> Iterator[Folder | None]:
    path = named.path
    if make:
        for part in reversed([path, *path.parents]):  # all of them private, whatever the umask
            if not part.is_dir():
                part.mkdir(mode=0o700, exist_ok=True)
    try:
        found = _settled(named) if _POSIX else path
    except FileNotFoundError:
        if make:
            raise
        yield None
        return
    with _opened(dataclasses.replace(named, path=found), found, None) as folder:
        yield folder


@contextmanager
def _opened(named: _Guarded, name: str | Path, within: int | None) -> Iterator[Folder]:
    """The folder `name`, below the descriptor `within` if there is one."""
    if not _POSIX:
        yield Folder(named.path, None)
        return
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _NOT_FOLLOWED, dir_fd=within)
    try:
        state = os.fstat(descriptor)
        if state.st_uid != os.getuid():
            raise CacheError(f"{named} belongs to another user; {named.advice}")
        if state.st_mode & stat.S_IWOTH:
            raise CacheError(f"{named} can be written by anybody: chmod go-w it")
        if state.st_mode & stat.S_IWGRP:
            raise CacheError(f"{named} can be written by its group: chmod go-w it")
        yield Folder(named.path, descriptor)
    finally:
        os.close(descriptor)


def _settled(named: _Guarded) -> Path:
    """An absolute path without links, of which nobody but this user and root can change any part.

    It is walked from the root, so that each look is at something that others cannot exchange any more. CacheError where
    they can, FileNotFoundError if it ends early.
    """
    path = named.path
    done, left, links = Path(path.anchor), list(path.parts[1:]), 0
    while left:
        state = os.lstat(done)
        _check_above(done, state, named)
        name = left.pop(0)
        if name == "..":
            done = done.parent
            continue
        state = os.lstat(done / name)
        if not stat.S_ISLNK(state.st_mode):
            done = done / name
            continue
        links += 1
        if state.st_uid not in _trusted() or links > 40:
            raise CacheError(f"{named} is reached by {done / name}, a link of another user's; {named.advice}")
        target = Path(os.readlink(done / name))
        done = Path(target.anchor) if target.is_absolute() else done
        left = [*target.parts[1 if target.is_absolute() else 0 :], *left]
    return done


def _check_above(folder: Path, state: os.stat_result, named: _Guarded) -> None:
    """CacheError if another user can exchange what is in `folder`, which is above the one that is named."""
    if not stat.S_ISDIR(state.st_mode):
        raise NotADirectoryError(20, "Not a directory", str(folder))
    if state.st_uid not in _trusted():
        raise CacheError(f"{named} lies below {folder}, which belongs to another user; {named.advice}")
    mine = state.st_gid == os.getgid() == os.getuid()  # a group of one user, as many systems make it for each
    shared = stat.S_IWOTH if mine else stat.S_IWOTH | stat.S_IWGRP
    if state.st_mode & shared and not state.st_mode & stat.S_ISVTX:
        who = "anybody" if state.st_mode & stat.S_IWOTH else "its group"
        raise CacheError(f"{named} lies below {folder}, which can be written by {who}; {named.advice}")


@cache
def _trusted() -> frozenset[int]:
    """The users who may own what is above the cache: this one, and root, who has another number in a namespace."""
    users = {0, os.getuid()}
    with suppress(OSError, ValueError):
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            users.add(int(Path("/proc/sys/kernel/overflowuid").read_text()))
    return frozenset(users)


def is_own_file(state: os.stat_result) -> bool:
    """A regular file under one name, of this user's, that nobody else can write."""
    if not stat.S_ISREG(state.st_mode):
        return False
    if not _POSIX:
        return True
    return state.st_uid == os.getuid() and state.st_nlink == 1 and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def limit() -> int:
    """The bytes that compiled steps may take: `$UNROLLED_CACHE_SIZE`, in MiB; ConfigurationError if that is none."""
    given = os.environ.get("UNROLLED_CACHE_SIZE") or str(LIMIT)
    if not re.fullmatch(r"\d{1,9}", given, re.ASCII):
        raise ConfigurationError(f"UNROLLED_CACHE_SIZE: expected a number of MiB, got {given!r}")
    return int(given) << 20
