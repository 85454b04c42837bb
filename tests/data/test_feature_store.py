"""A store of features has the right values for every picture that it has, whatever happens while it is written."""

import hashlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.data.feature_store import FeatureStore, picture_key
from unrolled.errors import DataError, ShapeError

D, P, C = 21, 3, 4
#: The program of another process: it adds pictures from the first to before the last number, some at a time.
PROGRAM = """
import sys
from tests.data.test_feature_store import add, keys, opened
first, last, step = map(int, sys.argv[1:4])
store = opened()
print("ready", flush=True)
sys.stdin.readline()
for k in range(first, last, step):
    add(store, keys(k, min(last, k + step)))
"""


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def opened(name="own-0123"):
    return FeatureStore(name, D, P, C)


def keys(first, end):
    return [hashlib.sha256(b"%d" % number).hexdigest() for number in range(first, end)]


def features(some):
    """Features that follow from the keys, so that every row can be checked."""
    values = [np.random.default_rng(int(key[:8], 16)).normal(0, 3, D + P * C).astype(np.float32) for key in some]
    every = np.array(values, np.float32).reshape(len(some), D + P * C)
    return every[:, :D], every[:, D:].reshape(-1, P, C)


def add(store, some):
    store.add(some, *features(some))


def check(store, some):
    """Check the values of those of the pictures that have a row, and return how many these are."""
    rows = store.rows(some)
    there = [key for key, row in zip(some, rows, strict=True) if row >= 0]
    found = rows[rows >= 0]
    assert len(set(found)) == len(found) == len(store)
    for values, wanted, shape in zip(
        (store.vectors(found), store.grids(found)), features(there), ((D,), (P, C)), strict=True
    ):
        assert values.dtype == np.float16
        assert values.shape == (len(there), *shape)
        assert (np.abs(values - wanted) <= 1e-3 * np.maximum(1, np.abs(wanted))).all()
    return len(there)


def other_process(*arguments, program=PROGRAM, **options):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_what_was_added_is_found_by_every_store_of_the_encoder(cache):
    first, second, other = opened(), opened(), opened("other/net-0123")
    assert first.missing(keys(0, 3)) == keys(0, 3)
    assert list(first.rows(keys(0, 2))) == [-1, -1]
    add(first, keys(0, 3))
    add(second, keys(2, 6))
    assert first.missing([*keys(5, 8), *keys(6, 7)]) == keys(6, 8)
    for store in (first, second, opened()):
        assert check(store, keys(0, 6)) == 6
    assert list(opened().rows(["", "no key", *keys(1, 2)])) == [-1, -1, 1]
    assert len(other) == 0
    assert {path.stat().st_mode & 0o077 for path in cache.iterdir()} == {0}


@given(batches=st.lists(st.lists(st.integers(0, 30), max_size=6), max_size=6))
def test_a_picture_has_one_row_however_often_it_is_added(tmp_path_factory, batches):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNROLLED_CACHE", str(tmp_path_factory.mktemp("cache")))
        store = opened()
        for batch in batches:
            add(store, [keys(number, number + 1)[0] for number in batch])
        assert check(store, keys(0, 31)) == len({number for batch in batches for number in batch})


@given(index=st.floats(0, 1), rows=st.floats(0, 1), more=st.integers(0, 12), zeros=st.booleans())
def test_what_a_power_failure_leaves_is_used_as_far_as_it_is_whole(tmp_path_factory, index, rows, more, zeros):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNROLLED_CACHE", str(tmp_path_factory.mktemp("cache")))
        add(opened(), keys(0, 8))
        store = opened()
        kept = {}
        for path, share in ((store._index, index), (store.path, rows)):
            content = path.read_bytes()
            kept[path] = int(share * len(content))
            # Values reach the disk before their entries, so only the end of the index may be zeros.
            end = bytes(len(content) - kept[path]) if zeros and path == store._index else b""
            path.write_bytes(content[: kept[path]] + end)
        entries = (kept[store._index] - len(store._header)) // 36
        whole = max(0, min(entries, kept[store.path] // (2 * (D + P * C))))
        store = opened()
        assert whole <= check(store, keys(0, 20)) <= whole + zeros  # an entry may end in zeros itself
        add(store, keys(0, 8 + more))
        assert check(opened(), keys(0, 20)) == 8 + more


@pytest.mark.parametrize("moment", [1, 7, 30])
def test_a_process_may_be_killed_at_any_time(moment):
    process = other_process(0, 10**6, 3)
    process.stdin.write("\n")
    process.stdin.flush()
    store, limit = opened(), time.monotonic() + 60
    while len(store) < moment and time.monotonic() < limit:
        store.missing([])
    process.kill()
    process.communicate()
    store.missing([])  # reads what was added since
    count = check(store, keys(0, len(store) + 10))
    assert count >= moment
    add(store, keys(0, count + 5))
    assert check(opened(), keys(0, count + 10)) == count + 5


def test_several_processes_may_add_at_once():
    processes = [other_process(first, first + 60, step) for first, step in ((0, 7), (20, 3), (40, 5))]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    store = opened()
    for process in processes:
        while process.poll() is None:
            check(store, keys(0, 100))
        assert process.communicate()[1] == ""
    assert check(store, keys(0, 100)) == 100


def test_a_full_disk_is_an_error_of_one_line_and_loses_nothing():
    resource = pytest.importorskip("resource")
    row = 2 * (D + P * C)
    full = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10 * row + 3,) * 2)  # noqa: E731
    process = other_process(0, 100, 4, preexec_fn=full)
    said = process.communicate("\n")[1].splitlines()[-1]
    assert "DataError" in said
    assert "own-0123.rows: cannot be written (File too large); the 8 pictures that are encoded are kept; free" in said
    store = opened()
    assert store.path.stat().st_size == 8 * row
    assert check(store, keys(0, 100)) == 8
    add(store, keys(0, 100))
    assert check(opened(), keys(0, 100)) == 100


