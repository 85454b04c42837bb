"""The run directory: everything that training writes and that sampling, evaluation and analysis read.

docs/runs.md describes its content; unrolled/training/migration.py reads older formats.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from filelock import FileLock, Timeout

from unrolled import __version__
from unrolled.errors import RunError
from unrolled.settings import from_json
from unrolled.training.links import is_plain_file, refuse_links

FORMAT = 2
#: The ending of the names of files that are not yet, or no longer, part of a run.
TEMPORARY = ".tmp"
#: The file that marks a directory whose data are still being prepared.
_PREPARING = ".preparing"


def one_line(error: BaseException) -> str:
    """Return an error's text, short enough for a part of another message."""
    said = getattr(error, "strerror", None) or str(error)
    return (said.splitlines() or [type(error).__name__])[0][:200]


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path` so that a reader or a crash sees either the old file or the new one, never a part.

    Raises RunError if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        temporary.unlink(missing_ok=True)  # left by a killed process with the same number
        with temporary.open("xb") as file:  # "x" follows no link
            file.write(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({one_line(error)})") from error
    finally:
        with suppress(OSError):  # the failure is already reported
            temporary.unlink()


@dataclass(frozen=True)
class Origin:
    """The source of a run's first weights: another run, with its path as it was given, and the checkpoint."""

    run: str
    checkpoint: str
    """The checkpoint that was requested: "best" or "last"."""
    step: int
    weights: str
    """SHA-256 of the file of weights, in hexadecimal digits."""

    def __str__(self) -> str:
        return f"{self.run}, {self.checkpoint} checkpoint at step {self.step:,} (SHA-256 {self.weights[:12]})"


@dataclass(frozen=True)
class Run:
    """An existing run directory; `task` is the kind of the task that it belongs to."""

    path: Path
    task: str
    config: dict[str, Any]
    origin: Origin | None = None
    """None if the first weights were drawn at random."""

    @classmethod
    def read(cls, path: str | Path) -> tuple[Run, int]:
        """Read a run and the version of its format, without migrating it; `open_run` does that.

        Raises RunError if there is no run, or if this version cannot read it.
        """
        path = Path(path)
        if not path.is_dir():
            raise RunError(f"{path}: no such run directory")
        refuse_links(path)
        try:
            stored = json.loads((path / "config.json").read_text("utf-8", "surrogateescape"))
            version, run = stored["format"], cls(path, stored["task"], stored["config"])
            if "origin" in stored:
                origin = from_json(Origin, stored["origin"], str(path / "config.json"))
                run = replace(run, origin=origin)
            if not isinstance(run.task, str) or not isinstance(run.config, dict):
                raise ValueError("its task must be a word, and its config an object")
        except FileNotFoundError:
            raise RunError(f"{path}: not a run directory (it has no config.json)") from None
        except OSError as error:
            raise RunError(f"{path / 'config.json'}: cannot be read ({one_line(error)})") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(f"{path / 'config.json'}: damaged or of another program ({error})") from error
        if not isinstance(version, int) or version > FORMAT:
            raise RunError(f"{path}: run format {version} of a newer unrolled; this version reads up to {FORMAT}")
        return run, version

    @classmethod
    @contextmanager
    def create(
        cls,
        path: str | Path,
        task: str,
        config: dict[str, Any],
        resumable: bool = True,
        origin: Origin | None = None,
    ) -> Iterator[Run]:
        """Create the directory, which the `with` block fills; after an error in the block it is removed again.

        Raises RunError if the directory is not empty.
        """
        path = Path(path)
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise RunError(
                f"{path}: TensorBoard cannot write to a path that is not UTF-8; choose another `out`",
                setting="out",
            ) from None
        if path.exists() and not path.is_dir():
            raise RunError(f"{path}: exists and is not a directory; choose another `out`", setting="out")
        if (path / "config.json").exists():
            or_resume = f", or continue that one with `resume={quote(str(path))}`" if resumable else ""
            raise RunError(f"{path}: holds another run; choose another `out`{or_resume}", setting=("out", "resume"))
        prepared_before = (path / _PREPARING).exists()
        if path.is_dir() and not prepared_before and any(child.name != ".lock" for child in path.iterdir()):
            raise RunError(f"{path}: is not empty; choose another `out`", setting="out")
        is_new = not path.exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            said = f"{path}: cannot create this directory ({one_line(error)}); choose another `out`"
            raise RunError(said, setting="out") from error
        run, started = cls(path, task, config, origin), False
        try:
            with run.locked():
                if (path / "config.json").exists():
                    raise RunError(f"{path}: holds another run; choose another `out`", setting="out")
                started = True
                (path / _PREPARING).touch()
                _clear(path)  # files that a killed process prepared
                yield run
                run.write_config(config)
                (path / _PREPARING).unlink()
        except BaseException:
            if started:
                _clear(path)
                for name in (_PREPARING, ".lock"):  # in this order, so that a kill in between leaves a usable directory
                    (path / name).unlink(missing_ok=True)
            if is_new:
                with suppress(OSError):
                    path.rmdir()
            raise

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing into this run within the block.

        Raises RunError if another process holds the lock, or if writing would change a file outside of the run.
        """
        refuse_links(self.path, to_write=True)
        # The holder of a singleton can lock it again: a command does, and then the loop that it calls.
        lock = FileLock(self.path / ".lock", timeout=0, is_singleton=True)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(f"{self.path}: another process is training this run") from None
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written to ({one_line(error)})") from error
        try:
            yield
        finally:
            lock.release()

    def locked_by_another(self) -> bool:
        """Return whether a process is training this run now."""
        return _is_locked(self.path)

    def remove_temporaries(self) -> None:
        """Remove the files that killed processes left; the caller must hold the lock."""
        for folder in (self.path, self.path / "checkpoints"):
            for path in folder.glob(f".*{TEMPORARY}"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (self.path / _PREPARING).unlink(missing_ok=True)

    def write_config(self, config: dict[str, Any]) -> None:
        stored: dict[str, Any] = {"format": FORMAT, "unrolled": __version__, "task": self.task}
        if self.origin is not None:
            stored["origin"] = asdict(self.origin)
        stored["config"] = config
        write_atomically(self.path / "config.json", json.dumps(stored, indent=2, ensure_ascii=False) + "\n")

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl; an incomplete last line, left by a crash, is skipped."""
        if not self.metrics_path.exists():
            return []
        lines = self.metrics_path.read_bytes().splitlines()
        records = []
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                if not all(isinstance(record[name], int | float) for name in ("step", "epoch", "seconds")):
                    raise ValueError("step, epoch and seconds must be numbers")
                records.append(record)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                if number < len(lines):
                    raise RunError(f"{self.metrics_path}:{number}: not a line of metrics ({error})") from error
        return records


def _is_locked(path: Path) -> bool:
    lock = path / ".lock"
    if not is_plain_file(lock):
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # nobody can train a run that cannot be written to
        return False


def _clear(path: Path) -> None:
    """Delete everything in a directory except its lock and the mark of its preparation."""
    for child in path.iterdir():
        if child.name not in (".lock", _PREPARING):
            shutil.rmtree(child) if child.is_dir() else child.unlink()


def next_free(folder: Path, stem: str) -> Path:
    """Return `folder/stem-N` with the first N that is unused or belongs to a preparation that was killed."""
    number = 1
    while (path := folder / f"{stem}-{number}").exists() and not _was_abandoned(path):
        number += 1
    return path


def _was_abandoned(path: Path) -> bool:
    """Return whether a directory holds only the preparations of a killed process."""
    return (path / _PREPARING).exists() and not (path / "config.json").exists() and not _is_locked(path)
