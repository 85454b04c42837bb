"""KenLM's n-gram models of words as scorers of a CTC beam. It needs the package `kenlm`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unrolled.decoding.label_scorer import LabelScorer
from unrolled.errors import ConfigurationError, DataError

_NATS = math.log(10)


class KenLMScorer(LabelScorer):
    """A word model of KenLM, which scores each word when the separator after it follows (Heafield 2011).

    path: an ARPA file or a binary file of KenLM.
    labels: the text of each label; that of the blank is ignored.
    separator: the label between two words.

    All other labels have the score 0. The end of an output scores its last word and the end of the sentence. Words that
    the model does not know have its probability of `<unk>`.
    Raises ConfigurationError if `kenlm` is not installed or the separator is no label, and DataError if the file cannot
    be read.
    """

    scores_end = True

    def __init__(self, path: str | Path, labels: Sequence[str], separator: int) -> None:
        try:
            import kenlm
        except ImportError:
            raise ConfigurationError("KenLMScorer needs kenlm: pip install 'unrolled[lm]'") from None
        if not 0 <= separator < len(labels):
            raise ConfigurationError(f"the separator, {separator}, is none of the {len(labels)} labels")
        try:
            self.model = kenlm.Model(str(path))
        except (OSError, RuntimeError) as error:
            raise DataError(f"{path} is not a language model that KenLM can read: {error}") from None
        self.texts, self.labels, self.separator = list(labels), len(labels), separator
        self.new_state = kenlm.State

    def start(self) -> tuple[Any, np.ndarray]:
        state = self.new_state()
        self.model.BeginSentenceWrite(state)
        return self._scored([(state, "")])

    def step(self, labels: np.ndarray, states: Any) -> tuple[Any, np.ndarray]:
        return self._scored([self._next(label, *one) for label, one in zip(labels.tolist(), states, strict=True)])

    def pick(self, states: Any, rows: np.ndarray) -> Any:
        return [states[row] for row in rows.tolist()]

    def join(self, states: Any, more: Any) -> Any:
        return [*states, *more]

    def end(self, states: Any) -> np.ndarray:
        return np.array([self._end(*one) for one in states])

    def _next(self, label: int, state: Any, word: str) -> tuple[Any, str]:
        """Return KenLM's state after the words before, and the letters of the word that has begun."""
        if label != self.separator:
            return state, word + self.texts[label]
        return (self._read(state, word)[1], "") if word else (state, "")

    def _read(self, state: Any, word: str) -> tuple[float, Any]:
        """Return the log-probability of a word in nats, and the state after it."""
        after = self.new_state()
        return _NATS * self.model.BaseScore(state, word, after), after

    def _end(self, state: Any, word: str) -> float:
        score, state = self._read(state, word) if word else (0.0, state)
        return score + self._read(state, "</s>")[0]

    def _scored(self, states: list[tuple[Any, str]]) -> tuple[Any, np.ndarray]:
        scores = np.zeros((len(states), self.labels))
        scores[:, self.separator] = [self._read(state, word)[0] if word else 0.0 for state, word in states]
        return states, scores
