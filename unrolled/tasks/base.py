"""The contract of a task: its settings, data, model, loss and score in one class that every command can use."""

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
    from unrolled.training.layers import LayerGroup
    from unrolled.training.run import Origin
    from unrolled.training.task import Batches


class FirstWeights(Protocol):
    """The weights of another run, from which a new run starts."""

    @property
    def task(self) -> Task:
        """The other run's task, with its weights."""
        ...

    @property
    def origin(self) -> Origin: ...

    @property
    def cells(self) -> Mapping[str, Source]: ...

    def give(self, task: Any) -> None:
        """Copy the weights into the new task's model."""

    def keep(self, task: Any) -> None:
        """Write the weights into the new run."""


class Task(TaskInfo, ABC):
    """A run's model with its data: what the training loop and the commands work on.

    A subclass sets `name` and `Settings`, a dataclass of sections whose `training` is a `TrainingConfig`. It defines
    `build`, `epoch`, `loss` and `validate`; everything else has a default. `docs/new-task.md` shows an example.
    Everything that needs no model is in `TaskInfo`. A task may subclass `TaskInfo` in a file without PyTorch.
    """

    #: Whether the model reads running text, so that `inspect` can show every step.
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
        """Create a run directory with everything that training needs; nothing remains of it after an error.

        start: the first weights, from another run (unrolled/tasks/start.py). They become the checkpoint of step 0.
        """
        from unrolled.tasks.own_cells import keep_cells
        from unrolled.training import Run
        from unrolled.training.optimisation import find_device

        origin = None if start is None else start.origin
        with Run.create(path, cls.kind, to_json(settings), resumable=cls.resumable, origin=origin) as run:
            find_device(settings.training.device)
            keep_cells(run, settings, {} if start is None else start.cells)
            if start is None:
                cls.prepare(run, settings, progress)
            else:
                cls.prepare_from(start.task, run, settings, progress)
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
        """Write the data for training into a new run's directory; by default nothing, for data generated on the fly."""

    @classmethod
    def prepare_from(cls, source: Task, run: Run, settings: Any, progress: Progress) -> None:
        """Do what `prepare` does, for a run that starts from the weights of `source`; by default the same."""
        cls.prepare(run, settings, progress)

    def __init__(self, run: Run, device: str | None = None) -> None:
        """Open a run with fresh weights, drawn from the run's seed; `load` loads a checkpoint.

        Raises RunError if the model needs source that is kept in the run and that this user has not trusted
        (see `open_task`).
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
        """Read what `prepare` wrote into the run, before the model is built."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Return a fresh model; callers use `fresh_model`."""

    def fresh_model(self) -> nn.Module:
        """Return the model of `build`; a user's cell is built from the source that is kept in the run."""
        from unrolled.tasks.own_cells import cells_of

        with cells_of(self.run):
            return self.build()

    def token_keys(self) -> Mapping[str, Sequence[Hashable]]:
        """Return a unique key for every token that weights have a row for, under the name of each set of tokens.

        Tokens of two runs with equal keys are the same token: a run that starts from the other copies their rows.
        """
        return {}

    def grown(self, tokens: str) -> nn.Module:
        """Return the model of `build` for one additional token in the set that `token_keys` names `tokens`."""
        raise NotImplementedError(f"{type(self).__name__} defines token_keys, so it must define grown as well")

    def weights_from(self, source: Task) -> Mapping[str, str]:
        """Return the names of the model's weights that can start from `source`, each with the name that it has there.

        These are all weights if `source` is of the same task, and none otherwise, unless a task overrides this together
        with `settings_from`.
        """
        return {name: name for name in self.model.state_dict()} if source.kind == self.kind else {}

    def load(self, which: str = "best") -> Self:
        """Load the weights of a checkpoint, one of `checkpoints`, and put the model into evaluation mode."""
        from unrolled.training import Checkpoints

        require_choice("checkpoint", which, self.checkpoints)
        Checkpoints(self.run).load_weights(which, self.model)  # type: ignore[arg-type]
        self.model.eval()
        return self

    def check(self) -> None:
        """Raise DataError if the data of a new run are too few for a batch."""
        self.epoch(0)

    def verify(self) -> None:
        """Raise RunError if the run's data are not those that were prepared."""

    # -- the loop's view -----------------------------------------------------------------------------------------

    @abstractmethod
    def epoch(self, number: int) -> Batches:
        """Return pass `number` over the training data, in an order that depends only on that number and the seed."""

    @abstractmethod
    def loss(self, batch: Any, state: Any) -> tuple[Tensor, Any]:
        """Return the loss, summed over the targets that count, and the state after the last step, or None."""

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Return groups of layers with learning rates of their own, from the input to the output; none: all alike."""
        return ()

    def validate(self, step: int | None = None) -> float | None:
        """Return the mean loss on held-out data after `step` updates; None if nothing was held out."""
        return None

    def preview(self, step: int) -> str:
        """Return text that shows the model's progress after `step` updates, without using the global random state."""
        return ""

    # -- what the commands show ----------------------------------------------------------------------------------

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def count(self) -> dict[str, int]:
        """Return the counts in the facts, except the parameters."""
        return {}

    @property
    def counts(self) -> dict[str, int]:
        """The counts in the facts, by the names in `numbers`."""
        return {**self.count(), "parameters": self.parameters}

    def keep_counts(self) -> None:
        """Write the counts into the run, so that `info` can report them without the model."""
        keep_counts(self.run, self.counts)

    def closing(self) -> Sequence[str]:
        """Return lines to print at the end of training if there is a checkpoint; the task may load another one."""
        return ()

    def examined(self) -> tuple[Any, str]:
        """Return the batch on which `inspect` examines the model, and a description of the batch."""
        return self.epoch(0).batch(0), "a batch of the training data"

    def score(self, data: Any = None, **options: Any) -> Report:
        """Score the model on `data`, one file or several, or, if it is None, on the run's held-out data.

        options: the fields of the task's `Evaluation`, which are the flags of `unrolled eval`. `data` may also be a
            whole `Evaluation`.

        Nothing is written into the run. Raises ConfigurationError, which names the option, if the task has no such
        option, and RunError or ConfigurationError if nothing was held out.
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
        """Return the report of `score` for `asked`, an `Evaluation`."""
        loss = self.validate()
        if loss is None:
            raise RunError(f"{self.run.path}: nothing was held out to score the run on")
        self.require_number(loss, "the held-out data")
        return Report(
            "held-out data", "held-out data", (Value("loss", loss, "loss", self.describe(loss).removeprefix("loss ")),)
        )

    def require_number(self, loss: float, data: str) -> None:
        """Raise DivergenceError if a loss is NaN, because then the other scores are meaningless."""
        if math.isnan(loss):
            raise DivergenceError(
                f"{self.run.path}: the loss on {data} is NaN: the model's values overflow on this text"
            )
