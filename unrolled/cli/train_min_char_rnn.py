"""The command `unrolled train min-char-rnn FILE`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated

from tyro.conf import Positional, arg

from unrolled.cli.parsing import parse
from unrolled.errors import DivergenceError
from unrolled.settings import require
from unrolled.tasks.language_settings import text_name
from unrolled.training import Checkpoints
from unrolled.training.run import next_free


@dataclass(frozen=True)
class Arguments:
    """Train the lectures' 112-line model with the lectures' settings, on one file of text."""

    file: Annotated[str, Positional, arg(metavar="FILE")]
    """Text to train on."""
    iterations: int = 10_000
    """Number of updates, of 25 characters each."""
    sample_every: int = 1000
    """Iterations between two samples of 200 characters (the lectures: 100)."""
    seed: int = 1
    """Seed of the weights and the samples."""
    out: Annotated[Path | None, arg(metavar="RUN")] = None
    """Directory of the new run (default: runs/NAME-1, or the next free number)."""


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    import torch
    from rich.console import Console

    from unrolled.experiments.min_char_rnn import STEPS, initialise, lecture_config, train
    from unrolled.tasks.language import MinCharRNN, create_run
    from unrolled.training.curves import draw_loss
    from unrolled.training.interrupt import Interrupt

    for name in ("iterations", "sample_every"):
        require(getattr(arguments, name) >= 1, name, "at least 1", getattr(arguments, name))
    require(0 <= arguments.seed < 1 << 63, "seed", "from 0 to below 2^63", arguments.seed)
    path = arguments.out or next_free(Path("runs"), f"{text_name([arguments.file])}-min-char-rnn")
    task = create_run(
        path,
        lecture_config(arguments.file, arguments.seed),
        task=MinCharRNN,
    )
    initialise(task.model, arguments.seed)
    tokens = torch.from_numpy(task.split().train.astype("int64"))
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"data has {len(tokens):,} characters, {len(task.vocabulary)} unique")
    started, done = time.monotonic(), 0
    with Interrupt() as interrupt, task.run.metrics_path.open("w", encoding="utf-8") as metrics:
        for at in train(task.model, tokens, arguments.iterations, arguments.sample_every, arguments.seed):
            done = at.number + 1
            if not math.isfinite(at.loss):
                raise DivergenceError(f"the loss became {at.loss} at iteration {at.number}; is the text very unusual?")
            if at.sample is not None:
                console.print(f"----\n{task.vocabulary.decode(at.sample.tolist())}\n----")
            if at.number % 100 == 0 or done == arguments.iterations:
                seconds = round(time.monotonic() - started, 3)
                console.print(f"iter {at.number}, loss: {at.smooth_loss:f}")
                record = {"step": done, "epoch": round(done * STEPS / len(tokens), 4), "seconds": seconds}
                metrics.write(json.dumps({**record, "loss": at.smooth_loss / STEPS}) + "\n")
            if interrupt.requested:
                break
    Checkpoints(task.run).save(task.model, {"step": done}, best=True)
    draw_loss(task.run)
    console.print(f"{'interrupted' if interrupt.requested else 'finished'} after {done:,} iterations")
    console.print(f"smoothed loss {at.smooth_loss:.4f} ({at.smooth_loss / STEPS:.4f} nats per character)")
    console.print(f"sample unrolled sample {quote(str(path))}")
    return 130 if interrupt.requested else 0
