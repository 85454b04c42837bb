"""The run directory: everything that training writes and that sampling, evaluation and analysis read.

docs/runs.md says what is in it; unrolled/training/migration.py reads the older forms.
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
#: How the name of everything ends that is not yet, or no longer, part of a run.
TEMPORARY = ".tmp"
#: In a directory whose text is still being read.
_PREPARING = ".preparing"


def one_line(error: BaseException) -> str:
    """What an error says, short enough to stand inside a message."""
    said = getattr(error, "strerror", None) or str(error)
    return (said.splitlines() or [type(error).__name__])[0][:200]


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path`, such that a reader or a crash sees the old file or the new one, never a part.

    RunError if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        temporary.unlink(missing_ok=True)  # of a killed process that had this number
        with temporary.open("xb") as file:  # which follows no link
            file.write(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({one_line(error)})") from error
    finally:
        with suppress(OSError):  # what failed has been said
            temporary.unlink()


@dataclass(frozen=True)
class Origin:
    """Where a run's first weights come from: another run, as its path was given, and the checkpoint that was read."""

    run: str
    checkpoint: str
    """Which one was asked for: "best" or "last"."""
    step: int
    weights: str
    """SHA-256 of its file of weights, in hexadecimal digits."""

    def __str__(self) -> str:
        return f"{self.run}, {self.checkpoint} checkpoint at step {self.step:,} (SHA-256 {self.weights[:12]})"


@dataclass(frozen=True)
class Run:
    """A run directory that exists; `task` says which program it belongs to."""

    path: Path
    task: str
    config: dict[str, Any]
    origin: Origin | None = None
    """None if the first weights were drawn at random."""

    @classmethod
    def read(cls, path: str | Path) -> tuple[Run, int]:
        """The run as it lies there, and the version of its format, at most today's; `open_run` brings it up to date.

        RunError if there is no run, or one that this version cannot read.
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
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
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
        """Make the directory for the preparations inside the `with` block; if they fail, it is taken away again.

        RunError if the directory holds anything already.
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
        made = not path.exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            said = f"{path}: cannot make this directory ({one_line(error)}); choose another `out`"
            raise RunError(said, setting="out") from error
        run, started = cls(path, task, config, origin), False
        try:
            with run.locked():
                if (path / "config.json").exists():
                    raise RunError(f"{path}: holds another run; choose another `out`", setting="out")
                started = True
                (path / _PREPARING).touch()
                _clear(path)  # what a killed process had prepared
                yield run
                run.write_config(config)
                (path / _PREPARING).unlink()
        except BaseException:
            if started:
                _clear(path)
                for name in (_PREPARING, ".lock"):  # in this order: what is left by a kill between them is still free
                    (path / name).unlink(missing_ok=True)
            if made:
                with suppress(OSError):
                    path.rmdir()
            raise

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing into this run meanwhile; RunError if one does already, or where what is
        written would change something outside of it.
        """
        refuse_links(self.path, to_write=True)
        # A singleton may be taken again by its holder: by a command, and by the loop that it calls.
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
        """Whether some process is training this run now."""
        return _is_locked(self.path)

    def remove_temporaries(self) -> None:
        """Take away what killed processes left; only for the holder of the lock."""
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
        """The lines of metrics.jsonl; a torn last line, as a crash leaves it, is passed over."""
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
    except OSError:  # where nobody can write, nobody trains
        return False


def _clear(path: Path) -> None:
    """Empty a directory but for its lock and the mark that it is being prepared."""
    for child in path.iterdir():
        if child.name not in (".lock", _PREPARING):
            shutil.rmtree(child) if child.is_dir() else child.unlink()


def next_free(folder: Path, stem: str) -> Path:
    """`folder/stem-1`, or with the first number that is not taken, or taken by preparations that were killed."""
    number = 1
    while (path := folder / f"{stem}-{number}").exists() and not _was_abandoned(path):
        number += 1
    return path


def _was_abandoned(path: Path) -> bool:
    """Whether this directory holds nothing but what a killed process had prepared."""
    return (path / _PREPARING).exists() and not (path / "config.json").exists() and not _is_locked(path)
