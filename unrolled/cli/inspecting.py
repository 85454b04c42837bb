"""What the `inspect` commands share: loading a run's model, the text to examine it on, and tables."""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from unrolled.analysis.hypotheses import Hypothesis, guess_language, hypotheses_for, of_function, of_pattern
from unrolled.data import find_sources, read_text
from unrolled.data.lines import readable
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.tasks import open_task as open_task_of
from unrolled.tasks import task_of
from unrolled.tasks.language import LanguageTask
from unrolled.training import open_run
from unrolled.training.checkpoint import Which


def open_task(path: str | Path, checkpoint: Which = "best", trust: bool = False) -> LanguageTask:
    """Load the language model of a run, with its weights, on the CPU."""
    run = open_run(path)
    found = task_of(run)
    if not found.reads_text:
        raise RunError(
            f"{run.path}: a {found.kind} run, not a language model run, which this command needs; "
            "`unrolled inspect gradients` shows the gradient of the loss of any run"
        )
    return open_task_of(path, "cpu", checkpoint, LanguageTask, trust=trust)


def held_out_tokens(task: LanguageTask, limit: int) -> np.ndarray:
    """Return the first `limit` characters of the run's test part, or else of its validation part, as tokens."""
    split = task.split()
    tokens = split.test if len(split.test) else split.validation
    if not len(tokens):
        raise ConfigurationError(f"{task.run.path}: no text was held out (--val-fraction 0); give --text FILE")
    # A token has at least one character, except for bytes: a character may take four of them.
    tokens = np.asarray(tokens[: 4 * limit], dtype=np.int64)
    if task.config.text.level in ("char", "byte"):
        return tokens[: count_tokens(task, exact_text(task, tokens)[:limit])]
    return tokens[
        : bisect_right(range(1, len(tokens) + 1), limit, key=lambda n: len(task.vocabulary.decode(tokens[:n])))
    ]


def exact_text(task: LanguageTask, tokens: np.ndarray) -> str:
    """Return the text of character or byte tokens. A byte of no character becomes half of a surrogate pair."""
    if task.config.text.level == "byte":
        return tokens.astype(np.uint8).tobytes().decode("utf-8", "surrogateescape")
    return task.vocabulary.decode(tokens)


def count_tokens(task: LanguageTask, text: str) -> int:
    """Return how many character or byte tokens the text has."""
    return len(text.encode("utf-8", "surrogateescape")) if task.config.text.level == "byte" else len(text)


def text_of(task: LanguageTask, file: str, limit: int) -> str:
    """Return the first `limit` characters of `file`. Print a note about what the vocabulary lacks."""
    parts, count = [], 0
    for block in read_text(find_sources([file], unpack=task.config.text.level != "byte")):
        parts.append(block)
        count += len(block)
        if count >= limit:
            break
    text = "".join(parts)[:limit]
    if note := task.unknown_note(task.vocabulary.unknown(text)):
        print(f"unrolled: note: of {file}, {note}", file=sys.stderr)
    return text


def tokens_for(task: LanguageTask, file: str | None, limit: int, at_least: int) -> np.ndarray:
    """Return the first `limit` characters of `file`, or of the run's held-out text, as tokens, int64 `[N]`.

    Raise DataError if there are fewer than `at_least` tokens.
    """
    tokens = held_out_tokens(task, limit) if file is None else task.vocabulary.encode(text_of(task, file, limit))
    require_tokens(tokens, at_least)
    return tokens


def require_tokens(tokens: np.ndarray, at_least: int) -> None:
    if len(tokens) < at_least:
        raise DataError(f"the text is too short to examine: {len(tokens)} tokens that the run knows, {at_least} needed")


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table, with numbers aligned to the right."""
    table = Table(box=None, pad_edge=False)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has room
    for k, head in enumerate(heads):
        numeric = all(isinstance(row[k], int | float) for row in rows)
        table.add_column(head, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    console.print(table)


@dataclass(frozen=True)
class LabelledText:
    """Tokens `[N]`, the character that belongs to each, and hypotheses with a label for each."""

    tokens: np.ndarray
    text: str
    hypotheses: list[Hypothesis]
    language: str


def labelled_text(
    task: LanguageTask, file: str | None, language: str | None, limit: int, own: Sequence[str]
) -> LabelledText:
    """Return the text to examine units on: at most `limit` characters of `file` or of the run's held-out text."""
    level = task.config.text.level
    if level not in ("char", "byte"):
        raise ConfigurationError(
            f"{task.run.path}: units are examined character by character, and this is a model of level {level}; "
            "train one of --level char or byte"
        )
    if language is None:
        known = [file] if file else task.config.text.data
        language = guess_language(known[0]) if known else "python"
    if file is None:
        tokens = held_out_tokens(task, limit)
        text = exact_text(task, tokens)
        # Held-out text may begin inside a string; a lexer must start at a place that is surely outside one.
        begin = re.search(r"^(?:import|from|class|def) ", text, re.MULTILINE) if language == "python" else None
        if begin:
            tokens, text = tokens[count_tokens(task, text[: begin.start()]) :], text[begin.start() :]
    else:
        text = text_of(task, file, limit)
        tokens = task.vocabulary.encode(text)
    exact, text = text, readable(text)
    hypotheses = hypotheses_for(text, language)
    for definition in own:
        name, equals, what = definition.partition("=")
        if not (name and equals and what):
            raise ConfigurationError(f"--hypothesis {definition!r}: write NAME=PATTERN or NAME=FILE.py:FUNCTION")
        if readable(name) != name:
            raise ConfigurationError(f"--hypothesis {name!r}: the name is not UTF-8 text")
        if name in {hypothesis.name for hypothesis in hypotheses}:
            raise ConfigurationError(f"--hypothesis {name}: this name is already taken; choose another")
        make = of_function if re.fullmatch(r".+\.py:\w+", what) else of_pattern
        hypotheses.append(make(name, what, text))
    require_tokens(tokens, 200)
    if level == "char":
        unknown = set(task.vocabulary.unknown(text))
        places = np.array([k for k, character in enumerate(text) if character not in unknown])
    else:
        places = np.repeat(np.arange(len(text)), [len(c.encode("utf-8", "surrogateescape")) for c in exact])
    kept = [Hypothesis(hypothesis.name, hypothesis.labels[places]) for hypothesis in hypotheses]
    return LabelledText(tokens, "".join(text[k] for k in places), kept, language)
