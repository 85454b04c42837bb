"""`unrolled eval RUN`."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unrolled.cli.parsing import parse
from unrolled.data import find_sources, read_text
from unrolled.data.tokens import encode_files
from unrolled.errors import ConfigurationError, DataError
from unrolled.tasks.language import LanguageTask
from unrolled.training import Run
from unrolled.training.checkpoint import Which


@dataclass(frozen=True)
class Arguments:
    """Score a run on the part of its text that was kept for it, or on other text."""

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory."""
    data: Annotated[tuple[str, ...], arg(metavar="PATH...")] = ()
    """Files, folders, or - for standard input; none: the run's test part, or else its validation part."""
    glob: Annotated[str | None, arg(metavar="PATTERN")] = None
    """Which files of a folder: '*.py'."""
    json: bool = False
    """Print one JSON object."""
    checkpoint: Which = "best"
    """Which weights."""
    device: str = "cpu"
    """cpu, cuda, mps."""


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    task = LanguageTask(Run.open(arguments.run), arguments.device).load(arguments.checkpoint)
    with tempfile.TemporaryDirectory() as scratch:
        what, tokens = _tokens(task, arguments, Path(scratch) / "tokens.bin")
        if len(tokens) < 2:
            raise DataError(f"{what}: too short to score, it takes two tokens")
        score = task.score(tokens)
    report = {
        "run": arguments.run,
        "checkpoint": arguments.checkpoint,
        "text": what,
        "level": task.config.text.level,
        "tokens": score.tokens,
        "characters": None if score.unknown else score.characters,
        "unknown": score.unknown,
        "nats": score.nats,
        "bits_per_character": score.bits_per_character,
        "perplexity": score.perplexity,
    }
    if arguments.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        counted = f"{score.unknown:,} of them <unk>" if score.unknown else f"{score.characters:,} characters"
        print(f"{what}: {score.tokens:,} tokens, {counted}")
        print(f"nats per token      {score.nats:.4f}")
        bits = score.bits_per_character
        print(f"bits per character  {'- (the text behind <unk> is not scored)' if bits is None else f'{bits:.4f}'}")
        print(f"perplexity          {score.perplexity:.3f}")
    return 0


def _tokens(task: LanguageTask, arguments: Arguments, scratch: Path):
    if not arguments.data:
        if arguments.glob is not None:
            raise ConfigurationError("--glob chooses files of a folder: give the folder with --data")
        split = task.split()
        if len(split.test):
            return "test part", split.test
        if len(split.validation):
            return "validation part", split.validation
        raise ConfigurationError(f"{arguments.run}: no text was held out (--val-fraction 0); give --data")
    files = find_sources(arguments.data, arguments.glob)
    if task.config.text.level in ("char", "word"):
        unknown = sorted({part for block in read_text(files) for part in task.vocabulary.unknown(block)})
        if note := task.unknown_note(unknown):
            print(f"unrolled: note: {note}", file=sys.stderr)
    return ", ".join(arguments.data), encode_files(files, task.vocabulary, scratch).tokens
