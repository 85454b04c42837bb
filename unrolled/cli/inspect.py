"""The command `unrolled inspect RUN`."""

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
from unrolled.errors import ConfigurationError, UnrolledError
from unrolled.settings import require
from unrolled.training.checkpoint import Which

#: Steps that the page's gradients flow back.
_STEPS = 20


@dataclass(frozen=True)
class Arguments:
    """Write a self-contained HTML page about the inside of a trained character model, and the page's data as JSON.

    For a captioner this is `unrolled inspect captions`.

    The page shows units that mean something, the text coloured by any unit, where each unit is most active, the loss
    without it, gates and gradient flow. `unrolled inspect cells`, `gradients`, `sensitivity`, `memory` and `surface`
    draw single figures, also of nets without a run.
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
    checkpoint: Which = "best"
    """Weights to use."""
    out: Annotated[Path, arg(metavar="FILE.html")] = Path("report.html")
    """The page. Its data goes next to it, as FILE.json."""
    overwrite: bool = False
    """Replace existing files."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    if _describes_pictures(words):
        from unrolled.cli import inspect_captions

        return inspect_captions.main(words, prog)
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
        raise ConfigurationError(f"--out {page}: the page's name must end in .html")
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


def _describes_pictures(words: Sequence[str]) -> bool:
    """Return whether the first word names the run of a captioner."""
    from unrolled.training import open_run

    if not words or words[0].startswith("-"):
        return False
    try:
        return open_run(words[0]).task == "captioner"
    except UnrolledError:
        return False  # the command itself says what is wrong
