"""The command `unrolled inspect captions`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from unrolled.analysis.figures import check_target
from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError, DataError
from unrolled.settings import require
from unrolled.training.checkpoint import Which

if TYPE_CHECKING:
    from unrolled.tasks.captioning import CaptioningTask

#: The side of a picture on the page, in pixels.
_SIDE = 224


@dataclass(frozen=True)
class Arguments:
    """Write a self-contained HTML page of the pictures that a captioner's training held out.

    It shows captions and scores, the worst first, and, with attention, where the model looks before each word.

    Half of the pictures are those with the lowest CIDEr-D; the others are drawn at random.
    """

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory of a captioner."""
    count: int = 60
    """Number of pictures to show."""
    beam: int = 3
    """Hypotheses kept at each step."""
    length_penalty: float = 0.7
    """Exponent of the length by which a log-probability is divided."""
    seed: int = 1
    """Seed of the random pictures."""
    checkpoint: Which = "best"
    """Weights to use."""
    out: Annotated[Path, arg(metavar="FILE.html")] = Path("captions.html")
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

    from unrolled.analysis.captions import captions_page
    from unrolled.analysis.pages import worst_and_others
    from unrolled.decoding import BeamSearch
    from unrolled.metrics.captions import captions_report, score_captions
    from unrolled.tasks import open_task
    from unrolled.tasks.captioning import CaptioningTask

    task = open_task(arguments.run, "cpu", arguments.checkpoint, CaptioningTask, trust=arguments.trust)
    if len(task.dev) < 2:
        raise DataError(f"{task.run.path}: no pictures were held out to show")
    how = BeamSearch(beam=arguments.beam, length_penalty=arguments.length_penalty)
    with Console(stderr=True).status("describing the pictures"):
        found = task.describe_own(list(task.dev), how)
        references = [task.pictures.captions[k] for k in task.dev]
        scores = score_captions([some[0].text for some in found], references, resamples=0)
        assert scores.cider_d.captions is not None
        each = scores.cider_d.captions
        entries = [
            _entry(task, task.dev[k], found[k][0].words, float(each[k]), references[k])
            for k in worst_and_others(each, arguments.count, arguments.seed)
        ]
    lacking = sum(one is None for one in entries)
    pictures = [one for one in entries if one is not None]
    if not pictures:
        raise DataError(f"{task.run.path}: its pictures are no longer where they were ({task.pictures.files[-1]})")
    report = captions_report(scores, "dev")
    model = task.config.model
    page = captions_page(
        {
            "title": f"{model.model} of {task.run.path}",
            "facts": f"{len(pictures)} of {len(task.dev):,} pictures held out; half of them have the lowest scores."
            + (f" {lacking} pictures can no longer be read." if lacking else ""),
            "scores": [(value.label, value.text) for value in report.values if value.label],
            "most": max(1.0, *(one["score"] for one in pictures)),
            "attends": any(one["weights"] for one in pictures),
            "pictures": pictures,
        }
    )
    arguments.out.write_text(page, encoding="utf-8")
    print(f"page   {arguments.out}")
    return 0


def _entry(
    task: CaptioningTask, number: int, words: Sequence[str], score: float, references: Sequence[str]
) -> dict[str, Any] | None:
    """Return the data of one picture on the page; None if its file cannot be read."""
    from unrolled.analysis.captions import data_url
    from unrolled.data.pictures import read_picture
    from unrolled.tasks.describer import Describer

    try:
        picture = read_picture(task.pictures.files[number])
    except DataError:
        return None  # counted on the page
    weights = Describer([task]).attention(task.features_of([number]), words)
    square = weights is not None and round(weights.shape[1] ** 0.5) ** 2 == weights.shape[1]
    return {
        "name": task.pictures.names[number],
        "image": data_url(picture, _SIDE),
        "words": list(words),
        "score": score,
        "references": list(references),
        "weights": weights[: len(words)].round(4).tolist() if weights is not None and square else None,
    }
