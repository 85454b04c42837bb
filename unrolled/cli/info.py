"""`unrolled info RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Annotated

from rich.console import Console
from rich.text import Text
from tyro.conf import Positional, arg

from unrolled.cli.parsing import parse
from unrolled.cli.training import Task
from unrolled.tasks.language import TASK, LanguageTask
from unrolled.tasks.pairs import REPLY, TASKS, TRANSLATION
from unrolled.tasks.sentiment import TASK as TREES
from unrolled.tasks.sentiment import SentimentTask
from unrolled.tasks.translation import TranslationTask
from unrolled.training import Checkpoints, open_run
from unrolled.training.checkpoint import WHICH
from unrolled.training.progress import clock
from unrolled.training.run import FORMAT


@dataclass(frozen=True)
class Arguments:
    """Tell what a run is, how good it got, and how to use it."""

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory."""


def main(words: Sequence[str], prog: str) -> int:
    path = parse(Arguments, words, prog).run
    run = open_run(path)
    kind = TranslationTask if run.task in TASKS else SentimentTask if run.task == TREES else LanguageTask
    task = kind(run, "cpu")
    console = Console(highlight=False, soft_wrap=True)  # a command to copy must not be broken by a narrow terminal
    for name, value in _facts(task, path):
        console.print(Text(f"{name:13}", style="bold") + Text(value))
    return 0


def _facts(task: Task, path: str) -> list[tuple[str, str]]:
    run, training = task.run, task.config.training
    facts = [("run", str(run.path)), ("task", f"{run.task}, format {FORMAT}"), *task.facts()]
    facts.append(("optimizer", f"{training.optimizer}, learning rate {training.learning_rate:g}"))
    units = {TranslationTask: "pairs", SentimentTask: "trees"}
    unit = units.get(type(task), f"streams × {training.seq_length} steps")
    facts.append(("batches", f"{training.batch_size} {unit}"))
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
    if not checkpoints:
        return [*facts, ("use", "nothing yet: no checkpoint was written")]
    uses, resume = _COMMANDS.get(run.task, ("sample", None))
    facts.append((uses, f"unrolled {uses} {quote(str(path))}"))
    if resume:
        facts.append(("go on", f"unrolled {resume} --resume {quote(str(path))}"))
    return facts


#: How a task's runs are used, and how they go on.
_COMMANDS = {
    TASK: ("sample", "train lm"),
    TRANSLATION: ("translate", "train translate"),
    REPLY: ("reply", "train reply"),
    TREES: ("eval", "train tree"),
}
