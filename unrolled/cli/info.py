"""`unrolled info RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from rich.console import Console
from rich.text import Text
from tyro.conf import Positional, arg

from unrolled.cli.parsing import parse
from unrolled.tasks.language import TASK, LanguageTask
from unrolled.training import Checkpoints, Run
from unrolled.training.checkpoint import WHICH
from unrolled.training.progress import clock
from unrolled.training.run import FORMAT


@dataclass(frozen=True)
class Arguments:
    """Tell what a run is, how good it got, and how to sample from it."""

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory."""


def main(words: Sequence[str], prog: str) -> int:
    path = parse(Arguments, words, prog).run
    run = Run.open(path)
    task = LanguageTask(run, "cpu")
    console = Console(highlight=False, soft_wrap=True)  # a command to copy must not be broken by a narrow terminal
    for name, value in _facts(task, path):
        console.print(Text(f"{name:13}", style="bold") + Text(value))
    return 0


def _facts(task: LanguageTask, path: str) -> list[tuple[str, str]]:
    config, run = task.config, task.run
    split = task.split()
    parameters = sum(p.numel() for p in task.model.parameters())
    held_out = f"{len(split.validation):,} validation, {len(split.test):,} test"
    facts = [
        ("run", str(run.path)),
        ("task", f"{run.task}, format {FORMAT}"),
        ("text", ", ".join(config.text.data) or "the Python standard library's source"),
        ("tokens", f"{len(split.train):,} training, {held_out}"),
        ("vocabulary", f"{len(task.vocabulary):,} ({config.text.level})"),
        ("cell", config.model.cell),
        ("layers", " + ".join(f"{width} units" for width in config.model.widths)),
        ("parameters", f"{parameters:,}"),
        ("optimizer", f"{config.training.optimizer}, learning rate {config.training.learning_rate:g}"),
        ("batches", f"{config.training.batch_size} streams × {config.training.seq_length} steps"),
    ]
    records = run.metrics()
    checkpoints = {which: found for which in WHICH if (found := Checkpoints(run).find(which))}
    if records:
        last = records[-1]
        facts.append(("trained", f"{last['step']:,} steps, {last['epoch']:.2f} epochs, {clock(last['seconds'])}"))
    if checkpoints:
        facts.append(("checkpoints", ", ".join(f"{which} at step {one.step:,}" for which, one in checkpoints.items())))
    validated = [r for r in records if "validation_loss" in r]
    if validated:
        best = min(validated, key=lambda r: r["validation_loss"])
        facts.append(("best score", f"step {best['step']:,}: {task.describe(best['validation_loss'])}"))
        facts.append(
            ("last score", f"step {validated[-1]['step']:,}: {task.describe(validated[-1]['validation_loss'])}")
        )
    if checkpoints:
        facts.append(("sample", f"unrolled sample {path}"))
        if run.task == TASK:
            facts.append(("go on", f"unrolled train lm --resume {path}"))
    else:
        facts.append(("sample", "nothing yet: no checkpoint was written"))
    return facts
