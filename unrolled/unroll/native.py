"""C to a loaded library: compiled once by the machine's own compiler, and kept in the user's cache.

A library's name is a hash of its source's, the compiler and the processor; beside it lies a hash of its own bytes, so
that a torn or altered one is noticed and made again. It is written under a temporary name and then renamed. Of several
processes that need it at once, one compiles and the others wait. What `unrolled.cache` does not trust is not loaded.
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
#: Compiles a step a sixth faster than -O3, and the step runs as fast: its loops ask to be vectorised.
_OPTIMISATION = "-O2"
#: Tried one after the other: some compilers have no OpenMP, or do not know their own processor.
_CHOICES = (("-march=native", "-fopenmp"), ("-march=native", "-fopenmp-simd"), ("-fopenmp-simd",), ())
#: Seconds that a process waits for another one's compiler.
_PATIENCE = 60


def find(key: str) -> ctypes.CDLL | None:
    """The kept library of the C source whose digest is `key`; None if there is none that can be trusted.

    CompilerError if the cache cannot be used.
    """
    name = _name(key)
    try:
        with open_cache() as folder:
            return None if folder is None else _loaded(folder, name)
    except OSError:  # `build` will say what it is
        return None


def build(source: str, flags: str | None = None) -> ctypes.CDLL:
    """The loaded library of a C source; CompilerError if there is no way to get one.

    flags: of optimisation, in place of those of `optimisation`.
    """
    flags = optimisation() if flags is None else flags
    name = _name(digest(source.encode()), flags)
    try:
        with open_cache(make=True) as folder:
            assert folder is not None
            library = _loaded(folder, name)
            if library is None:
                with _turn(folder, name):
                    library = _loaded(folder, name) or _make(source, folder, name, flags)
            return library
    except OSError as error:
        raise CompilerError(f"cannot write to the cache {cache_directory()}: {error.strerror or error}") from error


def optimisation() -> str:
    """The flags that a step is compiled with: `$UNROLLED_CFLAGS`, or -O2. CompilerError if they cannot be split."""
    given = os.environ.get("UNROLLED_CFLAGS", _OPTIMISATION)
    try:
        shlex.split(given)
    except ValueError as error:
        raise CompilerError(f"UNROLLED_CFLAGS, {given!r}, cannot be split into flags: {error}") from error
    return given


def _name(key: str, flags: str | None = None) -> str:
    """What a library is called, by the digest of its source."""
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
        return None  # another process has just removed it, for want of room


def _load(folder: Folder, name: str) -> ctypes.CDLL:
    """By way of the folder that was checked, in which nobody else can put another library in its place.

    The path has the library's name, since the loader takes a path that it knows for the library that was there before.
    """
    try:
        # Kept open for the life of the process: `tools` hands out addresses within it.
        return ctypes.CDLL(folder.at(f"{name}.so"))
    except OSError as error:
        raise CompilerError(f"the compiled library cannot be loaded: {error}") from error


@contextmanager
def _turn(folder: Folder, name: str) -> Iterator[None]:
    """Wait while another process makes a library, this one perhaps; but not forever, should it be stopped."""
    from filelock import FileLock, Timeout  # which takes longer to import than a kept library to load

    file = f".lock-{name[0]}"  # sixteen files, not one a library
    folder.remove_foreign(file)
    lock = FileLock(folder.at(file), timeout=_PATIENCE)
    try:
        lock.acquire()
    except (Timeout, NotImplementedError):  # the latter on disks that know no locks
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _make(source: str, folder: Folder, name: str, flags: str) -> ctypes.CDLL:
    """Compile it into the folder, and load it from where nobody removes it before."""
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
            raise CompilerError(f"{compiler()[0]} gives no library")
        folder.write(file, built)
        folder.write(f"{name}.sha256", stated_digest(name, built))
        library = _load(workplace, name)
    folder.added(len(built))
    return library


def stated_digest(name: str, library: bytes) -> bytes:
    """What is kept with a library or a plan, by which it is known to be whole, and the one of its name."""
    return digest(name.encode() + b"\n" + library).encode()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _call(command: list[str], workplace: Folder) -> str | None:
    """Run a compiler in a folder; what it complains of, None if all is well."""
    program = shutil.which(command[0])  # which may be given relative to the folder of now
    try:
        result = subprocess.run(
            [os.path.abspath(program) if program else command[0], *command[1:]],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=workplace.at(""),
            umask=0o077 if os.name == "posix" else -1,  # what others could write would not be read again
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]} does not run: {error}"
    if result.returncode == 0:
        return None
    lines = result.stderr.splitlines() or ["it gives no reason"]
    return f"{command[0]} fails: {next((line for line in lines if 'error' in line), lines[0]).strip()}"


def _intact(folder: Folder, name: str) -> bool:
    """Whether the library is there, of the user's own making, and whole."""
    stated, library = folder.read(f"{name}.sha256"), folder.read(f"{name}.so")
    return library is not None and stated == stated_digest(name, library)


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
