"""The command `unrolled inspect confusions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from unrolled.analysis.figures import save, targets
from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.errors import RunError
from unrolled.settings import require
from unrolled.tasks import open_task
from unrolled.training.checkpoint import Which


@dataclass(frozen=True)
class Arguments:
    """Draw which labels a trained model takes for which, as a matrix: for taggers, classifiers, segmenters and the
    characters of transcribers."""

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory."""
    data: Annotated[str, arg(metavar="PATH")] = ""
    """Labelled data of the form that `unrolled eval --data` takes (default: what the run held out)."""
    most: int = 40
    """Number of labels in the matrix, the most frequent ones."""
    checkpoint: Which = "best"
    """Weights to use."""
    out: Annotated[Path, arg(metavar="FIGURE")] = Path("confusions")
    """Write FIGURE.png and FIGURE.svg."""
    overwrite: bool = False
    """Replace existing files."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    from unrolled.analysis.confusion import draw_confusion
    from unrolled.cli.inspecting import print_table

    require(1 <= arguments.most <= 1000, "most", "from 1 to 1,000", arguments.most)
    paths = targets(arguments.out, arguments.overwrite)
    task: Any = open_task(arguments.run, "cpu", arguments.checkpoint, trust=arguments.trust)
    report = task.score(**({"data": arguments.data} if arguments.data else {}))
    values = report.json()
    counts: Mapping[str, Mapping[str, int]] | None = values.get("confusion")
    if counts is None:
        why = "gives no labels that can be confused"
        if task.kind == "classifier":
            why = "gives a text any number of labels, so none is taken for another"
        raise RunError(f"{arguments.run}: a {task.kind} run {why}")
    wrong = [(count, true, given) for true, row in counts.items() for given, count in row.items() if true != given]
    wrong.sort(key=lambda row: (-row[0], *row[1:]))
    print(report.heading)
    if not counts or ("confusions" in values and not wrong):
        why = "nothing is confused" if counts else "there is no label in it"
        print(f"{why}, so there is no matrix to draw")
        return 0
    print_table(("count", "true", "given"), [[row[0], repr(row[1]), repr(row[2])] for row in wrong[:10]])
    save(draw_confusion(counts, report.heading, arguments.most), paths)
    print(f"figure {' '.join(map(str, paths))}")
    return 0
