"""The cache of what this program can build again (compiled steps and encoded text), and the checks that protect it.

The program also has a state folder for what it cannot build again. The same checks protect that folder.

Files in the cache are loaded as code, so nobody else may be able to change them. Only this user and root may be able to
change any part of the folder's path. The folder is opened by descriptor, and its owner and mode are checked. The owner
and mode of every file read from it are also checked, because a folder that others could once write to may still hold
their files.
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

from unrolled.errors import CacheError, ConfigurationError, DataError

#: The bounds in MiB and in files, beyond which the least recently used files are removed.
LIMIT, MOST_FILES = 512, 20_000
#: Seconds after which an unfinished file or folder counts as left behind by a killed process.
_ABANDONED = 3600
#: Seconds after which the time of the last use is updated.
_USED = 600
#: The most files that a process adds before it checks the bounds again.
_SELDOM = 64
#: By a cache's path: the bytes and files that this process may still add before it checks the bounds again.
_room: dict[str, tuple[int, int]] = {}
_KEPT = re.compile(r"[0-9a-f]{32}\.(?:so|sha256|plan)")
_BEGUN = re.compile(r"(?:building|saving)-\w+")
_POSIX = hasattr(os, "getuid") and os.open in os.supports_dir_fd
_NOT_FOLLOWED = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_AS_IT_IS = getattr(os, "O_BINARY", 0)


def cache_directory() -> Path:
    """Return `$UNROLLED_CACHE`, or `unrolled` in the user's cache directory."""
    given = os.environ.get("UNROLLED_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unrolled"


def state_directory() -> Path:
    """Return `$UNROLLED_STATE`, or `unrolled` in the user's state directory."""
    given = os.environ.get("UNROLLED_STATE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "unrolled"


@dataclass(frozen=True)
class _Guarded:
    """A folder that nobody else may be able to change, and how messages name it."""

    path: Path
    what: str = "cache"
    variable: str = "UNROLLED_CACHE"

    def __str__(self) -> str:
        return f"the {self.what} {self.path}"

    @property
    def advice(self) -> str:
        return f"set {self.variable} to a folder below one that you own"


@dataclass(frozen=True)
class Folder:
    """An open folder of the cache. It stays the folder that was checked, whatever happens to its path.

    On a system without directory descriptors, the folder is known by its path.
    """

    path: Path
    descriptor: int | None

    def at(self, name: str) -> str:
        """Return a path of `name` in the folder, for callers that take no descriptor."""
        through = f"/proc/self/fd/{self.descriptor}"
        return f"{through}/{name}" if self.descriptor is not None and os.path.isdir(through) else str(self.path / name)

    def read(self, name: str) -> bytes | None:
        """Return the content of a file that the user owns and nobody else can write; None if there is no such file."""
        try:
            file = self._open(name, os.O_RDONLY)
        except OSError:  # also raised for a symbolic link
            return None
        try:
            state = os.fstat(file)
            if not is_own_file(state):
                return None
            if time.time() - state.st_mtime > _USED:
                with suppress(OSError):  # the disk may be read-only
                    os.utime(file if os.utime in os.supports_fd else self.at(name))
            with open(file, "rb", closefd=False) as content:
                return content.read()
        finally:
            os.close(file)

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically, readable by the user alone. Raise OSError if that cannot be done."""
        begun = f"saving-{secrets.token_hex(8)}"
        file = self._open(begun, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with open(file, "wb") as out:
                out.write(content)
            try:
                self._rename(begun, name)
            except IsADirectoryError:
                self._rename(name, f"saving-{secrets.token_hex(8)}")  # `trim` removes it later
                self._rename(begun, name)
        except BaseException:
            self.remove(begun)
            raise

    def _rename(self, old: str, new: str) -> None:
        os.replace(self._name(old), self._name(new), src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def remove(self, name: str) -> None:
        """Remove a file. Do nothing if it is missing or cannot be removed."""
        with suppress(OSError):
            os.unlink(self._name(name), dir_fd=self.descriptor)

    def remove_foreign(self, name: str) -> None:
        """Remove `name` unless it is the user's own file. Use this before a library opens it by its name."""
        with suppress(OSError):
            state = os.stat(self._name(name), dir_fd=self.descriptor, follow_symlinks=False)
            if not is_own_file(state):
                os.unlink(self._name(name), dir_fd=self.descriptor)

    @contextmanager
    def workplace(self) -> Iterator[Folder]:
        """Create a folder inside with an unguessable name, and remove it with its content at the end."""
        name = f"building-{secrets.token_hex(8)}"
        os.mkdir(self._name(name), 0o700, dir_fd=self.descriptor)
        try:
            with _opened(_Guarded(self.path / name), name, self.descriptor) as inside:
                yield inside
        finally:
            self._remove_folder(name)

    def trim(self) -> None:
        """Remove the least recently used files beyond the bounds, and what killed processes have left.

        Another process may find that a file it was about to read is gone; it then builds that file again. A library
        that is already loaded stays loaded.
        """
        most = limit()
        entries: dict[str, list[Any]] = {}
        total = count = 0
        for name, state in self._entries():
            if _KEPT.fullmatch(name):
                size = max(state.st_size, getattr(state, "st_blocks", 0) * 512)
                # A library and its digest count as one entry, with the latest time and the sum of both sizes.
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
        # Other processes may also add files, so this one may use a quarter of what is left.
        _room[str(self.path)] = (most - total) // 4, min((MOST_FILES - count) // 4, _SELDOM)

    def added(self, size: int) -> None:
        """Keep the cache within its bounds after a file of `size` bytes was added, without reading it each time."""
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
    """Open the cache's folder, or one `inside` it. Yield None if it does not exist and `make` is false.

    Raise CacheError if others could have changed its content, and OSError if it cannot be created or opened.
    """
    with _open(_Guarded(cache_directory().joinpath(*inside).absolute()), make) as folder:
        yield folder


def cached_data(name: str) -> Path:
    """Return the folder `name` of the cache, for data that no other user can change, and create it if necessary.

    Raises DataError if it cannot be created, or if other users could change its content.
    """
    folder = cache_directory() / name
    try:
        with open_cache(name, make=True):  # after this no other user can replace a part of the path
            pass
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); set UNROLLED_CACHE") from error
    except CacheError as error:
        raise DataError(str(error)) from error
    return folder


@contextmanager
def open_state(*inside: str, make: bool = False) -> Iterator[Folder | None]:
    """Open the state folder, in the way that `open_cache` opens the cache."""
    path = state_directory().joinpath(*inside).absolute()
    with _open(_Guarded(path, "state folder", "UNROLLED_STATE"), make) as folder:
        yield folder


@contextmanager
def _open(named: _Guarded, make: bool) -> Iterator[Folder | None]:
    path = named.path
    if make:
        for part in reversed([path, *path.parents]):  # create all of them private, whatever the umask
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
    """Check and open the folder `name`, below the descriptor `within` if there is one."""
    if not _POSIX:
        yield Folder(named.path, None)
        return
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _NOT_FOLLOWED, dir_fd=within)
    try:
        state = os.fstat(descriptor)
        if state.st_uid != os.getuid():
            raise CacheError(f"{named} belongs to another user; {named.advice}")
        if state.st_mode & stat.S_IWOTH:
            raise CacheError(f"{named} can be written by anybody; run `chmod go-w` on it")
        if state.st_mode & stat.S_IWGRP:
            raise CacheError(f"{named} can be written by its group; run `chmod go-w` on it")
        yield Folder(named.path, descriptor)
    finally:
        os.close(descriptor)


