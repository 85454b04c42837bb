"""The command `unrolled inspect classes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from unrolled.analysis.figures import check_target
from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError
from unrolled.settings import require
from unrolled.training.checkpoint import Which

if TYPE_CHECKING:
    from unrolled.tasks.classifying import ClassifyingTask


@dataclass(frozen=True)
class Arguments:
    """Write a self-contained HTML page of texts in which each word is coloured by what it adds to a class.

    Half of the texts are those that the model judges worst, by the probability of their labels; the others are drawn at
    random.
    """

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory of a classifier."""
    data: Annotated[str, arg(metavar="PATH")]
    """Labelled texts, a file or a folder, best those of which training has seen none."""
    text_column: Annotated[str, arg(metavar="NAME")] = ""
    """Column of the texts, or their key in JSON (as in training)."""
    label_column: Annotated[str, arg(metavar="NAME")] = ""
    """Column of the labels, or their key in JSON (as in training)."""
    format: str = ""
    """Format of the file: jsonl, csv, tsv or folder (as its name says, or as in training)."""
    count: int = 20
    """Number of texts to show."""
    way: Literal["", "reading", "leaving-out"] = ""
    """By the change of the class's log-odds as each word is read, or by leaving each word out (reading for models that
    pool the last state and read forwards; otherwise leaving-out)."""
    seed: int = 1
    """Seed of the random texts."""
    checkpoint: Which = "best"
    """Weights to use."""
    out: Annotated[Path, arg(metavar="FILE.html")] = Path("classes.html")
    """The page."""
    overwrite: bool = False
    """Replace an existing file."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    require(1 <= arguments.count <= 1000, "count", "from 1 to 1,000", arguments.count)
    require(arguments.seed >= 0, "seed", "0 or above", arguments.seed)
    if arguments.out.suffix not in (".html", ".htm"):
        raise ConfigurationError(f"--out {arguments.out}: the page's name must end in .html")
    check_target(arguments.out, arguments.overwrite)
    from rich.console import Console

    from unrolled.analysis.attribution import attribution_page, default_way
    from unrolled.analysis.pages import worst_and_others
    from unrolled.tasks import open_task
    from unrolled.tasks.classifying import ClassifyingTask
    from unrolled.tasks.classifying_settings import ClassEvaluation

    task = open_task(arguments.run, "cpu", arguments.checkpoint, ClassifyingTask, trust=arguments.trust)
    asked = ClassEvaluation(arguments.data, arguments.text_column, arguments.label_column, arguments.format)
    texts = task.labelled(asked).texts
    judged = task.probabilities([one.text for one in texts])
    way = arguments.way or default_way(task.model)
    worst = [_worst(chances, one.labels) for chances, one in zip(judged, texts, strict=True)]
    chosen = worst_and_others(worst, arguments.count, arguments.seed)
    entries: list[Any] = []
    with Console(stderr=True).status("") as status:
        for k in chosen:
            status.update(f"text {len(entries) + 1} of {len(chosen)}")
            entries.append(_entry(task, texts[k].text, texts[k].labels, judged[k], way))
    model, classes = task.config.model, task.classes.names
    page = attribution_page(
        {
            "title": f"{model.cell} of {task.run.path}",
            "facts": f"{len(entries)} of {len(texts):,} texts of {arguments.data}; the first half is judged worst.",
            "way": way,
            "classes": list(classes),
            "shown": len(classes) - 1,
            "texts": entries,
        }
    )
    arguments.out.write_text(page, encoding="utf-8")
    print(f"page   {arguments.out}")
    return 0


def _worst(chances: dict[str, float], labels: Sequence[str]) -> float:
    """Return the smallest probability of a label that the text has; 1 if it has none."""
    return min((chances.get(label, 0.0) for label in labels), default=1.0)


def _entry(task: ClassifyingTask, text: str, labels: Sequence[str], chances: dict[str, float], way: str) -> Any:
    """Return the data of one text on the page."""
    from unrolled.analysis.attribution import attribute

    tokens, parts = task.parts(text)
    found = attribute(task.model, tokens, [part.tokens for part in parts], way)
    return {
        "parts": [[part.text, part.tokens > 0] for part in parts],
        "changes": found.changes.round(4).tolist(),
        "first": found.first.round(4).tolist(),
        "last": found.last.round(4).tolist(),
        "probabilities": [round(chances[name], 4) for name in task.classes.names],
        "given": list(labels),
        "found": list(task.chosen(chances)),
    }
