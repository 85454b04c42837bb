"""The command `unrolled info RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Annotated

from tyro.conf import Positional, arg

from unrolled.cli.parsing import parse
from unrolled.tasks import open_info
from unrolled.tasks.info import TaskInfo
from unrolled.tasks.reports import reports
from unrolled.training import Checkpoints
from unrolled.training.checkpoint import WHICH
from unrolled.training.journal import best_validation
from unrolled.training.run import FORMAT


@dataclass(frozen=True)
class Arguments:
    """Show what a run is, how good it is, and how to use it."""

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory."""


def main(words: Sequence[str], prog: str) -> int:
    path = parse(Arguments, words, prog).run
    from rich.console import Console
    from rich.text import Text

    info = open_info(path)
    console = Console(highlight=False, soft_wrap=True)  # a command to copy must not be broken by a narrow terminal
    for name, value in _facts(info, path):
        console.print(Text(f"{name:13}", style="bold") + Text(value))
    return 0


def _facts(info: TaskInfo, path: str) -> list[tuple[str, str]]:
    from unrolled.training.progress import clock

    run, training = info.run, info.config.training
    facts = [("run", str(run.path)), ("task", f"{run.task}, format {FORMAT}"), *info.facts()]
    facts.append(("optimizer", f"{training.optimizer}, learning rate {training.learning_rate:g}"))
    facts.append(("batches", info.batches))
    if run.origin is not None:
        facts.append(("started from", str(run.origin)))
    records = run.metrics()
    checkpoints = {which: found for which in WHICH if (found := Checkpoints(run).find(which))}
    if records:
        last = records[-1]
        facts.append(("trained", f"{last['step']:,} steps, {last['epoch']:.2f} epochs, {clock(last['seconds'])}"))
    if checkpoints:
        facts.append(("checkpoints", ", ".join(f"{which} at step {one.step:,}" for which, one in checkpoints.items())))
    validated = [r for r in records if "validation_loss" in r]
    if validated:
        best, last = best_validation(validated, info.validated), validated[-1]
        facts.append(("best score", f"step {best['step']:,}: {info.describe_validation(best['validation_loss'])}"))
        facts.append(("last score", f"step {last['step']:,}: {info.describe_validation(last['validation_loss'])}"))
    for record in reports(run)[-1:]:
        facts.append(
            ("report", f"{record['headline']} on {record.get('data')}, of the {record.get('checkpoint')} weights")
        )
    if not checkpoints:
        return [*facts, ("use", "nothing yet: no checkpoint was written")]
    for _, command in info.uses():
        facts.append((command.split()[1], command.format(run=quote(str(path)))))
    if info.resumable:
        facts.append(("resume", f"unrolled train {info.name} --resume {quote(str(path))}"))
    return facts
