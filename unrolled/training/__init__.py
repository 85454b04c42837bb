"""The training loop, checkpoints and the run directory, for any task.

The loop is imported on first use, because reading a run directory needs no PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unrolled.lazy import door
from unrolled.training.checkpoint import Checkpoints
from unrolled.training.config import TrainingConfig
from unrolled.training.migration import open_run
from unrolled.training.run import Run

if TYPE_CHECKING:
    from unrolled.training.loop import Outcome, Trainer
else:
    __getattr__ = door(__name__, {"loop": ("Outcome", "Trainer")})

__all__ = ["Checkpoints", "Outcome", "Run", "Trainer", "TrainingConfig", "open_run"]