def test_a_disk_that_is_full_when_the_index_is_written(monkeypatch):
    store = opened()
    add(store, keys(0, 2))
    from unrolled.data import feature_store

    write = feature_store._write

    def fail(file, start, content):
        if len(content) == 3 * 36:
            write(file, start, content[:50])  # one entry and a part of the next
            raise OSError(28, "No space left on device")
        write(file, start, content)

    with monkeypatch.context() as patch:
        patch.setattr(feature_store, "_write", fail)
        with pytest.raises(DataError, match="No space left on device"):
            add(store, keys(2, 5))
    assert check(store, keys(0, 9)) == check(opened(), keys(0, 9)) == 3
    add(store, keys(4, 9))
    assert check(opened(), keys(0, 9)) == 8


@pytest.mark.parametrize("gone", ["both", "index", "rows"])
def test_files_may_be_deleted_while_they_are_read(gone):
    store = opened()
    add(store, keys(0, 5))
    rows = store.rows(keys(0, 5))
    for path in (store.path, store._index):
        if gone in ("both", path.suffix[1:]):
            path.unlink()
    other = opened()
    add(other, keys(3, 9))
    assert np.allclose(store.vectors(rows), features(keys(0, 5))[0], rtol=1e-3, atol=1e-3)
    assert check(store, keys(0, 9)) == 6


def test_rows_that_are_lost_are_missing_again():
    store = opened()
    add(store, keys(0, 5))
    check(store, keys(0, 5))
    os.truncate(store.path, 3 * 2 * (D + P * C) + 1)
    assert check(store, keys(0, 5)) == 3
    assert store.missing(keys(0, 5)) == keys(3, 5)
    add(store, keys(0, 5))
    assert check(store, keys(0, 5)) == check(opened(), keys(0, 5)) == 5


def test_a_store_that_somebody_else_can_change_is_not_read(tmp_path):
    if not hasattr(os, "getuid"):
        pytest.skip("modes are those of POSIX")
    store = opened()
    add(store, keys(0, 5))
    store.path.chmod(0o666)
    with pytest.raises(DataError, match="other users can change it"):
        opened()
    store.path.chmod(0o600)
    store._index.rename(tmp_path / "elsewhere")
    store._index.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="cannot be written"):
        add(opened(), keys(5, 6))


def test_what_does_not_fit_is_an_error():
    store = opened()
    vectors, grids = features(keys(0, 2))
    with pytest.raises(DataError, match="above 65,504"):
        store.add(keys(0, 2), vectors * 1e6, grids)
    with pytest.raises(ShapeError, match=r"\(8,\), \(3, 4\)\) of each picture in place of \(\(21,\), \(3, 4"):
        store.add(keys(0, 2), np.zeros((2, 8), np.float32), grids)
    add(store, keys(0, 2))
    with pytest.raises(IndexError, match="-1"):
        store.vectors(store.rows(keys(1, 3)))
    assert store.grids(np.zeros(0, np.int64)).shape == (0, P, C)


def test_a_cache_that_cannot_be_used_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be written .*set UNROLLED_CACHE"):
        opened()


def test_the_key_is_that_of_the_content(tmp_path):
    for name, content in (("a.jpg", b"one"), ("b.jpg", b"one"), ("c.jpg", b"two")):
        (tmp_path / name).write_bytes(content)
    assert picture_key(tmp_path / "a.jpg") == hashlib.sha256(b"one").hexdigest() == picture_key(tmp_path / "b.jpg")
    assert picture_key(tmp_path / "c.jpg") != picture_key(tmp_path / "a.jpg")
    for name in ("missing.jpg", "."):
        with pytest.raises(DataError, match="cannot be read as a picture"):
            picture_key(tmp_path / name)
