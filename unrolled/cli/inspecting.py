"""What the `inspect` commands share: a run's model, the text to look at it on, and tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from unrolled.data import find_sources, read_text
from unrolled.errors import ConfigurationError, DataError
from unrolled.tasks.language import LanguageTask
from unrolled.training import Run
from unrolled.training.checkpoint import Which


def open_task(path: str | Path, checkpoint: Which = "best") -> LanguageTask:
    """The language model of a run, with its weights, on the CPU."""
    return LanguageTask(Run.open(path), "cpu").load(checkpoint)


def held_out_text(task: LanguageTask) -> str:
    """The text that the run was not trained on: its test part, or else its validation part."""
    split = task.split()
    tokens = split.test if len(split.test) else split.validation
    if not len(tokens):
        raise ConfigurationError(f"{task.run.path}: no text was held out (--val-fraction 0); give --text FILE")
    return task.vocabulary.decode(tokens)


def text_for(task: LanguageTask, file: str | None, limit: int) -> str:
    """The first `limit` characters of `file`, or of the run's held-out text; what the vocabulary lacks is named."""
    if file is None:
        return held_out_text(task)[:limit]
    parts, count = [], 0
    for block in read_text(find_sources([file])):
        parts.append(block)
        count += len(block)
        if count >= limit:
            break
    text = "".join(parts)[:limit]
    if note := task.unknown_note(task.vocabulary.unknown(text)):
        print(f"unrolled: note: of {file}, {note}", file=sys.stderr)
    return text


def encode(task: LanguageTask, text: str, at_least: int):
    """`text` as tokens, int64 `[N]`; DataError where there are too few."""
    tokens = task.vocabulary.encode(text)
    if len(tokens) < at_least:
        raise DataError(f"the text is too short to look at: {len(tokens)} tokens the run knows, {at_least} are needed")
    return tokens


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table; numbers to the right."""
    table = Table(box=None, pad_edge=False)
    for k, head in enumerate(heads):
        numeric = all(isinstance(row[k], int | float) for row in rows)
        table.add_column(head, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    console = Console(highlight=False, markup=False)
    console.print(table, soft_wrap=not console.is_terminal)
