"""The cache on hostile ground: what others could have changed is neither loaded nor run."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from tests.programs import PRELOADED, completed
from unrolled import cache
from unrolled.cache import open_cache
from unrolled.cells import CELLS
from unrolled.errors import CacheError, CompilerError
from unrolled.unroll import fallback, native, planned, unroll
from unrolled.unroll.compiled import tools
from unrolled.unroll.known import Known
from unrolled.unroll.store import load, save

if not hasattr(os, "getuid"):
    pytest.skip("owners and modes are those of POSIX", allow_module_level=True)
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
OTHER = 65534
#: A library that tells when it is loaded.
EVIL = """
#include <stdio.h>
__attribute__((constructor)) static void loaded(void) { FILE *file = fopen("%s", "w"); if (file) fclose(file); }
void run(void) {}
long tools[64];
"""


@pytest.fixture
def ground(tmp_path, monkeypatch):
    """A folder of the user's own, in which the cache is to be, and no plan in this process."""
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fallback, "_said", set())
    monkeypatch.setattr(planned, "_planned", Known())
    return tmp_path


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A cache with a cell in it."""
    folder = tmp_path_factory.mktemp("compiled") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNROLLED_CACHE", str(folder))
        tools.cache_clear()
        run_cell()
    return folder


@pytest.fixture
def filled(ground, compiled):
    """The same, the cell in the cache."""
    return Path(shutil.copytree(compiled, ground / "cache"))


@pytest.fixture
def evil(ground):
    """The path of a mark that a library leaves where it is loaded, and a call that plants it in a cache."""
    mark, built = ground / "loaded", ground / "evil.so"
    (ground / "evil.c").write_text(EVIL % mark)
    subprocess.run(["cc", "-shared", "-fPIC", ground / "evil.c", "-o", built], check=True)
    content = built.read_bytes()

    def plant(folder, owner=None):
        for path in folder.glob("*.so"):
            for file, what in (
                (path, content),
                (path.with_suffix(".sha256"), native.stated_digest(path.stem, content)),
            ):
                file.unlink(missing_ok=True)
                file.write_bytes(what)
                file.chmod(0o700)
                if owner is not None:
                    os.chown(file, owner, owner)

    return mark, plant


SOURCE = "void run(void) {} int answer(void) { return %d; }"


def answer(number=42):
    library = native.build(SOURCE % number)
    return library.answer()


def other_library(folder, number):
    """A cache in `folder` in which the library of `SOURCE % 42` answers `number`."""
    before = os.environ["UNROLLED_CACHE"]
    os.environ["UNROLLED_CACHE"] = str(folder)
    try:
        native.build(SOURCE % number)
        name = native._name(native.digest((SOURCE % 42).encode()))
        (built,) = [path for path in folder.glob("*.so") if path.stem != name]
        content = built.read_bytes()
        (folder / f"{name}.so").write_bytes(content)
        (folder / f"{name}.sha256").write_bytes(native.stated_digest(name, content))
        for path in folder.iterdir():
            path.chmod(0o600)
    finally:
        os.environ["UNROLLED_CACHE"] = before


def run_cell():
    """What a fresh process would do with a cell: the values, and those of the eager loop."""
    planned._planned.clear()
    torch.manual_seed(0)
    cell, x = CELLS["gru"](3, 4), torch.randn(4, 2, 3)
    outputs, _ = unroll(cell, x)
    torch.testing.assert_close(outputs, unroll(cell, x, backend="eager")[0])


def test_the_planted_library_of_these_tests_would_be_loaded(evil, filled):
    """As the user's own, which no check can tell from a good one: so that the tests below can fail."""
    mark, plant = evil
    plant(filled)
    program = (  # elsewhere: a process keeps what it has loaded, by its path
        "from pathlib import Path; from unrolled.cache import cache_directory, open_cache; from unrolled.unroll import native\n"
        "with open_cache() as folder:\n"
        "    assert all(native._loaded(folder, path.stem) for path in cache_directory().glob('*.so'))"
    )
    completed([PRELOADED, "-c", program], check=True)
    assert mark.exists()


# -- the folder ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "who"), [(0o770, "its group"), (0o720, "its group"), (0o707, "anybody"), (0o777, "")])
def test_a_cache_that_others_can_write(mode, who, evil, filled):
    mark, plant = evil
    plant(filled)
    filled.chmod(mode)
    with pytest.warns(match=f"can be written by {who}.*chmod go-w"):
        run_cell()
    assert not mark.exists()


@as_root
def test_a_cache_of_another_user(evil, filled):
    mark, plant = evil
    plant(filled, OTHER)
    os.chown(filled, OTHER, OTHER)
    with pytest.warns(match="belongs to another user"):
        run_cell()
    assert not mark.exists()


