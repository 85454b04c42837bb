"""Compiles C to a library with the machine's own compiler, keeps it in the user's cache, and loads it.

A library's name is a hash of its source's digest, the flags, the compiler and the processor. A hash of the library's
bytes is stored next to it, so that a truncated or altered library is noticed and compiled again. The library is written
under a temporary name and then renamed. If several processes need a library at once, one compiles it and the others
wait. A library that `unrolled.cache` does not trust is not loaded.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unrolled.cache import Folder, cache_directory, open_cache
from unrolled.errors import CompilerError

_ALWAYS = (
    *("-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"),
    *("-shared", "-fPIC"),
)
#: A step compiles a sixth faster than with -O3 and runs as fast, because its loops ask to be vectorised.
_OPTIMISATION = "-O2"
#: Tried in this order, because some compilers have no OpenMP or do not know their own processor.
_CHOICES = (("-march=native", "-fopenmp"), ("-march=native", "-fopenmp-simd"), ("-fopenmp-simd",), ())
#: Seconds that a process waits for another process to compile.
_TIMEOUT = 60


def find(key: str) -> ctypes.CDLL | None:
    """Return the cached library of the C source whose digest is `key`, or None if there is none that can be trusted.

    CompilerError if the cache is not trusted, if there is no compiler, or if an intact library does not load.
    """
    name = _name(key)
    try:
        with open_cache() as folder:
            return None if folder is None else _loaded(folder, name)
    except OSError:  # `build` reports the error
        return None


def build(source: str, flags: str | None = None) -> ctypes.CDLL:
    """Return the loaded library of a C source, compiling it if necessary; CompilerError if that fails.

    flags: optimisation flags, in place of those of `optimisation`.
    """
    flags = optimisation() if flags is None else flags
    name = _name(digest(source.encode()), flags)
    try:
        with open_cache(make=True) as folder:
            assert folder is not None
            library = _loaded(folder, name)
            if library is None:
                with _compile_lock(folder, name):
                    library = _loaded(folder, name) or _make(source, folder, name, flags)
            return library
    except OSError as error:
        raise CompilerError(f"cannot write to the cache {cache_directory()}: {error.strerror or error}") from error


def optimisation() -> str:
    """Return the optimisation flags of a step: `$UNROLLED_CFLAGS`, or -O2. CompilerError if they cannot be split."""
    given = os.environ.get("UNROLLED_CFLAGS", _OPTIMISATION)
    try:
        shlex.split(given)
    except ValueError as error:
        raise CompilerError(f"UNROLLED_CFLAGS={given!r} cannot be split into flags: {error}") from error
    return given


def _name(key: str, flags: str | None = None) -> str:
    """Return the name of the library whose source has the digest `key`."""
    return digest(
        "\0".join([key, optimisation() if flags is None else flags, *_ALWAYS, *compiler(), _processor()]).encode()
    )[:32]


def _loaded(folder: Folder, name: str) -> ctypes.CDLL | None:
    if not _intact(folder, name):
        return None
    try:
        return _load(folder, name)
    except CompilerError:
        if _intact(folder, name):
            raise
        return None  # another process has just removed it to free space


def _load(folder: Folder, name: str) -> ctypes.CDLL:
    """Load a library from the checked folder, in which no other user can replace it.

    The path contains the library's name, because the loader returns the earlier library for a path that it has seen.
    """
    try:
        # Never closed, because `tools` returns addresses within the library.
        return ctypes.CDLL(folder.at(f"{name}.so"))
    except OSError as error:
        raise CompilerError(f"the compiled library cannot be loaded: {error}") from error


@contextmanager
def _compile_lock(folder: Folder, name: str) -> Iterator[None]:
    """Wait while another process compiles, perhaps the same library. After `_TIMEOUT`, go on without the lock."""
    from filelock import FileLock, Timeout  # its import takes longer than loading a cached library

    file = f".lock-{name[0]}"  # sixteen files, rather than one for each library
    folder.remove_foreign(file)
    lock = FileLock(folder.at(file), timeout=_TIMEOUT)
    try:
        lock.acquire()
    except (Timeout, NotImplementedError):  # the latter on file systems without locks
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _make(source: str, folder: Folder, name: str, flags: str) -> ctypes.CDLL:
    """Compile a library, write it to the folder, and load it from the workplace, where no process removes it."""
    file = f"{name}.so"
    with folder.workplace() as workplace:
        workplace.write("step.c", source.encode())
        for choice in _CHOICES:
            complaint = _call(
                [*compiler()[:-1], *shlex.split(flags), *_ALWAYS, *choice, "step.c", "-o", file, "-lm"], workplace
            )
            if complaint is None:
                break
        else:
            raise CompilerError(str(complaint))
        built = workplace.read(file)
        if built is None:
            raise CompilerError(f"{compiler()[0]} succeeds but writes no library")
        folder.write(file, built)
        folder.write(f"{name}.sha256", stated_digest(name, built))
        library = _load(workplace, name)
    folder.added(len(built))
    return library


def stated_digest(name: str, library: bytes) -> bytes:
    """Return the digest stored with a library or a plan, which shows that the content is whole and has this name."""
    return digest(name.encode() + b"\n" + library).encode()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _call(command: list[str], workplace: Folder) -> str | None:
    """Run a compiler in a folder. Return its first error, or None if it succeeds."""
    program = shutil.which(command[0])  # the path may be relative to the current directory
    try:
        result = subprocess.run(
            [os.path.abspath(program) if program else command[0], *command[1:]],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=workplace.at(""),
            umask=0o077 if os.name == "posix" else -1,  # a file that others can write is not trusted
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]} does not run: {error}"
    if result.returncode == 0:
        return None
    lines = result.stderr.splitlines() or ["no reason given"]
    return f"{command[0]} fails: {next((line for line in lines if 'error' in line), lines[0]).strip()}"


def _intact(folder: Folder, name: str) -> bool:
    """Return whether the library exists, belongs to the user, and is whole."""
    stated, library = folder.read(f"{name}.sha256"), folder.read(f"{name}.so")
    return library is not None and stated == stated_digest(name, library)


@functools.cache
def compiler() -> tuple[str, ...]:
    """Return the compiler's command, followed by its version text."""
    given = os.environ.get("CC")
    words = shlex.split(given) if given else next(([name] for name in ("cc", "gcc", "clang") if shutil.which(name)), [])
    if not words or not shutil.which(words[0]):
        raise CompilerError(
            f"CC={given!r} is no installed command; set CC to a C compiler"
            if given
            else "there is no C compiler; install one, or set CC to it"
        )
    try:
        result = subprocess.run([*words, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilerError(f"{words[0]} does not run: {error}") from error
    if result.returncode:
        raise CompilerError(f"{words[0]} --version fails: it is not a C compiler")
    return (*words, result.stdout)


@functools.cache
def _processor() -> str:
    """Return the processor's features, which `-march=native` depends on."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() + platform.machine()
    return next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), platform.machine())
