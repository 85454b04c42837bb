"""The user's own cells by name: `FILE.py:CLASS`, where FILE.py is a path, or `package.module:CLASS`.

A name is checked without its class and without PyTorch. The class is made from source that is read once and executed as
a separate module. So two classes of one name from two files, or from two versions of a file, do not conflict.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import io
import linecache
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from unrolled.errors import ConfigurationError, UnrolledError

#: The form of such a name.
FORM = "FILE.py:CLASS"
#: The largest size of a source, in bytes.
_LONGEST = 1 << 20


@dataclass(frozen=True)
class OwnName:
    """`place:title`: a file or a module, and the name of a class in it."""

    place: str
    title: str

    @property
    def is_file(self) -> bool:
        return self.place.endswith(".py")

    def __str__(self) -> str:
        return f"{self.place}:{self.title}"


def parse_own(name: str) -> OwnName | None:
    """Return the parts of such a name; None if it is a name of another kind."""
    place, colon, title = name.rpartition(":")
    if not colon or not title.isidentifier():
        return None
    if place.endswith(".py") or all(part.isidentifier() for part in place.split(".")):
        return OwnName(place, title)
    return None


def cell_label(name: str) -> str:
    """Return a cell's name for use in a file's name. For a user's cell this is its class in lower case."""
    own = parse_own(name)
    return name if own is None else own.title.lower()


@dataclass(frozen=True)
class Source:
    """Python source that defines a class.

    path: the file's name in Python's error messages. package: where its relative imports start, if any.
    """

    content: bytes = field(repr=False)
    title: str
    path: str
    package: str = ""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def key(self) -> str:
        """A digest of what the source does. It includes the package, because relative imports depend on it."""
        return hashlib.sha256(f"{self.package}\n{self.sha256}".encode()).hexdigest() if self.package else self.sha256


def read_bytes(path: Path) -> bytes:
    """Return a source file's content; raise ConfigurationError if it cannot be read or is too long."""
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file", setting="cell") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})", setting="cell") from error
    if len(content) > _LONGEST:
        raise ConfigurationError(f"{path}: a cell's source may have at most {_LONGEST >> 20} MiB", setting="cell")
    return content


def read_source(name: OwnName) -> Source:
    """Return the current source of a name. To find it, a module is imported; a file is not executed.

    Raises ConfigurationError if there is no source.
    """
    if name.is_file:
        return Source(read_bytes(Path(name.place)), name.title, str(Path(name.place).absolute()))
    with _running(name.place):
        module = importlib.import_module(name.place)
    found = check_cell(_attribute(module, name.title, name.place), str(name))
    home = sys.modules.get(found.__module__)
    try:
        path = inspect.getsourcefile(found)
    except (TypeError, OSError):
        path = None
    if path is None or home is None or found.__qualname__ != found.__name__:
        raise ConfigurationError(f"{name}: cannot find its source, which a run must keep", setting="cell")
    return Source(read_bytes(Path(path)), found.__name__, path, home.__package__ or "")


#: Modules by the key of their source, so that a class that is looked up twice is one class.
_made: dict[str, ModuleType] = {}


def load_class(source: Source) -> type:
    """Execute a source and return the class that it defines.

    Raises ConfigurationError if this fails, or if the class is missing or is not a cell's class.
    """
    module = _made.get(source.key)
    if module is None:
        module = _made[source.key] = _execute(source)
    found = _attribute(module, source.title, source.path)
    return check_cell(found, f"{source.path}:{source.title}")


def _execute(source: Source) -> ModuleType:
    module = ModuleType(f"own_cell_{source.key[:32]}")
    module.__file__ = source.path
    if source.package:
        module.__package__ = source.package
    text = source.content.decode("utf-8", "replace")
    # Without a modification time, linecache never compares this with the file: tracebacks show what was executed.
    lines = io.StringIO(text, newline=None).readlines()
    linecache.cache[source.path] = (len(text), None, lines, source.path)
    sys.modules[module.__name__] = module
    try:
        with _running(source.path):
            exec(compile(source.content, source.path, "exec", dont_inherit=True), vars(module))
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


