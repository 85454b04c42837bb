"""The settings of training: one dataclass that defines the flags, their help and the saved file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from tyro.conf import arg

from unrolled.errors import ConfigurationError
from unrolled.settings import parse_duration, plain, require, require_choice

OPTIMIZERS = ("sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw")
PRECISIONS = ("float32", "bf16")
SCHEDULES = ("constant", "cosine", "step", "plateau")


@dataclass(frozen=True)
class TrainingConfig:
    """Training."""

    batch_size: int = 32
    """Sequences per update, over all processes."""
    accumulate: int = 1
    """Number of parts in which a process reads its share: needs less memory for the same gradients."""
    optimizer: str = "adamw"
    """sgd, momentum, adagrad, rmsprop, adam or adamw."""
    learning_rate: float = 3e-3
    """Peak learning rate."""
    lr_schedule: str = "cosine"
    """constant; cosine: decays to 1% at the end; step, plateau: decay by the factor `lr_decay`."""
    lr_decay: float = 0.5
    """Factor of a decay in the step schedule (every `lr_decay_every` epochs) and in plateau (after `lr_patience`)."""
    lr_decay_every: float = 1.0
    """Epochs between two decays of the step schedule."""
    lr_patience: int = 2
    """Validations without progress after which the plateau schedule decays."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises from 0."""
    momentum: float = 0.9
    """Momentum of `optimizer=momentum`."""
    weight_decay: float = 0.01
    """Weight decay of matrices; biases have none."""
    clip_norm: float = 1.0
    """Rescale gradients whose norm is above this; 0: never."""
    clip_value: float = 0.0
    """Clip each element of the gradient to ± this; 0: never."""
    epochs: Annotated[float | None, arg(metavar="N")] = None
    """Stop after this many passes over the data (10 if no limit is set)."""
    max_steps: Annotated[int | None, arg(metavar="N")] = None
    """Stop after this many updates."""
    max_time: Annotated[str | None, arg(metavar="TIME")] = None
    """Stop after this much training time, without validation and samples: 90s, 5m, 1.5h. The learning rate then follows
    the clock, so runs differ in detail."""
    eval_every: int = 500
    """Updates between two validations, each of which writes a checkpoint."""
    keep_checkpoints: int = 3
    """Number of last checkpoints to keep, in addition to the best."""
    early_stopping: int = 0
    """Stop after this many validations without progress; 0: never."""
    sample_every: int = 500
    """Updates between two samples; 0: no samples."""
    log_every: int = 10
    """Updates between two lines of metrics.jsonl."""
    seed: int = 1
    """Seed for the initial weights, dropout and the order of the data."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto: a GPU if there is one."""
    precision: str = "float32"
    """float32; bf16: matrix products in bfloat16, weights and recurrence in float32."""

    #: Settings that a resumed run cannot change, since it would not be the same run or the checkpoint would not fit.
    fixed: ClassVar[tuple[str, ...]] = ("batch_size", "optimizer", "seed")
    #: Passes over the data if no limit is set.
    default_epochs: ClassVar[float] = 10.0

    def __post_init__(self) -> None:
        require_choice("optimizer", self.optimizer, OPTIMIZERS)
        require_choice("lr_schedule", self.lr_schedule, SCHEDULES)
        require_choice("precision", self.precision, PRECISIONS)
        for name in ("batch_size", "eval_every", "log_every", "lr_patience", "keep_checkpoints"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        if not 1 <= self.accumulate <= self.batch_size:
            raise ConfigurationError(
                f"`accumulate` must be from 1 to the value of `batch_size`, got {self.accumulate}",
                setting=("accumulate", "batch_size"),
            )
        require(self.seed < 1 << 63, "seed", "below 2^63", self.seed)
        require(0 < self.learning_rate <= 1000, "learning_rate", "above 0 and at most 1000", self.learning_rate)
        require(self.weight_decay < math.inf, "weight_decay", "a finite number", self.weight_decay)
        for name in ("seed", "warmup_steps", "sample_every", "early_stopping", "weight_decay"):
            require(getattr(self, name) >= 0, name, "0 or above", getattr(self, name))
        for name in ("clip_norm", "clip_value"):
            require(getattr(self, name) >= 0, name, "0 (off) or above", getattr(self, name))
        require(0 < self.lr_decay_every < math.inf, "lr_decay_every", "above 0", self.lr_decay_every)
        require(0 < self.lr_decay <= 1, "lr_decay", "above 0 and at most 1", self.lr_decay)
        require(0 <= self.momentum < 1, "momentum", "from 0 to below 1", self.momentum)
        for name in ("epochs", "max_steps"):
            value = getattr(self, name)
            require(value is None or 0 < value < math.inf, name, "above 0", value)
        if self.max_time is not None:
            parse_duration(self.max_time)

    @property
    def max_epochs(self) -> float:
        """The limit in epochs; the default if no limit is set."""
        if self.epochs is not None:
            return self.epochs
        return self.default_epochs if self.max_steps is None and self.max_time is None else math.inf

    @property
    def max_seconds(self) -> float:
        return math.inf if self.max_time is None else parse_duration(self.max_time)


def fixed_changes(before: dict[str, Any], after: dict[str, Any], fixed: tuple[str, ...]) -> list[str]:
    """Return the names of the settings that differ between two configurations but must not change in a resumed run.

    fixed: the fixed settings of the section `training`; in the other sections, all settings are fixed.
    """
    return [
        name
        for part in before
        for name, value in before[part].items()
        if (part != "training" or name in fixed) and plain(value) != plain(after.get(part, {}).get(name))
    ]
