"""Trains a run whose process is killed again and again: `python killed.py FOLDER TEXT SEED KILLS`.

Every attempt is a fork of this process, which has compiled everything and has no other threads. Half of them are killed at a
random time, the other half at a random one of their operations on files: between the parts of a checkpoint, and within.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch.utils.tensorboard
from rich.console import Console

from unrolled.tasks.language import LanguageConfig, LanguageTask, ModelConfig, TextConfig, create_run
from unrolled.training import Run, Trainer, TrainingConfig

torch.set_num_threads(1)


def work(path: Path, text: str) -> None:
    if not (path / "config.json").exists():
        model = ModelConfig(hidden_size=(8, 6), embedding_size=4, dropout=0.2, recurrent_dropout=0.1)
        training = TrainingConfig(
            batch_size=2, seq_length=16, max_steps=200, eval_every=7, sample_every=60, log_every=1, keep_checkpoints=2
        )
        create_run(path, LanguageConfig(TextConfig(data=(text,), val_tokens=200), model, training))
    task = LanguageTask(Run.open(path))
    Trainer(task, task.config.training, task.run, Console(quiet=True), resume=True).train()


def die_at_operation(number: int, path: Path) -> None:
    """Kill this process in front of its `number`-th operation on a file below `path`."""
    left = [number]

    def count(event: str, arguments: tuple) -> None:
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and str(path) in str(arguments[0]):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def attempt(path: Path, text: str, prepare=lambda: None, seconds: float | None = None) -> int:
    """The signal that ended the attempt; 0 where it came to its end."""
    child = os.fork()
    if not child:
        try:
            prepare()
            work(path, text)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise SystemExit("an attempt failed")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def main() -> None:
    folder, text, seed, kills = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    draw = random.Random(seed)
    started = time.monotonic()
    work(folder / "whole", text)  # here, so that every fork finds the cells planned
    whole = time.monotonic() - started
    path, killed, dying = folder / "parts", 0, 0
    while killed < kills:
        if dying % 2:
            number = draw.randrange(1, 60)
            ended = attempt(path, text, lambda number=number: die_at_operation(number, path))
        else:
            ended = attempt(path, text, seconds=draw.uniform(0, 1.5 * whole / kills))
        dying += 1
        if ended:
            assert ended == signal.SIGKILL
            killed += 1
        else:  # it came to its end before it was killed: the next one begins anew
            path.rename(folder / f"parts-{dying}")
    assert attempt(path, text) == 0


if __name__ == "__main__":
    main()
