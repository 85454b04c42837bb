"""A task's name and settings, and the facts about its runs, without its model and without PyTorch."""

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
#: The number of bytes of a file that are hashed to see whether it has changed since it was counted.
_HASHED = 1 << 20


@dataclass(frozen=True)
class NoFlags:
    """The flags of `eval` for a task without flags of its own."""


class TaskInfo:
    """What the help of `train`, and `info`, report about a task and one of its runs.

    name: the NAME in `train NAME`.
    kind: the mark of its runs. Default: `name`.
    help: the first text in the help of `train NAME`. Default: the docstring of the class that sets `name`.
    Settings: a dataclass of sections, whose `training` is a `TrainingConfig`.
    Evaluation: a dataclass of the flags that `eval` takes for its runs.
    checkpoints: the names of the checkpoints that can be loaded.
    unit, counted: what a batch consists of, and what its targets are called, in the plural.
    validated: what `validate` returns.
    resumable: whether a stopped run can be resumed.
    inherited: which settings a run takes from the run whose weights it starts from, by section, or by setting as
        "section.name". "fixed": it must take the setting. "default": it takes it unless the user gives another value.
        "new": it does not take it.
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
    validated: ClassVar[str] = "loss"
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
        """Return the default name of a new run."""
        cell = getattr(getattr(settings, "model", None), "cell", None)
        return f"{cls.name}-{cell_label(str(cell))}" if cell else cls.name

    @classmethod
    def settings_of(cls, run: Run) -> Any:
        """Return the settings of a run; RunError if it is a run of another task or its settings are invalid."""
        if run.task != cls.kind:
            raise RunError(f"{run.path}: a run of task {run.task!r}, not of {cls.kind!r}")
        return from_json(cls.Settings, cls.upgrade(run.config), str(run.path / "config.json"))

    @classmethod
    def settings_from(cls, run: Run) -> tuple[Any, Mapping[str, str]]:
        """Return the settings of a run as those of this task, and which of them a run that starts from it takes.

        The second is a mapping like `inherited`. A task overrides this to start from the weights of another task's
        runs. Raises RunError if it cannot start from this run.
        """
        if run.task != cls.kind:
            raise RunError(f"{run.path}: a {run.task} run cannot start a run of train {cls.name}")
        return cls.settings_of(run), cls.inherited

    @classmethod
    def upgrade(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Convert a run's stored settings, from any earlier version, to the settings of this version."""
        return config

    def __init__(self, run: Run, device: str | None = None) -> None:
        """Open a run without its model."""
        self.run, self.config, self.device = run, self.settings_of(run), device or "cpu"

    @property
    def counts(self) -> dict[str, int]:
        """The stored counts in the facts, by the names in `numbers`; RunError if they are not stored."""
        stored = stored_counts(self.run, self.numbers)
        if stored is None:
            raise RunError(f"{self.run.path}: {FACTS_FILE} is missing, or does not fit the run's files")
        return stored

    def facts(self) -> list[tuple[str, str]]:
        """Return what `info` reports about the run, as names and texts."""
        return [("model", f"{self.counts['parameters']:,} parameters, on {self.device}")]

    @property
    def batches(self) -> str:
        """The description of the batch for one update."""
        return f"{self.config.training.batch_size} {self.unit}"

    def uses(self) -> list[tuple[str, str]]:
        """Return commands that use a trained run, each with a word for it; `{run}` stands for the run's path."""
        return [("score", "unrolled eval {run}")]

    def describe(self, loss: float) -> str:
        """Return a loss as text, in the units of the task."""
        return f"loss {loss:.4f}"

    def describe_validation(self, value: float) -> str:
        """Return a result of `validate` as text: that of `describe`, unless the task validates another value."""
        return self.describe(value)


def sections(settings: type) -> dict[str, Any]:
    """Return the sections of a task's settings, by name, each with its defaults."""
    defaults = settings()
    return {each.name: getattr(defaults, each.name) for each in fields(settings)}


def without_streams(config: dict[str, Any]) -> dict[str, Any]:
    """Return a run's settings without those of streams, which every task had before December 2026."""
    training = config.get("training")
    if not isinstance(training, dict):
        return config
    gone = ("seq_length", "backward_length", "carry_state")
    return {**config, "training": {name: value for name, value in training.items() if name not in gone}}


def keep_counts(run: Run, counts: dict[str, int]) -> None:
    """Write the counts into a run, with digests of the files that were counted; RunError if that fails."""
    prepared = [path for path in sorted(run.path.iterdir()) if path.suffix in (".json", ".bin", ".safetensors")]
    known = {path.name: _stamp(path) for path in prepared if path.name not in ("config.json", FACTS_FILE)}
    stored = {"counts": counts, "settings": _settings(run), "files": known}
    write_atomically(run.path / FACTS_FILE, json.dumps(stored, indent=2) + "\n")


def stored_counts(run: Run, names: tuple[str, ...]) -> dict[str, int] | None:
    """Return what `keep_counts` wrote; None if it is missing or damaged, or if the files or settings have changed."""
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
    """Return a file's size and a digest of its beginning."""
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.sha256(file.read(_HASHED)).hexdigest()]


def _settings(run: Run) -> str:
    """Return a digest of the settings that a resumed run keeps."""
    kept = {name: value for name, value in run.config.items() if name != "training"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
