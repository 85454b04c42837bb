"""The cache takes no more room than it may, and whoever is about to use what goes makes it again."""

import ctypes
import os
import secrets
import time

import pytest

from tests.programs import PATIENCE, PRELOADED, started
from unrolled import cache
from unrolled.cache import Folder, open_cache
from unrolled.errors import ConfigurationError
from unrolled.unroll import native

SOURCE = "void run(void) {} int answer(void) { return %d; }"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(folder, count, size):
    """So many libraries with digests and plans, each used a minute later than the one before; their names."""
    folder.mkdir(mode=0o700)
    names = [f"{k:032x}" for k in range(count)]
    for k, name in enumerate(names):
        for suffix in (".so", ".sha256", ".plan"):
            path = folder / f"{name}{suffix}"
            path.write_bytes(bytes(size if suffix == ".so" else 1))
            used = time.time() - 60 * (count - k)
            os.utime(path, (used, used))
    return names


def trim():
    with open_cache() as opened:
        opened.trim()


def test_the_longest_unused_go_first(folder, monkeypatch):
    names = fill(folder, 40, 100_000)
    monkeypatch.setenv("UNROLLED_CACHE_SIZE", "2")
    trim()
    left = {path.stem for path in folder.iterdir()}
    assert left == set(names[-len(left) :])
    assert sum(path.stat().st_blocks * 512 for path in folder.iterdir()) <= 2 << 20
    assert 15 <= len(left) <= 20
    assert {path.suffix for path in folder.iterdir()} == {".so", ".sha256", ".plan"}
    assert len(list(folder.iterdir())) == 3 * len(left)


def test_there_are_not_too_many_files(folder, monkeypatch):
    names = fill(folder, 40, 10)
    monkeypatch.setattr(cache, "MOST_FILES", 31)
    trim()
    assert {path.stem for path in folder.iterdir()} == set(names[-10:])


def test_nothing_goes_below_the_bounds_and_nothing_that_is_not_its_own(folder, monkeypatch):
    fill(folder, 5, 10)
    for name in ("notes.txt", "tokens", "0" * 31 + ".so", "0" * 32 + ".txt"):
        (folder / name).mkdir() if name == "tokens" else (folder / name).write_text("mine")
    trim()
    assert len(list(folder.iterdir())) == 5 * 3 + 4
    monkeypatch.setenv("UNROLLED_CACHE_SIZE", "0")
    trim()
    assert {path.name for path in folder.iterdir()} == {"notes.txt", "tokens", "0" * 31 + ".so", "0" * 32 + ".txt"}


def test_the_folder_is_read_seldom_and_the_bounds_hold(folder, monkeypatch):
    looked = []
    real = Folder._entries
    monkeypatch.setattr(Folder, "_entries", lambda self: looked.append(self) or real(self))

    def add(count):
        with open_cache(make=True) as opened:
            for _ in range(count):
                opened.write(f"{secrets.token_hex(16)}.plan", bytes(10_000))
                opened.added(10_000)

    add(200)
    assert len(looked) <= 5
    monkeypatch.setattr(cache, "MOST_FILES", 250)
    add(200)
    assert len(list(folder.iterdir())) <= 250
    monkeypatch.setattr(cache, "MOST_FILES", 20_000)
    monkeypatch.setenv("UNROLLED_CACHE_SIZE", "1")
    add(200)
    assert sum(path.stat().st_blocks * 512 for path in folder.iterdir()) <= 1 << 20


def test_what_is_used_stays(folder, monkeypatch):
    names = fill(folder, 40, 100_000)
    monkeypatch.setattr(cache, "_USED", 1)
    with open_cache() as opened:
        assert opened.read(f"{names[0]}.so") is not None
    monkeypatch.setenv("UNROLLED_CACHE_SIZE", "2")
    trim()
    assert (folder / f"{names[0]}.so").exists()
    assert not (folder / f"{names[1]}.so").exists()


def test_what_killed_processes_left_goes_in_time(folder):
    fill(folder, 1, 10)
    for name, age in (("building-ab", 7200), ("building-cd", 60), ("saving-ab", 7200), ("saving-cd", 60)):
        path = folder / name
        if name.startswith("building"):
            path.mkdir(mode=0o700)
            (path / "step.c").write_text("")
        else:
            path.write_text("")
        os.utime(path, (time.time() - age,) * 2)
    trim()
    assert {path.name for path in folder.glob("*-*")} == {"building-cd", "saving-cd"}


@pytest.mark.parametrize("given", ["-1", "much", "1e3", "1.5", "٣"])
def test_a_bound_that_is_none_is_an_error(given, folder, monkeypatch):
    monkeypatch.setenv("UNROLLED_CACHE_SIZE", given)
    with pytest.raises(ConfigurationError, match="UNROLLED_CACHE_SIZE"):
        cache.limit()


def test_many_libraries_in_little_room_stay_loaded(folder, monkeypatch):
    monkeypatch.setenv("UNROLLED_CACHE_SIZE", "0")
    libraries = [native.build(SOURCE % k) for k in range(5)]
    assert [library.answer() for library in libraries] == list(range(5))
    assert not list(folder.glob("[!.]*"))


def test_a_library_that_goes_before_it_is_loaded_is_made_anew(folder, monkeypatch):
    native.build(SOURCE % 7)
    load, removed = ctypes.CDLL, []

    def late(path):
        if not removed:
            removed.extend(folder.glob("*.so"))
            removed[0].unlink()
        return load(path)

    monkeypatch.setattr(ctypes, "CDLL", late)
    assert native.build(SOURCE % 7).answer() == 7
    assert removed[0].exists()


def test_a_file_that_goes_while_the_cache_is_trimmed_is_passed_over(folder, monkeypatch):
    names = fill(folder, 10, 10)
    real = Folder.remove

    def twice(self, name):
        real(self, name)
        real(self, name)

    monkeypatch.setattr(Folder, "remove", twice)
    monkeypatch.setenv("UNROLLED_CACHE_SIZE", "0")
    trim()
    assert not [name for name in names if (folder / f"{name}.so").exists()]


PROCESS = """
import sys
from unrolled.unroll import native
for k in range(6):
    assert native.build(%r %% k).answer() == k
"""


def test_processes_that_trim_at_once_do_not_disturb_each_other(folder):
    environment = {**os.environ, "UNROLLED_CACHE": str(folder), "UNROLLED_CACHE_SIZE": "0"}
    words = [PRELOADED, "-c", PROCESS % SOURCE]
    with started(words, env=environment) as one, started(words, env=environment) as other:
        said = [(process.communicate(timeout=PATIENCE)[1], process.returncode) for process in (one, other)]
    assert said == [("", 0)] * 2
    assert not list(folder.glob("[!.]*"))
