"""The tasks, and the registry that every command asks for them.

A task has two classes: `TaskInfo`, its settings and the facts about its runs, which needs no PyTorch, and `Task`, the
task itself. Each task of this package is a line of `TASKS`. Another package names its tasks in its entry points, in
the group `unrolled.tasks`. A program registers a task with `register` and then calls `unrolled.cli.main`.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from unrolled.errors import ConfigurationError, RunError
from unrolled.lazy import Place, door

if TYPE_CHECKING:
    from unrolled.tasks.base import Task
    from unrolled.tasks.info import TaskInfo
    from unrolled.training import Run
else:
    __getattr__ = door(__name__, {"base": ("Task",), "info": ("TaskInfo",)})

GROUP = "unrolled.tasks"
Kind = TypeVar("Kind", bound="type[Task]")
Opened = TypeVar("Opened", bound="Task")


@dataclass(frozen=True)
class Entry:
    """A task that is not imported yet: its name, the kind of its runs, a summary, and the places of its classes."""

    name: str
    kind: str
    summary: str
    info: str
    task: str

    def load(self) -> type[Task]:
        found: type[Task] = Place(f"unrolled.tasks.{self.task}").load()
        return found

    def load_info(self) -> type[TaskInfo]:
        found: type[TaskInfo] = Place(f"unrolled.tasks.{self.info}").load()
        return found


TASKS = (
    Entry(
        *("lm", "language model", "train a recurrent language model on text"),
        *("language_settings:LanguageInfo", "language:LanguageTask"),
    ),
    Entry(
        *("min-char-rnn", "min-char-rnn", "train the lectures' 112-line model, as they do"),
        *("language_settings:MinCharRNNInfo", "language:MinCharRNN"),
    ),
    Entry(
        *("translate", "translation", "train an encoder and a decoder to translate"),
        *("pairs:TranslationInfo", "translation:TranslationTask"),
    ),
    Entry(
        *("reply", "reply", "train an encoder and a decoder to answer short mails"),
        *("pairs:ReplyInfo", "reply:ReplyTask"),
    ),
    Entry(
        *("tree", "sentiment", "train a recursive net on labelled trees: sentiment at every node"),
        *("sentiment_settings:SentimentInfo", "sentiment:SentimentTask"),
    ),
    Entry(
        *("tag", "tagger", "train a tagger: a label for every word"),
        *("tagging_settings:TaggingInfo", "tagging:TaggingTask"),
    ),
    Entry(
        *("classify", "classifier", "train a classifier: a class for every text"),
        *("classifying_settings:ClassifyingInfo", "classifying:ClassifyingTask"),
    ),
    Entry(
        *("segment", "segmenter", "train a segmenter: a label for every frame of video or sensors"),
        *("segmenting_settings:SegmentingInfo", "segmenting:SegmentingTask"),
    ),
    Entry(
        *("transcribe", "transcriber", "train a transcriber: speech or printed lines to text"),
        *("transcribing_settings:TranscribingInfo", "transcribing:TranscribingTask"),
    ),
    Entry(
        *("caption", "captioner", "train a captioner: a sentence for every picture"),
        *("captioning_settings:CaptioningInfo", "captioning:CaptioningTask"),
    ),
)
_registered: dict[str, type[Task]] = {}
#: Tasks that were imported by their entry points.
_loaded: dict[str, type[Task]] = {}


def register(task: Kind) -> Kind:
    """Register a task in this process, as a decorator; ConfigurationError if its name or kind is taken."""
    name, settings = getattr(task, "name", None), getattr(task, "Settings", None)
    if not isinstance(name, str) or not is_dataclass(settings):
        raise ConfigurationError(f"{task.__name__} must set `name`, a string, and `Settings`, a dataclass")
    known = _registered.get(task.name)
    if any(task.name == entry.name or task.kind == entry.kind for entry in TASKS) or known not in (None, task):
        raise ConfigurationError(f"there is already a task {task.name!r}; choose another name or kind")
    _registered[task.name] = task
    return task


@cache
def _installed() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=GROUP)}


def names() -> dict[str, str]:
    """Return the names of all tasks, as the user types them, with a summary of each."""
    found = {entry.name: entry.summary for entry in TASKS}
    found |= {name: _summary(task) for name, task in _registered.items()}
    return found | {
        name: f"from the package {point.dist.name}" if point.dist else "from another package"
        for name, point in _installed().items()
        if name not in found
    }


def _summary(task: type[Task]) -> str:
    """Return the first line of a task's help, in the form of the other summaries."""
    line = task.help.partition("\n")[0].rstrip(".")
    return line[:1].lower() + line[1:]


