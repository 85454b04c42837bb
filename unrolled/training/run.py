"""The run directory: everything that training writes and that sampling, evaluation and analysis read.

RUN/config.json            task, version and settings
RUN/vocabulary.json        text to tokens and back
RUN/tokens.bin, .json      the encoded text
RUN/checkpoints/           weights and training state, named by step; index.json says which is last and best
RUN/metrics.jsonl          one line a logged step or validation
RUN/samples.txt            the samples shown while training
RUN/tensorboard/           the same curves as events
RUN/loss.png               the curves as a picture
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unrolled import __version__
from unrolled.errors import RunError

FORMAT = 1


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text`, such that a reader or a crash sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@dataclass(frozen=True)
class Run:
    """A run directory that exists; `task` says which program it belongs to."""

    path: Path
    task: str
    config: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """RunError where there is no run, or one that this version cannot read."""
        path = Path(path)
        if not path.is_dir():
            raise RunError(f"{path}: no such run directory")
        try:
            stored = json.loads((path / "config.json").read_text("utf-8", "surrogateescape"))
            if stored["format"] != FORMAT:
                raise RunError(f"{path}: run format {stored['format']}, this version of unrolled reads {FORMAT}")
            return cls(path, stored["task"], stored["config"])
        except FileNotFoundError:
            raise RunError(f"{path}: not a run directory (it has no config.json)") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(f"{path / 'config.json'}: damaged or of another program ({error})") from error

    @classmethod
    @contextmanager
    def create(cls, path: str | Path, task: str, config: dict[str, Any], resumable: bool = True) -> Iterator[Run]:
        """Make the directory for the preparations inside the `with` block; if they fail, it is taken away again.

        RunError where the directory holds anything already.
        """
        path = Path(path)
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise RunError(
                f"{path}: TensorBoard cannot write to a path that is not UTF-8; choose another --out"
            ) from None
        if path.exists() and not path.is_dir():
            raise RunError(f"{path}: exists and is not a directory; choose another --out")
        if (path / "config.json").exists():
            or_resume = f", or continue that one with --resume {path}" if resumable else ""
            raise RunError(f"{path}: holds another run; choose another --out{or_resume}")
        if path.is_dir() and any(path.iterdir()):
            raise RunError(f"{path}: is not empty; choose another --out")
        made = not path.exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{path}: cannot make this directory ({error.strerror}); choose another --out") from error
        try:
            run = cls(path, task, config)
            yield run
            run.write_config(config)
        except BaseException:
            for child in path.iterdir():
                shutil.rmtree(child) if child.is_dir() else child.unlink()
            if made:
                path.rmdir()
            raise

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training this run meanwhile; RunError where one does already."""
        try:
            # A singleton may be taken again by its holder: by a command, and by the loop that it calls.
            with FileLock(self.path / ".lock", timeout=0, is_singleton=True):
                yield
        except Timeout:
            raise RunError(f"{self.path}: another process is training this run") from None

    def write_config(self, config: dict[str, Any]) -> None:
        stored = {"format": FORMAT, "unrolled": __version__, "task": self.task, "config": config}
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


def next_free(folder: Path, stem: str) -> Path:
    """`folder/stem-1`, or with the first number that is not taken."""
    number = 1
    while (folder / f"{stem}-{number}").exists():
        number += 1
    return folder / f"{stem}-{number}"