@contextmanager
def _running(path: str) -> Iterator[None]:
    """Turn whatever the user's code raises into a ConfigurationError that names it and the line in `path`."""
    try:
        yield
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise as_error(error, path) from error


def as_error(error: BaseException, path: str) -> ConfigurationError:
    """Turn an error of the user's code into an error of this package, with the last line of that code that ran.

    path: the file, or a module that could not be imported. In a module the line may be in any file that it imports.
    """
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno))
    importing = ("<frozen importlib", __file__, importlib.__file__)
    users = [place for place in places if not place[0].startswith(importing)]
    file, line = next((place for place in reversed(users) if place[0] == path), users[-1] if users else (path, None))
    said = (str(error.msg if isinstance(error, SyntaxError) else error).splitlines() or [""])[0]
    inside = "" if file == path else f"{path}: "
    where = f"{inside}{file}{f', line {line}' if line else ''}"
    return ConfigurationError(f"{where}: {type(error).__name__}{f': {said}' if said else ''}", setting="cell")


def _attribute(module: ModuleType, title: str, place: str) -> Any:
    if title in vars(module):
        return vars(module)[title]
    from torch import nn

    known = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__
    ]
    close = difflib.get_close_matches(title, known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    has = f"; it has {', '.join(known)}" if known else ""
    raise ConfigurationError(f"{place}: there is no class {title!r} in it{hint}{has}", setting="cell")


def check_cell(found: Any, name: str) -> type:
    """Return the class if it can be a cell's class; otherwise raise ConfigurationError, which uses `name`."""
    from torch import nn

    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise ConfigurationError(
            f"{name}: is not the class of a cell: derive it from unrolled.Cell or from torch.nn.Module",
            setting="cell",
        )
    try:
        inspect.signature(found).bind(1, 1)
    except TypeError as error:
        said = f"{name}: its constructor must take (input_size, hidden_size) and need nothing else: {error}"
        raise ConfigurationError(said, setting="cell") from error
    return found


#: The sources of the run that is being opened, in which names are looked up; None: look where the names say.
_kept: ContextVar[Mapping[str, Source] | None] = ContextVar("kept sources", default=None)


@contextmanager
def looked_up_in(sources: Mapping[str, Source]) -> Iterator[None]:
    """Inside this context, look up the user's cells only in `sources`, and read nothing from where their names say."""
    before = _kept.set(sources)
    try:
        yield
    finally:
        _kept.reset(before)


@contextmanager
def naming_lines(others: Callable[[], set[str]] = set) -> Iterator[None]:
    """Turn what a user's cell raises, when it is built or called, into a ConfigurationError that names the line.

    others: further files of users' code, asked for when something was raised, such as those of tasks.

    Out-of-memory errors and errors of this package are passed on unchanged.
    """
    try:
        yield
    except (UnrolledError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if _made and "modified by an inplace operation" in str(error):  # the backward pass does not say in which step
            names = ", ".join(str(module.__file__) for module in _made.values())
            said = f"{names}: a step changes a tensor in place that backward needs: write h = h + 1, not h.add_(1)"
            raise ConfigurationError(said, setting="cell") from error
        files = {module.__file__ for module in _made.values()} | others()
        passed = [frame.filename for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
        if not passed or "allocate memory" in str(error) or "out of memory" in str(error):
            raise
        raise as_error(error, passed[-1]) from error


def find_own(name: OwnName) -> Callable[..., Any]:
    """Return the class of that name: from the run that is being opened, or else from where the name says."""
    kept = _kept.get()
    if kept is None:
        return load_class(read_source(name))
    if str(name) not in kept:
        raise ConfigurationError(f"cell {str(name)!r}: its source is not kept in the run", setting="cell")
    return load_class(kept[str(name)])
