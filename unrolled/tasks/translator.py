"""Translates and scores translations with one run or with an ensemble of runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from unrolled.data import Vocabulary
from unrolled.data.pairs import Pairs, decode_line, encode_line, encode_pairs, pad
from unrolled.decoding import (
    BeamSearch,
    Ensemble,
    Hypothesis,
    SearchStep,
    forced_log_probs,
    search_trees,
    tree_json,
)
from unrolled.decoding.tree import Node
from unrolled.errors import ConfigurationError, DataError, DecodingError, DivergenceError
from unrolled.metrics import perplexity
from unrolled.metrics.translation import CorpusScore, bleu, chrf
from unrolled.models import EncoderDecoder
from unrolled.training import Run

#: The maximum numbers of hypotheses and of sentences in a batch; fewer hypotheses if a source has more words.
_ROWS, _SENTENCES, _WORDS = 1024, 64, 128


@dataclass(frozen=True)
class Translation:
    """One output for a line: its text, the sum of its log-probabilities, and the score that ranks it."""

    text: str
    log_prob: float
    score: float


class Member(Protocol):
    """What a translator needs of a run's task: its model and the vocabularies of the two sides."""

    run: Run
    config: Any
    model: EncoderDecoder
    device: torch.device
    source: Vocabulary
    target: Vocabulary
    source_end: int
    end: int

    def pairs(self, part: str) -> Pairs: ...

    def total_nats(self, pairs: Pairs) -> float: ...


