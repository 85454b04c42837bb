"""Users' own cells in a run: their source is kept in the run, and executed only if this user trusts it.

For each own cell in the settings, `cells.json` gives the file that holds its source, and the digest. The settings that
name cells are `cell` and those whose names end in `_cell`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from unrolled.cells.own import Source, load_class, looked_up_in, naming_lines, parse_own, read_bytes, read_source
from unrolled.errors import ConfigurationError, RunError
from unrolled.settings import to_json
from unrolled.tasks.trust import allow, is_trusted, trust
from unrolled.training.run import Run, one_line, write_atomically

CELLS_FILE = "cells.json"
_SOURCE = re.compile(r"cell(?:-[2-9])?\.py")


def names_in(config: Any) -> list[str]:
    """Return the names of own cells in settings that were read from JSON."""
    found: dict[str, None] = {}
    for name, value in config.items() if isinstance(config, dict) else ():
        if isinstance(value, dict):
            found |= dict.fromkeys(names_in(value))
        elif isinstance(value, str) and (name == "cell" or name.endswith("_cell")) and parse_own(value):
            found[value] = None
    return list(found)


def read_cell(name: str) -> Source:
    """Return the current source of a cell, after running it once; ConfigurationError if it does not define the cell.

    The user named the file in order to run it, so this process may run it from now on.
    """
    own = parse_own(name)
    assert own is not None
    source = read_source(own)
    load_class(source)
    allow(source.key)
    return source


def keep_cells(run: Run, settings: Any, known: Mapping[str, Source]) -> None:
    """Write the source of the own cells in the settings into a new run, and trust it.

    known: the source of those cells that come from another run.

    Raises ConfigurationError if a name does not lead to a cell.
    """
    listed: dict[str, dict[str, str]] = {}
    files: dict[str, str] = {}  # one file for each digest
    for name in names_in(to_json(settings)):
        source = known.get(name) or read_cell(name)
        if source.sha256 not in files:
            files[source.sha256] = f"cell-{len(files) + 1}.py" if files else "cell.py"
            write_atomically(run.path / files[source.sha256], source.content)
        listed[name] = {"file": files[source.sha256], "class": source.title, "sha256": source.sha256}
        if source.package:
            listed[name]["package"] = source.package
        trust(source.key, source.path)
    if listed:
        write_atomically(run.path / CELLS_FILE, json.dumps(listed, indent=2, ensure_ascii=False) + "\n")


def kept_cells(run: Run) -> dict[str, Source]:
    """Return the source that a run keeps of each own cell in its settings, by name, without executing it.

    Raises RunError if a source is missing or has changed.
    """
    names = names_in(run.config)
    return {name: _kept(run, name, listed) for listed in ([_listed(run)] if names else []) for name in names}


def _listed(run: Run) -> Any:
    try:
        return json.loads((run.path / CELLS_FILE).read_text("utf-8", "surrogateescape"))
    except FileNotFoundError:
        raise RunError(f"{run.path}: {CELLS_FILE} is missing, so the source of its cell cannot be found") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{run.path / CELLS_FILE}: damaged ({one_line(error)})") from error


def _kept(run: Run, name: str, listed: Any) -> Source:
    try:
        entry = listed[name]
        file, title, digest, package = entry["file"], entry["class"], entry["sha256"], entry.get("package", "")
        if not _SOURCE.fullmatch(file) or not title.isidentifier() or not isinstance(package, str):
            raise ValueError("not a file of a run, or not a class")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError(f"{run.path / CELLS_FILE}: does not say where the cell {name!r} is kept") from error
    path = (run.path / file).absolute()
    try:
        source = Source(read_bytes(path), title, str(path), package)
    except ConfigurationError as error:
        raise RunError(f"{error}; it is the source of the run's cell") from error
    if source.sha256 != digest:
        raise RunError(
            f"{run.path / file}: has changed since the run was created (its SHA-256 differs from the one in "
            f"{CELLS_FILE})"
        )
    return source


def trust_cells(run: Run, *, keep: bool = True) -> None:
    """Trust the source that a run keeps, whoever wrote it: in this process and, if `keep`, in later ones."""
    for source in kept_cells(run).values():
        if keep:
            trust(source.key, source.path)
        else:
            allow(source.key)


def require_trusted(run: Run) -> dict[str, Source]:
    """Return the result of `kept_cells`; RunError if this user has not trusted one of the sources."""
    sources = kept_cells(run)
    for source in sources.values():
        if not is_trusted(source.key):
            raise RunError(
                f"{run.path}: its cell is Python code that you have not run before: read {source.path}, and "
                "add `trust` to run it",
                setting="trust",
            )
    return sources


@contextmanager
def cells_of(run: Run) -> Iterator[None]:
    """Resolve the names of own cells to the source that the run keeps, within the block.

    Raises RunError if this user has not trusted the source, or if it does not define the cell.
    """
    sources = require_trusted(run)
    with looked_up_in(sources), naming_lines():
        try:
            for source in sources.values():
                load_class(source)
        except ConfigurationError as error:
            raise RunError(f"{run.path}: its cell does not work here: {error}") from error
        yield