@as_root
@pytest.mark.parametrize("owner", [(OTHER, 0), (0, OTHER)])
def test_a_cache_below_a_folder_of_others(owner, evil, ground, compiled, monkeypatch):
    """They could put another folder of the user's in its place, which he has unpacked from somebody's archive."""
    monkeypatch.setenv("UNROLLED_CACHE", str(ground / "theirs" / "mine" / "cache"))
    shutil.copytree(compiled, ground / "theirs" / "mine" / "cache")
    mark, plant = evil
    plant(ground / "theirs" / "mine" / "cache")
    (ground / "theirs").chmod(0o775)
    os.chown(ground / "theirs", *owner)
    with pytest.warns(match=r"lies below .*theirs, which"):
        run_cell()
    assert not mark.exists()


def test_a_cache_below_a_folder_that_anybody_can_write(ground, monkeypatch):
    above = ground / "open"
    monkeypatch.setenv("UNROLLED_CACHE", str(above / "cache"))
    assert answer() == 42
    above.chmod(0o777)
    with pytest.raises(CacheError, match=r"lies below .*open, which can be written by anybody"):
        answer()
    above.chmod(0o1777)  # as /tmp: there nobody can rename what is another's
    assert answer() == 42


@as_root
def test_a_link_of_another_user_is_not_followed(ground, monkeypatch):
    assert answer() == 42
    (ground / "link").symlink_to(ground / "cache")
    os.chown(ground / "link", OTHER, OTHER, follow_symlinks=False)
    monkeypatch.setenv("UNROLLED_CACHE", str(ground / "link"))
    with pytest.raises(CacheError, match="link that another user owns"):
        answer()


def test_ones_own_links_are_followed(ground, monkeypatch):
    (ground / "real" / "deep").mkdir(parents=True, mode=0o700)
    (ground / "one").symlink_to("real")
    (ground / "real" / "two").symlink_to(ground / "one" / "deep" / ".." / "deep")
    for path in ("one/two", "real/two", "one/deep"):
        monkeypatch.setenv("UNROLLED_CACHE", str(ground / path))
        assert answer() == 42
    monkeypatch.chdir(ground)
    monkeypatch.setenv("UNROLLED_CACHE", "one/two")
    assert answer() == 42
    assert len(list((ground / "real" / "deep").glob("*.so"))) == 1


def test_links_in_a_circle_are_an_error(ground, monkeypatch):
    (ground / "a").symlink_to(ground / "b")
    (ground / "b").symlink_to(ground / "a")
    monkeypatch.setenv("UNROLLED_CACHE", str(ground / "a"))
    with pytest.raises(CompilerError):
        answer()


@as_root
def test_a_folder_that_is_exchanged_between_look_and_opening(ground, monkeypatch):
    """The race that was won in some of 300 starts, won every time."""
    assert answer(1) == 1
    other_library(ground / "theirs", 666)
    for path in (ground / "theirs", *(ground / "theirs").iterdir()):
        os.chown(path, OTHER, OTHER)
    opened = []
    real = os.open

    def flipping(path, flags, *rest, **words):
        if str(path) == str(ground / "cache") and not opened:
            opened.append(path)
            (ground / "cache").rename(ground / "away")
            (ground / "theirs").rename(ground / "cache")
        return real(path, flags, *rest, **words)

    monkeypatch.setattr(os, "open", flipping)
    with pytest.raises(CacheError, match="belongs to another user"):
        answer()
    assert opened


def test_a_link_in_the_place_of_the_folder_between_look_and_opening(ground, monkeypatch):
    other_library(ground / "theirs", 666)
    assert answer(1) == 1
    real = os.open

    def flipping(path, flags, *rest, **words):
        if str(path) == str(ground / "cache") and not (ground / "cache").is_symlink():
            (ground / "cache").rename(ground / "away")
            (ground / "cache").symlink_to(ground / "theirs")
        return real(path, flags, *rest, **words)

    monkeypatch.setattr(os, "open", flipping)
    with pytest.raises(CompilerError):
        answer()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs paths of descriptors")
@pytest.mark.parametrize("when", ["before the file is read", "before it is loaded"])
def test_a_folder_that_is_exchanged_later(when, ground, monkeypatch):
    """All goes by the descriptor: another folder under its name is never seen."""
    assert answer(1) == 1
    other_library(ground / "theirs", 666)
    done = []

    def flip():
        if not done:
            done.append(True)
            (ground / "cache").rename(ground / "away")
            (ground / "cache").symlink_to(ground / "theirs")

    if when == "before the file is read":
        real = cache.Folder.read
        monkeypatch.setattr(cache.Folder, "read", lambda *given: flip() or real(*given))
    else:
        load = ctypes.CDLL
        monkeypatch.setattr(ctypes, "CDLL", lambda path: flip() or load(path))
    assert answer() == 42
    assert done
    assert not list((ground / "theirs").glob("saving-*"))