class Translator:
    """An ensemble of runs with the same vocabularies, used as one model.

    mean: the `mean` of `Ensemble`.

    A source longer than any in training is translated in pieces of that length.
    Raises ConfigurationError if the vocabularies differ.
    """

    def __init__(self, tasks: Sequence[Member], mean: str = "probabilities") -> None:
        first = tasks[0]
        for other in tasks[1:]:
            for side in ("source", "target"):
                ours, theirs = getattr(first, side), getattr(other, side)
                if (ours.level, ours.state()) != (theirs.level, theirs.state()):
                    raise ConfigurationError(
                        f"{other.run.path}: its {side} vocabulary is not that of {first.run.path}; the runs of an "
                        "ensemble must be trained on the same pairs with the same `level` and `vocab_size`",
                        setting=("level", "vocab_size"),
                    )
        self.source, self.target = first.source, first.target
        self.source_end, self.end, self.device = first.source_end, first.end, first.device
        self.model = Ensemble([task.model for task in tasks], mean)
        self.longest = min(task.config.pairs.max_length for task in tasks)

    def translate(self, lines: Sequence[str], how: BeamSearch) -> list[list[Translation]]:
        """Return the n best translations of every line, all different, the best first; an empty line's is empty.

        Raises DecodingError, whose `sentence` is the index of the line, if the model's output is NaN.
        """
        pieces = [self._pieces(line) for line in lines]
        flat = [piece for some in pieces for piece in some]
        try:
            found = iter(self._search(flat, how))
        except DecodingError as error:
            line_of = [k for k, some in enumerate(pieces) for _ in some]
            raise error.at(sentence=line_of[error.sentence or 0]) from None
        results = []
        for some in pieces:
            parts = [next(found) for _ in some]
            count = min(how.n_best, max(map(len, parts), default=0))
            joined = [[part[min(k, len(part) - 1)] for part in parts if part] for k in range(count)]
            different: dict[str, Translation] = {}  # different tokens may spell the same text
            for row in joined:
                translation = self._join(row, how)
                different.setdefault(translation.text, translation)
            results.append(list(different.values()) or [Translation("", 0.0, 0.0)])
        return results

    def tree(self, line: str, how: BeamSearch) -> SearchTree:
        """Record the search for one line, or for the first piece of a long line."""
        record: list[SearchStep] = []
        sentences = self._pieces(line)[:1] or [encode_line(self.source, "")]
        found = self._batch(sentences, how, record)
        return SearchTree(line, search_trees(record, found, self.end)[0], self._token_text)

    def score(self, lines: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[list[tuple[float, int]]]:
        """Return `(log P, number of tokens with the end)` of each line's candidates.

        Raises DecodingError, whose `sentence` is the index of the line and whose `hypothesis` is that of the candidate,
        if the model's output is NaN.
        """
        sources = [encode_line(self.source, line) for line in lines]
        texts = [[encode_line(self.target, text) for text in some] for some in candidates]
        work = sorted((k for k in range(len(lines)) if texts[k]), key=lambda k: (len(sources[k]), len(texts[k])))
        results: list[list[tuple[float, int]]] = [[] for _ in lines]
        while work:
            # Attention needs memory for every word of the source in every row.
            rows = max(1, _ROWS * _WORDS // max(_WORDS, len(sources[work[-1]])))
            batch = [work.pop()]
            widest = len(texts[batch[0]])
            while work and (len(batch) + 1) * max(widest, len(texts[work[-1]])) <= rows:
                batch.append(work.pop())
                widest = max(widest, len(texts[batch[-1]]))
            # A long list of candidates is scored in parts.
            for first in range(0, widest, rows):
                part = [texts[k][first : first + rows] for k in batch]
                try:
                    log_probs = self._forced([sources[k] for k in batch], part)
                except DecodingError as error:
                    candidate = first + (error.hypothesis or 0)
                    raise error.at(sentence=batch[error.sentence or 0], hypothesis=candidate) from None
                for k, some, row in zip(batch, part, log_probs, strict=True):
                    results[k] += [(row[j], len(text) + 1) for j, text in enumerate(some)]
        return results

    def beginning(self, line: str) -> str:
        """Return the beginning of the line, no longer than the longest line in training."""
        return decode_line(self.source, self._pieces(line)[0].tolist()) if self.is_long(line) else line

    # -- batches -------------------------------------------------------------------------------------------------

    def _pieces(self, line: str) -> list[np.ndarray]:
        tokens = encode_line(self.source, line)
        return [tokens[k : k + self.longest] for k in range(0, len(tokens), self.longest)]

    def is_long(self, line: str) -> bool:
        """Whether the line is translated in pieces."""
        return len(self._pieces(line)) > 1

    def _search(self, sentences: list[np.ndarray], how: BeamSearch) -> list[list[Hypothesis]]:
        """Search in batches of similar lengths, the longest first."""
        order = sorted(range(len(sentences)), key=lambda k: -len(sentences[k]))
        size = max(1, min(_SENTENCES, _ROWS // how.beam))
        results: list[list[Hypothesis]] = [[] for _ in sentences]
        for first in range(0, len(order), size):
            chosen = order[first : first + size]
            try:
                batch = self._batch([sentences[k] for k in chosen], how)
            except DecodingError as error:
                raise error.at(sentence=chosen[error.sentence or 0]) from None
            for k, found in zip(chosen, batch, strict=True):
                results[k] = found
        return results

    def _batch(
        self, sentences: list[np.ndarray], how: BeamSearch, record: list[SearchStep] | None = None
    ) -> list[list[Hypothesis]]:
        """Search one batch; an output has at most ten tokens more than twice its source."""
        limits = torch.tensor([2 * len(sentence) + 10 for sentence in sentences], device=self.device)
        state, first = self._start(sentences)
        return how.search(self.model, state, first, self.end, limits, record=record)

    @torch.no_grad()
    def _start(self, sentences: list[np.ndarray]) -> tuple[list[Any], Tensor]:
        source = pad(sentences, self.source_end).to(self.device)
        return self.model.start(source), torch.full((len(sentences),), self.end, device=self.device)

    def _forced(self, sources: list[np.ndarray], texts: list[list[np.ndarray]]) -> list[list[float]]:
        each = max(len(some) for some in texts)
        empty = np.empty(0, dtype=np.int64)
        flat = [text for some in texts for text in [*some, *[empty] * (each - len(some))]]
        outputs = pad(flat, self.end).view(-1, len(texts), each).to(self.device)
        return forced_log_probs(self.model, *self._start(sources), outputs).tolist()

    # -- text ----------------------------------------------------------------------------------------------------

    def _join(self, parts: list[Hypothesis], how: BeamSearch) -> Translation:
        text = " ".join(decode_line(self.target, part.tokens) for part in parts)
        log_prob = sum(part.log_prob for part in parts)
        length = sum(len(part.tokens) + 1 for part in parts)
        return Translation(text.strip(), log_prob, log_prob / length**how.length_penalty)

    def _token_text(self, token: int) -> str:
        return self.target.decode([token])


@dataclass(frozen=True)
class SearchTree:
    """A recorded search for one line."""

    source: str
    root: Node
    text: Callable[[int], str]

    def json(self) -> str:
        return tree_json([self.root], self.text)


@dataclass(frozen=True)
class TranslationScore:
    """The scores of a run's translations of `lines` lines against references, and the references' perplexity."""

    lines: int
    bleu: CorpusScore
    chrf: CorpusScore
    perplexity: float
    seconds: float
    """The time for translating."""


def evaluate(
    task: Member, how: BeamSearch, lines: tuple[Sequence[str], Sequence[str]] | None, resamples: int
) -> TranslationScore:
    """Score a run on sources and references, or, if `lines` is None, on its own validation pairs."""
    if lines is None:
        pairs = task.pairs("validation")
        if not len(pairs):
            said = f"{task.run.path}: no pairs were held out to validate on; give `source`, `target`"
            raise ConfigurationError(said, setting=("source", "target"))
        lines = (
            [decode_line(task.source, pairs.source[k].tolist()) for k in range(len(pairs))],
            [decode_line(task.target, pairs.target[k].tolist()) for k in range(len(pairs))],
        )
    else:
        pairs = encode_pairs(lines, task.source, task.target, sys.maxsize)
    sources, references = lines
    if not len(pairs):
        raise DataError("there is nothing to score: no line has text on both sides")
    started = time.perf_counter()
    outputs = [found[0].text for found in Translator([task]).translate(sources, how)]
    seconds = time.perf_counter() - started
    nats = task.total_nats(pairs) / (len(pairs.target.tokens) + len(pairs))
    found = bleu(outputs, references, resamples), chrf(outputs, references, resamples)
    return TranslationScore(len(sources), *found, perplexity(nats), seconds)


def at_line(error: DecodingError, source: str, before: int = 0) -> DivergenceError:
    """Return the error for a line that cannot be decoded; `before` is the number of lines before its block."""
    where = "standard input" if source == "-" else source
    return DivergenceError(f"{where}: line {before + (error.sentence or 0) + 1:,}: {error.at(sentence=None)}")
