"""A task's name, its settings and what can be reported about its runs, without its model and without PyTorch."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from unrolled.cells import cell_label
from unrolled.data.lines import read_json
from unrolled.errors import DataError, RunError
from unrolled.settings import from_json
from unrolled.training.run import write_atomically

if TYPE_CHECKING:
    from unrolled.training import Run

FACTS_FILE = "facts.json"
#: As much of a file is looked at to see whether it is still the one that was counted.
_LOOKED_AT = 1 << 20


@dataclass(frozen=True)
class NoFlags:
    """The flags for `eval` of a task that has none."""


class TaskInfo:
    """What the help of `train` and `info` report about a task and one of its runs.

    name: as it is typed, `train NAME`. kind: what its runs are marked with (as `name`).
    help: what the help of `train NAME` says first (the docstring of the class that sets `name`).
    Settings: a dataclass of sections, of which `training` is a `TrainingConfig`.
    Evaluation: a dataclass of the flags that `eval` takes for its runs.
    checkpoints: the weights that can be asked for.
    unit, counted: what a batch is made of, and what its targets are called, in the plural.
    resumable: whether a stopped run can go on.
    inherited: what a run that starts from another's weights takes of its settings, by section, or by setting as
        "section.name": "fixed", and must take; "default", where the user gives no other; "new", not at all.
    numbers: the names in `counts`.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    help: ClassVar[str]
    Settings: ClassVar[type]
    Evaluation: ClassVar[type] = NoFlags
    checkpoints: ClassVar[tuple[str, ...]] = ("best", "last")
    unit: ClassVar[str] = "sequences"
    counted: ClassVar[str] = "targets"
    resumable: ClassVar[bool] = True
    inherited: ClassVar[Mapping[str, str]] = {"model": "fixed"}
    numbers: ClassVar[tuple[str, ...]] = ("parameters",)

    run: Run
    config: Any
    device: Any

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = vars(cls)
        if "name" in own and "kind" not in own:
            cls.kind = cls.name
        if "name" in own and "help" not in own and own.get("__doc__"):
            cls.help = inspect.cleandoc(own["__doc__"])

    @classmethod
    def run_name(cls, settings: Any) -> str:
        """What a new run is called where the user does not say."""
        cell = getattr(getattr(settings, "model", None), "cell", None)
        return f"{cls.name}-{cell_label(str(cell))}" if cell else cls.name

    @classmethod
    def settings_of(cls, run: Run) -> Any:
        """The settings of a run; RunError if it is a run of another task, or its settings make no sense."""
        if run.task != cls.kind:
            raise RunError(f"{run.path}: a run of task {run.task!r}, not of {cls.kind!r}")
        return from_json(cls.Settings, cls.upgrade(run.config), str(run.path / "config.json"))

    @classmethod
    def upgrade(cls, config: dict[str, Any]) -> dict[str, Any]:
        """A run's stored settings as this version has them, from those of any version before."""
        return config

    def __init__(self, run: Run, device: str | None = None) -> None:
        """Of a run, without its model."""
        self.run, self.config, self.device = run, self.settings_of(run), device or "cpu"

    @property
    def counts(self) -> dict[str, int]:
        """What the facts count, by the names in `numbers`, as it was kept; RunError if it is not."""
        stored = stored_counts(self.run, self.numbers)
        if stored is None:
            raise RunError(f"{self.run.path}: holds no {FACTS_FILE}, or one of other files")
        return stored

    def facts(self) -> list[tuple[str, str]]:
        """What a user may want to know of the run, by name."""
        return [("model", f"{self.counts['parameters']:,} parameters, on {self.device}")]

    @property
    def batches(self) -> str:
        """What an update is computed from, in words."""
        return f"{self.config.training.batch_size} {self.unit}"

    def uses(self) -> list[tuple[str, str]]:
        """Commands that use a trained run, each after one word; `{run}` stands for its path."""
        return [("score", "unrolled eval {run}")]

    def describe(self, loss: float) -> str:
        """A loss in the words of the task."""
        return f"loss {loss:.4f}"


def sections(settings: type) -> dict[str, Any]:
    """The sections of a task's settings, by name, each with its defaults."""
    made = settings()
    return {each.name: getattr(made, each.name) for each in fields(settings)}


def without_streams(config: dict[str, Any]) -> dict[str, Any]:
    """A run's settings without those of streams, which every run had before December 2026."""
    training = config.get("training")
    if not isinstance(training, dict):
        return config
    gone = ("seq_length", "backward_length", "carry_state")
    return {**config, "training": {name: value for name, value in training.items() if name not in gone}}


def keep_counts(run: Run, counts: dict[str, int]) -> None:
    """Write into a run what was counted of its files as they are; RunError if it cannot be written."""
    prepared = [path for path in sorted(run.path.iterdir()) if path.suffix in (".json", ".bin", ".safetensors")]
    known = {path.name: _stamp(path) for path in prepared if path.name not in ("config.json", FACTS_FILE)}
    stored = {"counts": counts, "settings": _settings(run), "files": known}
    write_atomically(run.path / FACTS_FILE, json.dumps(stored, indent=2) + "\n")


def stored_counts(run: Run, names: tuple[str, ...]) -> dict[str, int] | None:
    """What `keep_counts` wrote; None if it is missing, damaged, or of other files or settings than the run's."""
    try:
        stored = read_json(run.path / FACTS_FILE)
        counts, files = stored["counts"], stored["files"]
        if set(counts) != set(names) or not all(type(value) is int for value in counts.values()):
            return None
        same = stored["settings"] == _settings(run) and all(
            Path(name).name == name and _stamp(run.path / name) == stamp for name, stamp in files.items()
        )
    except (OSError, DataError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return counts if same else None


def _stamp(path: Path) -> list[Any]:
    """A file's size, and a digest of how it begins."""
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.sha256(file.read(_LOOKED_AT)).hexdigest()]


def _settings(run: Run) -> str:
    """A digest of the settings that a resumed run keeps."""
    kept = {name: value for name, value in run.config.items() if name != "training"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