# -- the files -------------------------------------------------------------------------------------------------------


@as_root
def test_a_cache_that_was_open_and_then_mended(evil, filled):
    mark, plant = evil
    plans = {path: path.read_bytes() for path in filled.glob("*.plan")}
    filled.chmod(0o777)
    plant(filled, OTHER)
    for path in plans:
        os.chown(path, OTHER, OTHER)
    filled.chmod(0o755)
    tools.cache_clear()
    run_cell()
    assert not mark.exists()
    assert {path.stat().st_uid for path in filled.iterdir()} == {0}
    assert {path: path.read_bytes() for path in plans} == plans


def of_two_names(path, evil):
    path.hardlink_to(evil)


def of_another_folder(path, evil):
    path.symlink_to(evil)


def writable(path, evil):
    shutil.copy(evil, path)
    path.chmod(0o766)


def writable_by_the_group(path, evil):
    shutil.copy(evil, path)
    path.chmod(0o770)


def pipe(path, evil):
    os.mkfifo(path)


def folder(path, evil):
    path.mkdir()


def dangling(path, evil):
    path.symlink_to(path.with_name("none"))


PUT = [of_two_names, of_another_folder, writable, writable_by_the_group, pipe, folder, dangling]


@pytest.mark.parametrize("kind", [".so", ".sha256"])
@pytest.mark.parametrize("put", PUT)
def test_libraries_that_are_not_the_users_own_are_made_anew(put, kind, evil, ground):
    assert answer(1) == 1
    mark, plant = evil
    name = native._name(native.digest((SOURCE % 42).encode()))
    for path in (ground / "cache").glob("*.s*"):
        path.rename((ground / "cache" / name).with_suffix(path.suffix))
    planted = shutil.copytree(ground / "cache", ground / "planted")
    plant(planted)
    path = (ground / "cache" / name).with_suffix(kind)
    path.unlink()
    put(path, planted / path.name)
    assert answer() == 42
    assert not mark.exists()
    with open_cache() as opened:
        assert native._intact(opened, name)


@pytest.mark.parametrize("put", PUT)
def test_plans_that_are_not_the_users_own_are_made_anew(put, filled):
    (path,) = filled.glob("*.plan")
    found = load(path.stem)
    path.rename(filled / "planted")
    put(path, filled / "planted")
    assert load(path.stem) is None
    (filled / "planted").unlink()
    save(path.stem, found)
    assert load(path.stem) is not None


def test_a_library_under_another_ones_name_is_not_loaded(ground):
    """Both are the user's own and whole, with their digests: somebody has renamed them while the cache was open."""
    assert answer(1) == 1
    (first,) = (ground / "cache").glob("*.so")
    name = native._name(native.digest((SOURCE % 42).encode()))
    for suffix in (".so", ".sha256"):
        first.with_suffix(suffix).rename((ground / "cache" / name).with_suffix(suffix))
    assert answer() == 42


def test_a_plan_under_another_ones_name_is_not_used(filled):
    (path,) = filled.glob("*.plan")
    assert load(path.stem) is not None
    other = path.with_name(f"{'0' * 32}.plan")
    path.rename(other)
    assert load(other.stem) is None


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_locks_are_not_taken_through_links(link, ground):
    answer(1)
    precious = ground / "precious"
    precious.write_text("precious")
    for digit in "0123456789abcdef":
        lock = ground / "cache" / f".lock-{digit}"
        lock.unlink(missing_ok=True)
        getattr(lock, link)(precious)
    assert answer() == 42
    assert precious.read_text() == "precious"
    assert sum(not path.is_symlink() and path.stat().st_nlink == 1 for path in (ground / "cache").glob(".lock-*")) == 1


def test_what_is_written_is_the_users_alone_whatever_the_umask(ground, monkeypatch):
    monkeypatch.setenv("UNROLLED_CACHE", str(ground / "new" / "cache"))
    before = os.umask(0)
    try:
        run_cell()
    finally:
        os.umask(before)
    assert (ground / "new").stat().st_mode & 0o777 == 0o700
    for path in (ground / "new" / "cache").glob("[!.]*"):
        assert path.stat().st_mode & 0o077 == 0
    assert answer() == 42


def test_the_digests_of_kept_plans_hold_no_code(filled):
    """No C, and no Python: names of operations, numbers, and the digest of the C that is generated here."""
    (path,) = filled.glob("*.plan")
    text = path.read_text()
    assert not any(word in text for word in ("def ", "void", "import", "#include", "{\n", "lambda", "torch."))
