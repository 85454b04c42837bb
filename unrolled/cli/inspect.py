"""`unrolled inspect RUN`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unrolled.analysis.figures import check_target
from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError
from unrolled.settings import require
from unrolled.training.checkpoint import Which

#: Steps that the page's gradients go back.
_STEPS = 20


@dataclass(frozen=True)
class Arguments:
    """Write a page about the inside of a trained character model, with all that it needs in it, and its data as JSON.

    Units that mean something and the text coloured by any unit; where each is most active, what is lost without it;
    gates; gradient flow. The single figures, and those of nets without a run, are made by `unrolled inspect cells`,
    `gradients`, `sensitivity`, `memory` and `surface`.
    """

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory of a language model of characters or bytes."""
    text: Annotated[str | None, arg(metavar="FILE")] = None
    """Text for RUN to read, unseen in training if possible (what its training held out)."""
    language: Annotated[str | None, arg(metavar="NAME")] = None
    """text, or a programming language that Pygments knows: python, c, tex (guessed from the file's name)."""
    hypothesis: Annotated[tuple[str, ...], arg(metavar="NAME=PATTERN...")] = ()
    """Of your own: a regular expression for what is meant, or FILE.py:FUNCTION, from a text to a label a character."""
    characters: int = 200_000
    """Read this much of the text, at most."""
    checkpoint: Which = "best"
    """Which weights."""
    out: Annotated[Path, arg(metavar="FILE.html")] = Path("report.html")
    """The page; the data goes beside it, as FILE.json."""
    overwrite: bool = False
    """Replace them where they exist."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    import torch
    from rich.console import Console

    from unrolled.analysis.examine import examine
    from unrolled.analysis.flows import flows_over
    from unrolled.analysis.report import report_data, report_page
    from unrolled.cli.inspect_cells import print_findings
    from unrolled.cli.inspecting import labelled_text, open_task

    require(200 <= arguments.characters <= 100_000_000, "characters", "from 200 to 100,000,000", arguments.characters)
    page = arguments.out
    if page.suffix not in (".html", ".htm"):
        raise ConfigurationError(f"--out {page}: a page's name ends in .html")
    side = page.with_suffix(".json")
    for path in (page, side):
        check_target(path, arguments.overwrite)
    task = open_task(arguments.run, arguments.checkpoint, arguments.trust)
    given = labelled_text(task, arguments.text, arguments.language, arguments.characters, arguments.hypothesis)
    with Console(stderr=True).status("") as status:
        found = examine(task.model, given.tokens, given.text, given.hypotheses, status.update)
        status.update("carrying gradients back")
        flows, _ = flows_over(task.model, torch.from_numpy(given.tokens[: 11 * _STEPS]), _STEPS, None)
    facts = {
        "run": str(task.run.path),
        "cell": task.config.model.cell,
        "layers": " + ".join(f"{width} units" for width in task.config.model.widths),
        "source": arguments.text or "held-out text",
        "language": given.language,
        "characters": len(given.tokens),
    }
    data = report_data(facts, found, given.hypotheses, given.text, flows)
    page.write_text(report_page(data, found, given.hypotheses, given.text, flows), encoding="utf-8")
    side.write_text(json.dumps(data, ensure_ascii=False) + "\n", encoding="utf-8")
    print_findings(found)
    print(f"page   {page}")
    print(f"data   {side}")
    return 0
