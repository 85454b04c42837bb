"""C to a loaded library: compiled once by the machine's own compiler, and kept in the user's cache.

A library's name is a hash of its source, the compiler and the processor; beside it lies a hash of its own bytes, so
that a torn or altered one is noticed and made anew. It is written under a temporary name and then renamed. Of several
processes that need it at once, one compiles and the others wait.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unrolled.cache import cache_directory
from unrolled.errors import CompilerError

_ALWAYS = (
    *("-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"),
    *("-shared", "-fPIC"),
)
#: Tried one after the other: some compilers have no OpenMP, or do not know their own processor.
_CHOICES = (("-march=native", "-fopenmp"), ("-march=native", "-fopenmp-simd"), ("-fopenmp-simd",), ())
#: Seconds that a process waits for another one's compiler.
_PATIENCE = 60


def build(source: str) -> ctypes.CDLL:
    """The loaded library of a C source; CompilerError where there is no way to get one."""
    name = hashlib.sha256("\0".join([source, *_ALWAYS, *compiler(), _processor()]).encode()).hexdigest()[:32]
    directory = cache_directory()
    check_owner(directory)
    library = directory / f"{name}.so"
    if not _intact(library):
        try:
            _compile(source, directory, library)
        except OSError as error:
            raise CompilerError(f"cannot write to the cache {directory}: {error.strerror or error}") from error
    try:
        # Kept open for the life of the process: `_products` hands out addresses within it.
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise CompilerError(f"the compiled library cannot be loaded: {error}") from error


def _compile(source: str, directory: Path, library: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_owner(directory)
    with _turn(directory, library.name):
        if not _intact(library):
            _make(source, directory, library)


@contextmanager
def _turn(directory: Path, name: str) -> Iterator[None]:
    """Wait while another process makes a library, this one perhaps; but not for ever, should it be stopped."""
    from filelock import FileLock, Timeout  # which takes longer to import than a kept library to load

    lock = FileLock(directory / f".lock-{name[0]}", timeout=_PATIENCE)  # sixteen files, not one a library
    try:
        lock.acquire()
    except (Timeout, NotImplementedError):  # the latter on disks that know no locks
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _make(source: str, directory: Path, library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=directory, prefix="building-") as workplace:
        code, built = Path(workplace, "step.c"), Path(workplace, "step.so")
        code.write_text(source, encoding="utf-8")
        for choice in _CHOICES:
            complaint = _call([*compiler()[:-1], *_ALWAYS, *choice, str(code), "-o", str(built), "-lm"])
            if complaint is None:
                break
        else:
            raise CompilerError(complaint)
        stated = Path(workplace, "digest")
        stated.write_text(digest(built.read_bytes()), encoding="utf-8")
        os.replace(built, library)
        os.replace(stated, library.with_suffix(".sha256"))


def check_owner(directory: Path) -> None:
    """CompilerError where others could have put something into the cache: what is found there is run."""
    if not hasattr(os, "getuid") or not directory.is_dir():
        return
    state = directory.stat()
    if state.st_uid != os.getuid():
        raise CompilerError(f"the cache {directory} belongs to another user")
    if state.st_mode & stat.S_IWOTH:
        raise CompilerError(f"the cache {directory} can be written by anybody: chmod o-w it")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _call(command: list[str]) -> str | None:
    """Run a compiler; what it complains of, None where all is well."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]} does not run: {error}"
    if result.returncode == 0:
        return None
    lines = result.stderr.splitlines() or ["it gives no reason"]
    return f"{command[0]} fails: {next((line for line in lines if 'error' in line), lines[0]).strip()}"


def _intact(library: Path) -> bool:
    try:
        stated = library.with_suffix(".sha256").read_text(encoding="utf-8")
        return stated == digest(library.read_bytes())
    except (OSError, UnicodeDecodeError):
        return False


@functools.cache
def compiler() -> tuple[str, ...]:
    """The compiler's command, and last what it says of its version."""
    given = os.environ.get("CC")
    words = shlex.split(given) if given else next(([name] for name in ("cc", "gcc", "clang") if shutil.which(name)), [])
    if not words or not shutil.which(words[0]):
        raise CompilerError(
            f"the C compiler that CC names, {given!r}, is not there" if given else "there is no C compiler"
        )
    try:
        result = subprocess.run([*words, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilerError(f"{words[0]} does not run: {error}") from error
    if result.returncode:
        raise CompilerError(f"{words[0]} --version fails: it is no C compiler")
    return (*words, result.stdout)


@functools.cache
def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() + platform.machine()
    return next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), platform.machine())
