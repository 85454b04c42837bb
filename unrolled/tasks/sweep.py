"""A study of many runs with Optuna, which finds the cell and the settings that learn best."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from unrolled.cells import cell_label
from unrolled.errors import ConfigurationError, DivergenceError, RunError, UnrolledError
from unrolled.settings import to_json
from unrolled.tasks.info import sections
from unrolled.tasks.own_cells import names_in, read_cell
from unrolled.training import open_run
from unrolled.training.run import one_line

if TYPE_CHECKING:
    from unrolled.tasks.base import Task
    from unrolled.training import Outcome

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER}):({_NUMBER})(:log)?", re.IGNORECASE)
#: If a process gives no sign of life for twice this long, its trial is tried again.
HEARTBEAT_SECONDS = 60
_SETTINGS = "settings"


@dataclass(frozen=True)
class Search:
    """The values of a setting to search: `name=low:high`, `name=low:high:log` or `name=a,b,c`."""

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    @classmethod
    def parse(cls, text: str, kinds: dict[str, Any]) -> Search:
        """Parse what the user typed; `kinds` are the settings that may be searched, with their types."""
        name, equals, values = text.partition("=")
        name = name.strip("-").replace("-", "_")
        if not equals or not values or name not in kinds:
            forms = "NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=A,B"
            raise ConfigurationError(
                f"`search` {text}: write {forms}, where NAME is a setting of the model or of training", setting="search"
            )
        if name in ("cell", "seed", "device"):
            raise ConfigurationError(f"`search` {text}: {name} has an option of its own", setting="search")
        if match := _RANGE.fullmatch(values):
            low, high = float(match[1]), float(match[2])
            if not low < high or (match[3] and low <= 0):
                said = f"`search` {text}: the range is empty, or includes 0 on a logarithmic scale"
                raise ConfigurationError(said, setting="search")
            if "float" not in str(kinds[name]):
                said = f"`search` {text}: {name} cannot be searched over a range; write {name}=A,B,C"
                raise ConfigurationError(said, setting="search")
            return cls(name, low=low, high=high, log=bool(match[3]))
        return cls(name, tuple(_value(part) for part in values.split(",")))

    def suggest(self, trial: Any) -> Any:
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def settings_by_name(kind: type) -> dict[str, Any]:
    """Return the type of every setting in the sections `model` and `training` of a task's settings."""
    parts = [value for name, value in sections(kind).items() if name in ("model", "training")]
    return {each.name: each.type for part in parts for each in dataclasses.fields(part)}


def configure(base: Any, values: dict[str, Any]) -> Any:
    """Return the settings `base` with the changes in `values`; ConfigurationError if a value is invalid."""
    parts = {}
    for section in dataclasses.fields(base):
        before = getattr(base, section.name)
        own = {each.name for each in dataclasses.fields(before)} & values.keys()
        changes = {name: (values[name],) if isinstance(getattr(before, name), tuple) else values[name] for name in own}
        try:
            parts[section.name] = dataclasses.replace(before, **changes)
        except TypeError as error:
            said = ", ".join(f"{name} cannot be {value}" for name, value in values.items() if name in own)
            raise ConfigurationError(f"`search`: {said}", setting="search") from error
    return dataclasses.replace(base, **parts)


class _Interrupted(Exception):  # noqa: N818 - not an error
    """The user has interrupted the sweep."""