def find_task(name: str) -> type[Task]:
    """Return the task `name`; ConfigurationError, which lists the known names, if there is none."""
    entry = _entry(name)
    return entry.load() if entry else _from_elsewhere(name)


def find_info(name: str) -> type[TaskInfo]:
    """Return the `TaskInfo` of the task `name`; for another package's task this is the task itself."""
    entry = _entry(name)
    return entry.load_info() if entry else _from_elsewhere(name)


def _entry(name: str) -> Entry | None:
    return next((entry for entry in TASKS if entry.name == name), None)


def _from_elsewhere(name: str) -> type[Task]:
    if name in _registered:
        return _registered[name]
    if name in _installed():
        return _from_package(name)
    close = difflib.get_close_matches(name, names(), n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ConfigurationError(f"unknown task {name!r}{hint}: choose from {', '.join(names())}")


def _from_package(name: str) -> type[Task]:
    point = _installed()[name]
    try:
        task: type[Task] = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"the task {name!r} cannot be imported from {point.value}: {error}") from error
    _loaded[name] = task
    if getattr(task, "name", None) != name:
        raise ConfigurationError(f"the entry point {name!r} gives {task!r}, which is not a task of that name")
    return task


def files_elsewhere() -> set[str]:
    """Return the source files of the tasks in use that are not of this package."""
    modules = (sys.modules.get(task.__module__) for task in (*_registered.values(), *_loaded.values()))
    return {file for module in modules if (file := getattr(module, "__file__", None))}


def all_infos() -> Iterator[type[TaskInfo]]:
    """Iterate over every task that can be imported; a broken one is an error only for commands that ask for it."""
    for name in names():
        with suppress(ConfigurationError):
            yield find_info(name)


def info_of(run: Run) -> type[TaskInfo]:
    """Return the `TaskInfo` of a run's task; RunError if no installed package has the task."""
    for entry in TASKS:
        if entry.kind == run.task:
            return entry.load_info()
    for task in all_infos():
        if task.kind == run.task:
            return task
    raise RunError(f"{run.path}: a run of the task {run.task!r}, which is not installed here")


def task_of(run: Run) -> type[Task]:
    """Return the task of a run; RunError if no installed package has it."""
    return find_task(info_of(run).name)


def open_info(path: str | Path) -> TaskInfo:
    """Open a run without its model if its facts are stored in it, otherwise, as for old runs, with its model.

    Raises RunError if there is no such run.
    """
    from unrolled.tasks.base import Task
    from unrolled.tasks.info import stored_counts
    from unrolled.tasks.own_cells import names_in
    from unrolled.training import open_run

    run = open_run(path)
    info = info_of(run)
    # A model with a user's cell is not built here, because reporting on a run must not execute code from it.
    if not issubclass(info, Task) and stored_counts(run, info.numbers) is None and not names_in(run.config):
        info = task_of(run)
    return info(run, "cpu")


def load(path: str | Path, checkpoint: str = "best", device: str | None = "cpu", *, trust: bool = False) -> Any:
    """Open a trained run and return its task, with `model`, `config`, `run`, `score()` and the task's own methods.

    A language model has `vocabulary` and `sample()`, a translator has `vocabulary` and `translate()`, and a run of
    `train reply` also has `reply()`; docs/python.md shows each. The model is in evaluation mode.

    checkpoint: "best", "last", or, for a translator, "average": the mean of the weights at the last validations.
    device: "cpu", "cuda", "cuda:1", "mps"; None: the device in the run's settings.
    trust: run the source of a cell that is kept in the run although you did not train the run. Read the source first.

    Raises RunError if there is no such run or it has no intact checkpoint, and ConfigurationError if the task has no
    such checkpoint or the machine has no such device.
    """
    return open_task(path, device, checkpoint, trust=trust)


def open_task(
    path: str | Path,
    device: str | None = None,
    which: str | None = None,
    kind: type[Opened] | None = None,
    *,
    trust: bool = False,
) -> Opened:
    """Open a run's task, with the weights of checkpoint `which`, or with fresh weights if it is None.

    trust: run the source of a cell that is kept in the run, now and in later calls, whoever wrote it.

    Raises RunError if there is no such run or checkpoint, if the task is not a `kind`, or if the run keeps source that
    this user has neither trained with nor trusted.
    """
    from unrolled.tasks.own_cells import trust_cells
    from unrolled.training import open_run

    run = open_run(path)
    found: Any = task_of(run)
    if kind is not None and not issubclass(found, kind):
        raise RunError(f"{run.path}: a {run.task} run, not a {kind.kind} run")
    if trust:
        trust_cells(run)
    task: Opened = found(run, device)
    return task if which is None else task.load(which)