def _settled(named: _Guarded) -> Path:
    """Return the absolute path without links, after a check that only this user and root can change any part of it.

    The path is walked from the root, so that each check sees something that others can no longer replace. Raise
    CacheError where they can, and FileNotFoundError if a part is missing.
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
            raise CacheError(f"{named} is reached by {done / name}, a link that another user owns; {named.advice}")
        target = Path(os.readlink(done / name))
        done = Path(target.anchor) if target.is_absolute() else done
        left = [*target.parts[1 if target.is_absolute() else 0 :], *left]
    return done


def _check_above(folder: Path, state: os.stat_result, named: _Guarded) -> None:
    """Raise CacheError if another user can replace what is in `folder`, a parent of the named folder."""
    if not stat.S_ISDIR(state.st_mode):
        raise NotADirectoryError(20, "Not a directory", str(folder))
    if state.st_uid not in _trusted():
        raise CacheError(f"{named} lies below {folder}, which belongs to another user; {named.advice}")
    mine = state.st_gid == os.getgid() == os.getuid()  # many systems give each user a group of their own
    shared = stat.S_IWOTH if mine else stat.S_IWOTH | stat.S_IWGRP
    if state.st_mode & shared and not state.st_mode & stat.S_ISVTX:
        who = "anybody" if state.st_mode & stat.S_IWOTH else "its group"
        raise CacheError(f"{named} lies below {folder}, which can be written by {who}; {named.advice}")


@cache
def _trusted() -> frozenset[int]:
    """Return the users who may own the cache's parents: this user, and root, whose ID differs in a namespace."""
    users = {0, os.getuid()}
    with suppress(OSError, ValueError):
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            users.add(int(Path("/proc/sys/kernel/overflowuid").read_text()))
    return frozenset(users)


def is_own_file(state: os.stat_result) -> bool:
    """Return whether this is a regular file with one name that this user owns and nobody else can write."""
    if not stat.S_ISREG(state.st_mode):
        return False
    if not _POSIX:
        return True
    return state.st_uid == os.getuid() and state.st_nlink == 1 and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def limit() -> int:
    """Return the bytes that the cache may take, from `$UNROLLED_CACHE_SIZE` in MiB. Raise ConfigurationError if that is
    not a number.
    """
    given = os.environ.get("UNROLLED_CACHE_SIZE") or str(LIMIT)
    if not re.fullmatch(r"\d{1,9}", given, re.ASCII):
        raise ConfigurationError(f"UNROLLED_CACHE_SIZE: expected a number of MiB, got {given!r}")
    return int(given) << 20
