"""The command `unrolled inspect cells RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from unrolled.analysis.figures import save, targets
from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.settings import require
from unrolled.training.checkpoint import Which

if TYPE_CHECKING:
    from unrolled.analysis.examine import Examination


@dataclass(frozen=True)
class Arguments:
    """Find units of a trained character model that mean something, and draw text coloured by them.

    Every unit of every layer is scored against every hypothesis on the first half of the text; the best unit is
    confirmed on the second half. The score is the AUC for yes-or-no hypotheses and the correlation r for numbers. An
    AUC of 0.5 is chance; 0 is as good as 1, because the unit is then low where the hypothesis holds.

    The control is the same search with the labels shifted along the text, 50 times. The columns show its median
    distance from chance, as an AUC above 0.5 or an r above 0, and the value that 95% of the shifts do not exceed.
    """

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory of a language model of characters or bytes."""
    text: Annotated[str | None, arg(metavar="FILE")] = None
    """Text for RUN to read, unseen in training if possible (default: the text that its training held out)."""
    language: Annotated[str | None, arg(metavar="NAME")] = None
    """text, or a programming language that Pygments knows: python, c, tex (default: a guess from the file's name)."""
    hypothesis: Annotated[tuple[str, ...], arg(metavar="NAME=PATTERN...")] = ()
    """Your own: a regular expression that matches what is meant, or FILE.py:FUNCTION, which labels each character."""
    characters: int = 200_000
    """Maximum number of characters to read."""
    show: int = 6
    """Number of units in the figure."""
    checkpoint: Which = "best"
    """Weights to use."""
    out: Annotated[Path, arg(metavar="FIGURE")] = Path("cells")
    """Write FIGURE.png and FIGURE.svg."""
    overwrite: bool = False
    """Replace existing files."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    from rich.console import Console

    from unrolled.analysis.examine import draw_units, examine
    from unrolled.cli.inspecting import labelled_text, open_task

    require(200 <= arguments.characters <= 100_000_000, "characters", "from 200 to 100,000,000", arguments.characters)
    require(1 <= arguments.show <= 50, "show", "from 1 to 50", arguments.show)
    paths = targets(arguments.out, arguments.overwrite)
    task = open_task(arguments.run, arguments.checkpoint, arguments.trust)
    given = labelled_text(task, arguments.text, arguments.language, arguments.characters, arguments.hypothesis)
    with Console(stderr=True).status("") as status:
        found = examine(task.model, given.tokens, given.text, given.hypotheses, status.update)
    print_findings(found)
    print_passages(found, 3)
    save(draw_units(found, given.hypotheses, given.text, arguments.show), paths)
    print(f"figure {' '.join(map(str, paths))}")
    return 0


HEADS = ("hypothesis", "unit", "score", "found", "held out", "control", "95%", "p", "loss without")


def print_findings(found: Examination) -> None:
    """Print the table of all hypotheses, best first."""
    from unrolled.cli.inspecting import print_table

    rows = [
        [
            ("* " if finding.confirmed else "  ") + finding.hypothesis,
            str(finding.unit),
            "r" if finding.graded else "AUC",
            f"{finding.found:6.3f}",
            f"{finding.held_out:6.3f}",
            f"{finding.control:6.3f}",
            f"{finding.control_high:6.3f}",
            f"{finding.p:.1g}",
            f"{change:+.4f}",
        ]
        for finding, change in zip(found.findings, found.ablations, strict=True)
    ]
    print_table(HEADS, rows)
    confirmed = sum(finding.confirmed for finding in found.findings)
    print(
        f"* confirmed, {confirmed} of {len(rows)}: AUC of 0.9 (or 0.1), or |r| of 0.9 (0.8 for a depth), p below 0.01"
    )
    print(f"loss {found.loss:.4f} nats per character; `loss without`: by how much it grows with the unit set to zero")


def print_passages(found: Examination, count: int) -> None:
    """Print where the best units are most active, with the character between ‹ and ›."""
    for finding, passages in list(zip(found.findings, found.passages, strict=True))[:count]:
        print(f"\n{finding.hypothesis}, unit {finding.unit}, at its most active:")
        for passage in passages[:3]:
            before, here, after = passage.text[: passage.at], passage.text[passage.at], passage.text[passage.at + 1 :]
            line = f"{before}‹{here}›{after}".replace("\n", "↵")
            print(f"  {passage.value:+.2f}  {line}")