class Sweep:
    """A study in `folder`, at which any number of processes may work; every trial is a run of `task` in that folder.

    cells: the cells to compare; empty if the task's models have no setting `cell`.
    """

    def __init__(
        self,
        folder: Path,
        storage: str | None,
        task: type[Task],
        cells: Sequence[str],
        searches: Sequence[Search],
        base: Any,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(logging.ERROR)  # errors are reported by `report`
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self.folder, self.task, self.searches, self.base = folder, task, searches, base
        self.cells = list(cells) or [task.name]
        #: The digests of the source of the user's own cells, which must be the same in all trials.
        self.sources: dict[str, str] = {}
        for cell in cells:
            config = configure(base, {"cell": cell})
            self.sources |= {name: read_cell(name).sha256 for name in names_in(to_json(config))}
        for search in searches:
            for value in search.choices or (search.low, search.high):
                config = configure(base, {search.name: value})
                self.sources |= {name: read_cell(name).sha256 for name in names_in(to_json(config))}
        self.storage = _open_storage(storage or f"sqlite:///{folder / 'study.db'}")
        self.study = optuna.create_study(
            study_name=folder.resolve().name,
            storage=self.storage,
            sampler=optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True),
            load_if_exists=True,
        )

    def plan(self, trials: int) -> None:
        """Enqueue trials, equally many of each cell, until the study has `trials`; RunError if it is another study."""
        settings = to_json(self.base) | {"cells": self.cells, "search": [dataclasses.asdict(s) for s in self.searches]}
        settings |= {"sources": self.sources} if self.sources else {}
        settings = json.loads(json.dumps(settings))
        with FileLock(self.folder / ".lock"):
            before = self.study.user_attrs.get(_SETTINGS)
            if before not in (None, settings):
                changed = ", ".join(name for name in settings if settings[name] != before.get(name)) or "sources"
                raise RunError(f"{self.folder}: a study with other settings ({changed}); choose another folder")
            self.study.set_user_attr(_SETTINGS, settings)
            for number in range(len(self.study.get_trials(deepcopy=False)), trials):
                self.study.enqueue_trial({"cell": self.cells[number % len(self.cells)]})

    def run(self, report: Callable[[str | UnrolledError], None]) -> bool:
        """Run waiting trials until there are none, and return whether that was reached without an interrupt."""
        from optuna.trial import TrialState

        interrupted = []

        def objective(trial: Any) -> float:
            values = {"cell": trial.suggest_categorical("cell", self.cells)}
            values |= {search.name: search.suggest(trial) for search in self.searches}
            said = ", ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{value}" for name, value in values.items()
            )
            config = configure(self.base, values)
            try:
                outcome = self._train(values, config)
            except DivergenceError as error:
                report(DivergenceError(f"trial {trial.number}: {said}: {error}", setting=error.settings))
                raise
            if outcome.reason == "interrupted":
                interrupted.append(True)
                self.study.enqueue_trial(trial.params)  # it continues where its run stopped
                raise _Interrupted
            report(f"trial {trial.number}: {said}: {outcome.position.best_loss:.4f}")
            return outcome.position.best_loss

        while not interrupted and self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self.study.optimize(objective, n_trials=1, catch=(DivergenceError, _Interrupted))
        return not interrupted

    def _train(self, values: dict[str, Any], config: Any) -> Outcome:
        """Train a trial; its run is named after its settings, so a stopped run continues when it is tried again."""
        from rich.console import Console

        from unrolled.training import Trainer

        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]
        path = self.folder / f"{cell_label(values['cell'])}-{digest}"
        exists = (path / "config.json").exists()
        if not exists:
            for name in names_in(to_json(config)):
                if read_cell(name).sha256 != self.sources.get(name):
                    raise RunError(f"{name}: has changed since {self.folder} was started; start another sweep with it")
        task = self.task(open_run(path)) if exists else self.task.create(path, config)
        return Trainer(task, config.training, task.run, Console(quiet=True), resume=True).train()

    def best(self) -> Iterator[tuple[str, int, Any]]:
        """Iterate over the cells: the name, the number of completed trials, and the best of them (None if none)."""
        from optuna.trial import TrialState

        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        for cell in self.cells:
            own = [trial for trial in done if trial.params["cell"] == cell]
            yield cell, len(own), min(own, key=lambda trial: trial.values, default=None)


def _open_storage(url: str) -> Any:
    from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if "://" not in url:  # a journal file also works on network storage, unlike SQLite
            return JournalStorage(JournalFileBackend(url))
        again = RetryHeartbeatStaleTrialCallback(max_retry=3)
        return RDBStorage(url, heartbeat_interval=HEARTBEAT_SECONDS, heartbeat_stale_trial_callback=again)
    except (SQLAlchemyError, ImportError, OSError, RuntimeError) as error:
        said = f"`storage` {url}: cannot be opened ({one_line(error)})"
        raise ConfigurationError(said, setting="storage") from error
