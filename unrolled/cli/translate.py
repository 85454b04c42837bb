"""The command `unrolled translate RUN...`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.data.lines import in_blocks, open_lines
from unrolled.errors import ConfigurationError, DataError, DecodingError
from unrolled.tasks import open_task
from unrolled.tasks.pairs import Which

if TYPE_CHECKING:
    from unrolled.tasks.translator import SearchTree, Translator

#: Lines of a file to read before the first is translated. At a terminal, each line is translated at once.
BLOCK = 512


@dataclass(frozen=True)
class Arguments:
    """Translate lines, with one output line for each. Several runs form an ensemble.

    With --n-best, print lines of the form `number ||| translation ||| score`; the number counts input lines from 0.
    """

    runs: Annotated[tuple[str, ...], Positional, arg(metavar="RUN...")]
    """Run directories; all runs were trained on the same pairs."""
    source: Annotated[str, arg(metavar="FILE")] = "-"
    """Sentences, one per line, plain or gzip; -: standard input."""
    beam: int = 5
    """Hypotheses kept at each step; 1: greedy search (argmax)."""
    n_best: int = 0
    """Print this many translations of each line, with scores; 0: print only the best, without its score."""
    length_penalty: float = 1.0
    """Exponent of the length by which a log-probability is divided; 0: no division, so short outputs win."""
    min_length: int = 0
    """Minimum number of tokens in an output."""
    no_repeat: int = 0
    """Let no sequence of this many tokens occur twice in an output; 0: no limit."""
    diversity: float = 0.0
    """Penalty of a token for each time an earlier group chose it; above 0, the beam is searched in --groups."""
    groups: Annotated[int | None, arg(metavar="N")] = None
    """Number of groups in the beam that avoid each other's choices (default: one per hypothesis)."""
    tree: Annotated[Path | None, arg(metavar="OUT")] = None
    """Write the search tree of the first line, as data (OUT.json) or as a picture (OUT.svg)."""
    mean: Literal["probabilities", "log-probabilities"] = "probabilities"
    """What an ensemble averages."""
    checkpoint: Which = "best"
    """Weights to use; average: the mean of the weights at the last validations."""
    device: str = "cpu"
    """Device: cpu, cuda or mps."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    from unrolled.decoding import search_for
    from unrolled.tasks.translator import at_line

    how = search_for(
        beam=arguments.beam,
        n_best=max(1, arguments.n_best),
        length_penalty=arguments.length_penalty,
        min_length=arguments.min_length,
        no_repeat=arguments.no_repeat,
        groups=arguments.groups,
        diversity=arguments.diversity,
    )
    if arguments.n_best < 0:
        raise ConfigurationError(f"--n-best must be 0 (the best alone) or above, got {arguments.n_best}")
    if arguments.tree is not None and arguments.tree.suffix not in (".json", ".svg"):
        raise ConfigurationError(f"--tree {arguments.tree}: the name must end in .json or .svg")
    if arguments.tree is not None and arguments.tree.exists():
        raise ConfigurationError(f"--tree {arguments.tree}: already exists; name another file, or remove it")
    translator = open_translator(
        arguments.runs, arguments.checkpoint, arguments.device, arguments.mean, arguments.trust
    )
    at_terminal = arguments.source == "-" and sys.stdin is not None and sys.stdin.isatty()
    if at_terminal:
        print("unrolled: type lines to translate; Ctrl-D ends", file=sys.stderr)
    seen = _Seen()
    with _status(hidden=sys.stdout.isatty()) as say:
        for block in in_blocks(open_lines(arguments.source), 1 if at_terminal else BLOCK):
            say(f"translating from line {seen.lines + 1:,} on")
            try:
                if seen.lines == 0 and arguments.tree is not None:
                    _write_tree(translator.tree(block[0], how), arguments.tree)
                translated = translator.translate(block, how)
            except DecodingError as error:
                raise at_line(error, arguments.source, seen.lines) from error
            for line, found in zip(block, translated, strict=True):
                if arguments.n_best:
                    for one in found:
                        text = one.text.replace("|||", "| | |")  # ||| separates the fields
                        print(f"{seen.lines} ||| {text} ||| {one.score:.6f}")
                else:
                    print(found[0].text)
                seen.add(line, translator)
            sys.stdout.flush()
    if arguments.tree is not None and not seen.lines:
        raise DataError("--tree: there is no first line to search for")
    seen.say(translator)
    return 0


@contextmanager
def _status(hidden: bool) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is being done; `hidden` if the outputs themselves are shown there."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    # rich's own status would capture the outputs and write them to the terminal.
    options: dict[str, Any] = {"redirect_stdout": False, "redirect_stderr": False, "transient": True}
    columns = SpinnerColumn(), TextColumn("{task.description}")
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=hidden or not console.is_terminal, **options) as progress:
        task = progress.add_task("translating")
        yield lambda text: progress.update(task, description=text)


@dataclass
class _Seen:
    """How many lines were translated, and what the user should know about them."""

    lines: int = 0
    long: list[int] = field(default_factory=list)
    unknown: dict[str, None] = field(default_factory=dict)

    def add(self, line: str, translator: Translator) -> None:
        self.lines += 1
        if translator.is_long(line):
            self.long.append(self.lines)
        self.unknown |= dict.fromkeys(translator.source.unknown(line))

    def say(self, translator: Translator) -> None:
        from unrolled.data.vocabulary import unknown_note

        if self.long:
            more = f" and {len(self.long) - 10} more" if len(self.long) > 10 else ""
            which = ", ".join(f"{number:,}" for number in self.long[:10])
            print(
                f"unrolled: note: translated in pieces of {translator.longest} tokens, the longest in training: "
                f"line {which}{more}",
                file=sys.stderr,
            )
        if note := unknown_note(translator.source.level, list(self.unknown)):
            print(f"unrolled: note: {note}", file=sys.stderr)


def _write_tree(tree: SearchTree, path: Path) -> None:
    from unrolled.analysis.search_trees import tree_svg

    try:
        text = tree.json() if path.suffix == ".json" else tree_svg(tree.root, tree.text, tree.source)
    except RecursionError as error:
        raise DataError("--tree: the outputs for the first line are too long for a tree") from error
    path.write_text(text, encoding="utf-8")


def open_translator(
    runs: Sequence[str], checkpoint: Which, device: str, mean: str = "probabilities", trust: bool = False
) -> Translator:
    """Load the runs as one translator."""
    from unrolled.tasks.translation import TranslationTask
    from unrolled.tasks.translator import Translator

    if not runs:
        raise ConfigurationError("name at least one RUN")
    return Translator([open_task(run, device, checkpoint, TranslationTask, trust=trust) for run in runs], mean)
