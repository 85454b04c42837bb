"""The loop, truncation, checkpoints and the run directory; which task is trained it does not know."""

from unrolled.training.checkpoint import Checkpoints
from unrolled.training.config import TrainingConfig
from unrolled.training.loop import Outcome, Trainer
from unrolled.training.migration import open_run
from unrolled.training.run import Run

__all__ = ["Checkpoints", "Outcome", "Run", "Trainer", "TrainingConfig", "open_run"]
