"""The records of a run in training: metrics.jsonl, samples.txt and TensorBoard's events."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from unrolled.training.run import Run, write_atomically


def is_better(value: float, best: float, validated: str = "loss") -> bool:
    """Return whether the checkpoint with a validated value replaces the best one before it.

    Of equal losses the first is the best. Other values, such as an error rate, may stay at 100% while the loss falls,
    so of their equal values the last is the best.
    """
    return value < best or (value == best and validated != "loss")


def best_validation(records: Sequence[dict[str, Any]], validated: str = "loss") -> dict[str, Any]:
    """Return the record of the best checkpoint, as `is_better` says; all records must have a `validation_loss`."""
    best = records[0]
    for record in records[1:]:
        if is_better(record["validation_loss"], best["validation_loss"], validated):
            best = record
    return best


class Journal:
    """Appends to a run's records; the process must hold the run's lock."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @contextmanager
    def opened(self, step: int) -> Iterator[None]:
        """Accept entries within the block, and first remove those after `step`, which a killed process left."""
        from torch.utils.tensorboard import SummaryWriter

        self.run.remove_temporaries()
        kept = [record for record in self.run.metrics() if record["step"] <= step]
        write_atomically(self.run.metrics_path, "".join(json.dumps(record) + "\n" for record in kept))
        self._cut_samples(step)
        self._metrics: IO[str]
        with (
            self.run.metrics_path.open("a", encoding="utf-8") as self._metrics,
            SummaryWriter(str(self.run.path / "tensorboard"), purge_step=step + 1) as self._events,
        ):
            yield

    def metrics(self, step: int, epoch: float, seconds: float, values: dict[str, float]) -> None:
        record = {"step": step, "epoch": round(epoch, 4), "seconds": round(seconds, 3), **values}
        self._metrics.write(json.dumps(record) + "\n")
        self._metrics.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def sample(self, step: int, text: str) -> None:
        with self._samples.open("a", encoding="utf-8") as file:
            file.write(f"--- step {step} ---\n{text}\n\n")

    @property
    def _samples(self) -> Path:
        return self.run.path / "samples.txt"

    def _cut_samples(self, step: int) -> None:
        if self._samples.exists():
            text = self._samples.read_bytes()
            for header in re.finditer(rb"^--- step (\d{1,18}) ---$", text, re.MULTILINE):
                if int(header[1]) > step:
                    write_atomically(self._samples, text[: header.start()])
                    break
