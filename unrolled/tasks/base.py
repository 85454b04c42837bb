"""What a task is: settings, data, a model, its loss and its score in one class, which every command can use."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from unrolled.errors import DivergenceError, RunError
from unrolled.metrics.report import Report, Value
from unrolled.settings import from_json, to_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from unrolled.data.tokens import Progress
    from unrolled.training import Run
    from unrolled.training.task import Batches


@dataclass(frozen=True)
class NoFlags:
    """The flags for `eval` of a task that has none."""


class Task(ABC):
    """A run's model with its data: what the training loop and the commands work on.

    A subclass sets `name` and `Settings`, a dataclass of sections, of which `training` is a `TrainingConfig`, and
    defines `build`, `epoch`, `loss` and `validate`; everything else has a default. `docs/new-task.md` shows one.

    name: as it is typed, `train NAME`. kind: what its runs are marked with (as `name`).
    help: what the help of `train NAME` says first (the class's docstring).
    Evaluation: a dataclass of the flags that `eval` takes for its runs.
    checkpoints: the weights that can be asked for.
    unit, counted: what a batch is made of, and what its targets are called, in the plural.
    resumable: whether a stopped run can go on.
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

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = vars(cls)
        if "name" in own and "kind" not in own:
            cls.kind = cls.name
        if "help" not in own and "__doc__" in own and cls.__doc__:
            cls.help = inspect.cleandoc(cls.__doc__)

    # -- a run ---------------------------------------------------------------------------------------------------

    @classmethod
    def run_name(cls, settings: Any) -> str:
        """What a new run is called where the user does not say."""
        cell = getattr(getattr(settings, "model", None), "cell", None)
        return f"{cls.name}-{cell}" if cell else cls.name

    @classmethod
    def create(cls, path: Path, settings: Any, progress: Progress = lambda what, share: None) -> Self:
        """A new run directory with all that its training needs; nothing is left behind where that fails."""
        from unrolled.training import Run
        from unrolled.training.optimisation import find_device

        with Run.create(path, cls.kind, to_json(settings), resumable=cls.resumable) as run:
            find_device(settings.training.device)
            cls.prepare(run, settings, progress)
            task = cls(run)
            task.check()
        return task

    @classmethod  # noqa: B027 - optional
    def prepare(cls, run: Run, settings: Any, progress: Progress) -> None:
        """Put into a new run's directory what its training needs; nothing, where the data are made as it goes."""

    @classmethod
    def settings_of(cls, run: Run) -> Any:
        """The settings of a run; RunError where it is a run of another task, or its settings make no sense."""
        if run.task != cls.kind:
            raise RunError(f"{run.path}: a run of task {run.task!r}, not of {cls.kind!r}")
        return from_json(cls.Settings, cls.upgrade(run.config), str(run.path / "config.json"))

    @classmethod
    def upgrade(cls, config: dict[str, Any]) -> dict[str, Any]:
        """A run's stored settings as this version has them, from those of any version before."""
        return config

    def __init__(self, run: Run, device: str | None = None) -> None:
        """Open a run; its weights are fresh, drawn from the run's seed, until a checkpoint is loaded."""
        from unrolled.training.optimisation import find_device
        from unrolled.training.randomness import seed_all

        self.run = run
        self.config: Any = self.settings_of(run)
        self.device: torch.device = find_device(device or self.config.training.device)
        seed_all(self.config.training.seed)
        self.read()
        self.model: Any = self.build().to(self.device)

    def read(self) -> None:  # noqa: B027 - optional
        """Take up what `prepare` put into the run, before the model is built."""

    @abstractmethod
    def build(self) -> nn.Module:
        """A fresh model."""

    def load(self, which: str = "best") -> Self:
        """Put a checkpoint's weights in, and the model into evaluation mode."""
        from unrolled.training import Checkpoints

        Checkpoints(self.run).load_weights(which, self.model)  # type: ignore[arg-type]
        self.model.eval()
        return self

    def check(self) -> None:
        """DataError where a new run's data do not make a batch."""
        self.epoch(0)

    def verify(self) -> None:  # noqa: B027 - optional
        """RunError where the run's data cannot be those that were prepared."""

    # -- the loop's view -----------------------------------------------------------------------------------------

    @abstractmethod
    def epoch(self, number: int) -> Batches:
        """Pass `number` over the training data, in an order that depends on that number and the seed alone."""

    @abstractmethod
    def loss(self, batch: Any, state: Any) -> tuple[Tensor, Any]:
        """The loss summed over the targets that count, and the state after the last step, None where there is none."""

    def validate(self, step: int | None = None) -> float | None:
        """The mean loss on held-out data, after `step` updates of training; None where there is none."""
        return None

    def sample(self, step: int) -> str:
        """Something to look at after `step` updates; must not touch the global random generator."""
        return ""

    def describe(self, loss: float) -> str:
        """A loss in the words of the task."""
        return f"loss {loss:.4f}"

    # -- what the commands show ----------------------------------------------------------------------------------

    def facts(self) -> list[tuple[str, str]]:
        """What a user may want to know of the run, by name."""
        return [("model", f"{self.parameters:,} parameters, on {self.device}")]

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def batches(self) -> str:
        """What an update is computed from, in words."""
        return f"{self.config.training.batch_size} {self.unit}"

    def uses(self) -> list[tuple[str, str]]:
        """Commands that use a trained run, each behind one word; `{run}` stands for its path."""
        return [("score", "unrolled eval {run}")]

    def closing(self) -> Sequence[str]:
        """What is said at the end of training where a checkpoint was written; the task is no longer trained."""
        return ()

    def score(self, asked: Any) -> Report:
        """What the model is worth on the data that `asked`, an `Evaluation`, names."""
        loss = self.validate()
        if loss is None:
            raise RunError(f"{self.run.path}: nothing was held out to score the run on")
        self.require_number(loss, "the held-out data")
        return Report(
            "held-out data", "held-out data", (Value("loss", loss, "loss", self.describe(loss).removeprefix("loss ")),)
        )

    def require_number(self, loss: float, data: str) -> None:
        """DivergenceError where a loss is NaN, of which the other scores mean nothing."""
        if math.isnan(loss):
            raise DivergenceError(
                f"{self.run.path}: the loss on {data} is NaN: the model's values overflow on this text"
            )


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
