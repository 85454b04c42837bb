"""The command `unrolled eval RUN`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from unrolled.cli.flags import Trust, flag
from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError
from unrolled.settings import require_choice
from unrolled.tasks import all_infos, info_of, open_task
from unrolled.tasks.info import TaskInfo
from unrolled.tasks.reports import keep_report
from unrolled.training import Run, open_run

if TYPE_CHECKING:
    from unrolled.tasks.base import Task


@dataclass(frozen=True)
class Arguments:
    """Score a run on the data that its training held out, or on other data.

    A language model is scored by nats, perplexity and bits per character; a translator by BLEU, chrF and perplexity; a
    net on trees by its accuracy at roots and at all nodes; a classifier by accuracy and F1. The report is stored in the
    run, and `unrolled runs` shows it.
    """

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory."""
    json: bool = False
    """Print one JSON object."""
    checkpoint: str = "best"
    """Weights to use: best or last; for translators also average, the mean of the weights at the last validations."""
    device: str = "cpu"
    """Device: cpu, cuda or mps."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    run = _run_of(words)
    if run is None:
        parse(arguments("eval", words), words, prog)  # prints the help, or reports what is missing
        raise ConfigurationError("RUN is missing: name a run directory")
    task = info_of(run)
    _refuse_others(task, run, words)
    given: Any = parse(_with_flags([task]), words, prog)
    if given.checkpoint == "average" and "average" not in task.checkpoints:
        said = f"{run.path}: a {run.task} run has no averaged weights; choose another `checkpoint`"
        raise ConfigurationError(said, setting="checkpoint")
    require_choice("checkpoint", given.checkpoint, task.checkpoints)
    opened: Task = open_task(run.path, given.device, given.checkpoint, trust=given.trust)
    flags = {each.name: getattr(given, each.name) for each in dataclasses.fields(task.Evaluation)}
    report = opened.score(task.Evaluation(**flags))
    for note in report.notes:
        print(f"unrolled: note: {note}", file=sys.stderr)
    stored = {"run": given.run, "checkpoint": given.checkpoint, "text": report.data, **report.json()}
    if problem := keep_report(run, given.checkpoint, report):
        print(f"unrolled: note: {problem}", file=sys.stderr)
    print(json.dumps(stored, ensure_ascii=False) if given.json else "\n".join(report.lines()))
    return 0


def arguments(name: str, words: Sequence[str]) -> Any:
    """Return the flags of `eval` for runs of all tasks."""
    return _with_flags(list(all_infos()))


def _run_of(words: Sequence[str]) -> Run | None:
    """Open the run that the words name: the first word that is a run directory, or else the first that is no flag."""
    if "-h" in words or "--help" in words:
        return None
    plain = [word for word in words if not word.startswith("-")]
    found = next((word for word in plain if (Path(word) / "config.json").exists()), next(iter(plain), None))
    return None if found is None else open_run(found)


def _with_flags(tasks: Sequence[type[TaskInfo]]) -> Any:
    """Return a dataclass of the flags that all tasks share and those of `tasks`."""
    bases = (*dict.fromkeys(task.Evaluation for task in tasks), Arguments)
    return dataclasses.make_dataclass(
        "Arguments", [], bases=bases, frozen=True, namespace={"__doc__": Arguments.__doc__}
    )


def _refuse_others(task: type[TaskInfo], run: Run, words: Sequence[str]) -> None:
    """Raise ConfigurationError for a flag that applies only to runs of other tasks."""
    own = _flags(Arguments) | _flags(task.Evaluation)
    typed = [word.split("=")[0] for word in words if word.startswith("--")]
    strange = [word for word in typed if word not in own]
    if strange and (meant := set(strange) & set().union(*(_flags(other.Evaluation) for other in all_infos()))):
        known = ", ".join(_flags(task.Evaluation))
        use = f"it is scored with {known}" if known else "it has no flags for its task"
        raise ConfigurationError(f"{run.path}: {min(meant)} does not apply to a {run.task} run: {use}")


def _flags(kind: type) -> dict[str, None]:
    """Return the flags of a dataclass, in order."""
    return dict.fromkeys(flag(each.name) for each in dataclasses.fields(kind))
