"""`unrolled eval RUN`."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unrolled.cli.parsing import parse
from unrolled.cli.translate import at_line
from unrolled.data import find_sources, read_text
from unrolled.data.pairs import read_line_pairs
from unrolled.data.tokens import encode_files
from unrolled.decoding import BeamSearch
from unrolled.errors import ConfigurationError, DataError, DecodingError, DivergenceError
from unrolled.settings import require
from unrolled.tasks.language import LanguageTask
from unrolled.tasks.pairs import TASKS
from unrolled.tasks.sentiment import TASK as TREES
from unrolled.tasks.sentiment import SentimentTask, TreeScore, read_labelled_trees
from unrolled.tasks.translation import TranslationTask, Which
from unrolled.tasks.translator import evaluate
from unrolled.training import Run, open_run


@dataclass(frozen=True)
class Arguments:
    """Score a run: a language model on the part of its text that was kept for it, or on other text; a translator, by
    BLEU, chrF and perplexity, on --source and --target, or without them on the pairs that it was validated on; a net on
    trees by its accuracy at roots and at all nodes, on --data or without it on its dev part."""

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory."""
    data: Annotated[tuple[str, ...], arg(metavar="PATH...")] = ()
    """Files, folders, or - for standard input; none: the run's test part, or else its validation part. Of trees: a file
    of them, or a folder with test.txt or dev.txt."""
    glob: Annotated[str | None, arg(metavar="PATTERN")] = None
    """Which files of a folder: '*.py'."""
    source: Annotated[str, arg(metavar="FILE")] = ""
    """Of a translator: sentences to translate, one a line."""
    target: Annotated[str, arg(metavar="FILE")] = ""
    """Of a translator: their reference translations."""
    beam: int = 5
    """Of a translator: hypotheses kept a step; 1: argmax."""
    length_penalty: float = 1.0
    """Of a translator: exponent of the length that a log-probability is divided by."""
    resamples: int = 1000
    """Of a translator: resamples of the text for confidence intervals; 0: none."""
    json: bool = False
    """Print one JSON object."""
    checkpoint: Which = "best"
    """Which weights; average: the mean of the last validations', of a translator."""
    device: str = "cpu"
    """cpu, cuda, mps."""


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    run = open_run(arguments.run)
    if run.task in TASKS:
        return _translator(run, arguments)
    if run.task == TREES:
        return _trees(run, arguments)
    if arguments.source or arguments.target or arguments.checkpoint == "average":
        raise ConfigurationError(f"{arguments.run}: a {run.task} has no use for --source, --target, or an average")
    task = LanguageTask(run, arguments.device).load(arguments.checkpoint)
    with tempfile.TemporaryDirectory() as scratch:
        what, tokens = _tokens(task, arguments, Path(scratch) / "tokens.bin")
        if len(tokens) < 2:
            raise DataError(f"{what}: too short to score, it takes two tokens")
        score = task.score(tokens)
    _require_number(score.nats, arguments.run, what)
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


def _translator(run: Run, arguments: Arguments) -> int:
    if arguments.data or arguments.glob:
        raise ConfigurationError(f"{arguments.run}: a {run.task} run is scored on --source and --target, not on --data")
    if bool(arguments.source) != bool(arguments.target):
        raise ConfigurationError("--source and --target belong together: give both or none")
    require(arguments.resamples >= 0, "resamples", "0 (none) or above", arguments.resamples)
    task = TranslationTask(run, arguments.device).load(arguments.checkpoint)
    how = BeamSearch(beam=arguments.beam, length_penalty=arguments.length_penalty)
    lines = read_line_pairs(arguments.source, arguments.target) if arguments.source else None
    try:
        score = evaluate(task, how, lines, arguments.resamples)
    except DecodingError as error:
        raise at_line(error, arguments.source or f"{arguments.run}: validation pairs") from error
    _require_number(score.perplexity, arguments.run, arguments.source or "validation pairs")
    report = {
        "run": arguments.run,
        "checkpoint": arguments.checkpoint,
        "text": f"{arguments.source}, {arguments.target}" if arguments.source else "validation pairs",
        "beam": arguments.beam,
        "lines": score.lines,
        "bleu": score.bleu.score,
        "bleu_interval": score.bleu.interval,
        "bleu_signature": score.bleu.signature,
        "chrf": score.chrf.score,
        "chrf_signature": score.chrf.signature,
        "perplexity": score.perplexity,
        "seconds": score.seconds,
    }
    if arguments.json:
        print(json.dumps(report, ensure_ascii=False))
        return 0
    print(f"{report['text']}: {score.lines:,} lines, beam {arguments.beam}, {score.lines / score.seconds:.0f} lines/s")
    print(f"BLEU        {score.bleu}\n            {score.bleu.signature}")
    print(f"chrF2       {score.chrf}\n            {score.chrf.signature}")
    print(f"perplexity  {score.perplexity:.3f} a token of the {task.config.pairs.level} vocabulary")
    return 0


def _trees(run: Run, arguments: Arguments) -> int:
    if arguments.source or arguments.target or arguments.glob or arguments.checkpoint == "average":
        raise ConfigurationError(
            f"{arguments.run}: a run on trees has no use for --source, --target, --glob, an average"
        )
    task = SentimentTask(run, arguments.device).load(arguments.checkpoint)
    what, trees = "dev", task.dev
    if arguments.data:
        files = [_treebank(Path(given)) for given in arguments.data]
        what, trees = ", ".join(map(str, files)), [tree for file in files for tree in read_labelled_trees(file)]
    score = task.score(trees)
    _require_number(score.loss, arguments.run, what)
    if arguments.json:
        print(json.dumps({"run": arguments.run, "checkpoint": arguments.checkpoint, "text": what, **asdict(score)}))
    else:
        print("\n".join(tree_lines(score, what)))
    return 0


def _require_number(loss: float, run: str, what: str) -> None:
    """DivergenceError where a loss is NaN, of which the other scores mean nothing."""
    if isnan(loss):
        raise DivergenceError(f"{run}: the loss on {what} is NaN: the model's values overflow on this text")


def _treebank(path: Path) -> Path:
    """The file to score on: `path`, or in a folder test.txt or else dev.txt."""
    if not path.is_dir():
        return path
    return path / "test.txt" if (path / "test.txt").exists() else path / "dev.txt"


def tree_lines(score: TreeScore, what: str) -> list[str]:
    """A score as it is told at the terminal."""
    lines = [f"{what}: {score.trees:,} trees, {score.all_nodes.nodes:,} nodes; loss at the root {score.loss:.4f}"]
    for name, part in (("roots", score.root), ("all nodes", score.all_nodes)):
        line = f"{name:10} {part.fine:6.1%} of five labels"
        if part.polar:
            line += f", {part.binary:6.1%} of negative and positive ({part.polar:,} that are not neutral)"
        lines.append(line)
    return lines


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
    files = find_sources(arguments.data, arguments.glob, unpack=task.config.text.level != "byte")
    if task.config.text.level in ("char", "word"):
        unknown = sorted({part for block in read_text(files) for part in task.vocabulary.unknown(block)})
        if note := task.unknown_note(unknown):
            print(f"unrolled: note: {note}", file=sys.stderr)
    return ", ".join(arguments.data), encode_files(files, task.vocabulary, scratch).tokens
