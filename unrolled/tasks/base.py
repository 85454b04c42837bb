"""What a task is: settings, data, a model, its loss and its score in one class, which every command can use."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from unrolled.errors import ConfigurationError, DivergenceError, RunError
from unrolled.metrics.report import Report, Value
from unrolled.settings import from_options, require_choice, to_json
from unrolled.tasks.info import TaskInfo, keep_counts

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from unrolled.cells.own import Source
    from unrolled.data.tokens import Progress
    from unrolled.training import Run
    from unrolled.training.run import Origin
    from unrolled.training.task import Batches


class FirstWeights(Protocol):
    """Another run's weights, which a new run starts from."""

    @property
    def origin(self) -> Origin: ...

    @property
    def cells(self) -> Mapping[str, Source]: ...

    def give(self, task: Any) -> None:
        """Put them into the new task's model."""

    def keep(self, task: Any) -> None:
        """Write them into the new run."""


class Task(TaskInfo, ABC):
    """A run's model with its data: what the training loop and the commands work on.

    A subclass sets `name` and `Settings`, a dataclass of sections, of which `training` is a `TrainingConfig`, and
    defines `build`, `epoch`, `loss` and `validate`; everything else has a default. `docs/new-task.md` shows one.
    What needs no model is in `TaskInfo`, of which a task may have a subclass of its own, in a file without PyTorch.
    """

    #: Whether the model reads running text, in which `inspect` can look at every step.
    reads_text: ClassVar[bool] = False
    device: torch.device

    # -- a run ---------------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: Path,
        settings: Any,
        progress: Progress = lambda what, share: None,
        start: FirstWeights | None = None,
    ) -> Self:
        """A new run directory with all that its training needs; nothing is left behind if that fails.

        With a `start` (unrolled/tasks/start.py) its first weights are another run's, and the checkpoint of step 0.
        """
        from unrolled.tasks.own_cells import keep_cells
        from unrolled.training import Run
        from unrolled.training.optimisation import find_device

        origin = None if start is None else start.origin
        with Run.create(path, cls.kind, to_json(settings), resumable=cls.resumable, origin=origin) as run:
            find_device(settings.training.device)
            keep_cells(run, settings, {} if start is None else start.cells)
            cls.prepare(run, settings, progress)
            task = cls(run)
            if start is not None:
                start.give(task)
            task.check()
            task.keep_counts()
            if start is not None:
                start.keep(task)
        return task

    @classmethod
    def prepare(cls, run: Run, settings: Any, progress: Progress) -> None:
        """Put into a new run's directory what its training needs; nothing, where the data are made as it goes."""

    def __init__(self, run: Run, device: str | None = None) -> None:
        """Open a run; its weights are fresh, drawn from the run's seed, until a checkpoint is loaded.

        RunError if its model is made of code that lies in the run, and that this user has not agreed to run;
        `open_task` can be told so.
        """
        from unrolled.training.optimisation import find_device
        from unrolled.training.randomness import seed_all

        self.run = run
        self.config: Any = self.settings_of(run)
        self.device = find_device(device or self.config.training.device)
        seed_all(self.config.training.seed)
        self.read()
        self.model: Any = self.fresh_model().to(self.device)

    def read(self) -> None:
        """Take up what `prepare` put into the run, before the model is built."""

    @abstractmethod
    def build(self) -> nn.Module:
        """A fresh model; from outside, call `fresh_model`."""

    def fresh_model(self) -> nn.Module:
        """What `build` makes; a cell of the user's own is made from the source that is kept in the run."""
        from unrolled.tasks.own_cells import cells_of

        with cells_of(self.run):
            return self.build()

    def token_keys(self) -> Mapping[str, Sequence[Hashable]]:
        """The tokens that weights have rows for, by what they are called: of each something that no other has.

        Tokens of another run with the same key are the same: a run that starts from the other takes their rows.
        """
        return {}

    def grown(self, tokens: str) -> nn.Module:
        """A model as `build` makes it, for one token more of those that `token_keys` calls so."""
        raise NotImplementedError(f"{type(self).__name__} has token_keys, and must say what a token more adds")

    def load(self, which: str = "best") -> Self:
        """Put a checkpoint's weights in, one of `checkpoints`, and the model into evaluation mode."""
        from unrolled.training import Checkpoints

        require_choice("checkpoint", which, self.checkpoints)
        Checkpoints(self.run).load_weights(which, self.model)  # type: ignore[arg-type]
        self.model.eval()
        return self

    def check(self) -> None:
        """DataError if a new run's data do not make a batch."""
        self.epoch(0)

    def verify(self) -> None:
        """RunError if the run's data cannot be those that were prepared."""

    # -- the loop's view -----------------------------------------------------------------------------------------

    @abstractmethod
    def epoch(self, number: int) -> Batches:
        """Pass `number` over the training data, in an order that depends on that number and the seed alone."""

    @abstractmethod
    def loss(self, batch: Any, state: Any) -> tuple[Tensor, Any]:
        """The loss summed over the targets that count, and the state after the last step, None if there is none."""

    def validate(self, step: int | None = None) -> float | None:
        """The mean loss on held-out data, after `step` updates of training; None if there is none."""
        return None

    def preview(self, step: int) -> str:
        """Something to look at after `step` updates; must not touch the global random generator."""
        return ""

    # -- what the commands show ----------------------------------------------------------------------------------

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def count(self) -> dict[str, int]:
        """What the facts count beside the parameters."""
        return {}

    @property
    def counts(self) -> dict[str, int]:
        """What the facts count, by the names in `numbers`."""
        return {**self.count(), "parameters": self.parameters}

    def keep_counts(self) -> None:
        """Write the counts into the run, so that `info` can report them without the model."""
        keep_counts(self.run, self.counts)

    def closing(self) -> Sequence[str]:
        """What is said at the end of training where a checkpoint was written; the task is no longer trained."""
        return ()

    def examined(self) -> tuple[Any, str]:
        """The batch on which `inspect` looks at the model, and what it is, in words."""
        return self.epoch(0).batch(0), "a batch of the training data"

    def score(self, data: Any = None, **options: Any) -> Report:
        """What the model is worth on `data`, a file or several, or where None on what the run held out.

        options: the fields of the task's `Evaluation`, which are the flags of `unrolled eval`; an `Evaluation` may
        also be given as a whole, as `data`. Nothing is written into the run. ConfigurationError, with its name, where
        the task has no such option; RunError or ConfigurationError if nothing was held out.
        """
        if isinstance(data, self.Evaluation) and not options:
            return self.evaluate(data)
        if data is not None:
            options = {"data": data, **options}
        unknown = sorted(set(options) - {each.name for each in fields(self.Evaluation)})
        if unknown:
            known = ", ".join(f"`{each.name}`" for each in fields(self.Evaluation))
            use = f"it is scored with {known}" if known else "it is scored on what it held out"
            said = f"{self.run.path}: a {self.run.task} run has no use for `{unknown[0]}`: {use}"
            raise ConfigurationError(said, setting=unknown[0])
        return self.evaluate(from_options(self.Evaluation, options))

    def evaluate(self, asked: Any) -> Report:
        """The report of `score`, on the data that `asked`, an `Evaluation`, names."""
        loss = self.validate()
        if loss is None:
            raise RunError(f"{self.run.path}: nothing was held out to score the run on")
        self.require_number(loss, "the held-out data")
        return Report(
            "held-out data", "held-out data", (Value("loss", loss, "loss", self.describe(loss).removeprefix("loss ")),)
        )

    def require_number(self, loss: float, data: str) -> None:
        """DivergenceError if a loss is NaN: the other scores mean nothing then."""
        if math.isnan(loss):
            raise DivergenceError(
                f"{self.run.path}: the loss on {data} is NaN: the model's values overflow on this text"
            )
