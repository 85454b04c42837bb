"""Transcripts from the scores of steps: the text, and when each character was said or where it stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrolled.data.lines import open_lines
from unrolled.data.transcripts import plain_text
from unrolled.decoding.ctc import best_path
from unrolled.decoding.ctc_beam import CTCBeam
from unrolled.decoding.ctc_state import CTCState
from unrolled.decoding.label_scorer import LabelScorer, ModelScorer, label_tokens
from unrolled.decoding.lexicon import Lexicon
from unrolled.errors import ConfigurationError, DataError
from unrolled.tasks import open_task
from unrolled.tasks.transcribing_settings import DecodingConfig


@dataclass(frozen=True)
class Character:
    """A character of a transcript: its first and last step, and the mean probability of its label over these steps."""

    text: str
    first: int
    last: int
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """A text and its characters. log_prob: of the best path, or of the text if a beam found it, in nats.

    seconds_per_step: how long a step of sound is; None for pictures and features.
    """

    text: str
    characters: tuple[Character, ...]
    log_prob: float
    seconds_per_step: float | None = None

    @property
    def confidence(self) -> float:
        """The mean confidence of the characters; 1 for an empty text."""
        return sum(each.confidence for each in self.characters) / len(self.characters) if self.characters else 1.0

    def json(self) -> dict[str, Any]:
        """Return the transcript in JSON's types, with the start and end of each character in seconds or steps."""
        unit = self.seconds_per_step or 1
        ends = [
            {
                "text": each.text,
                "start": round(each.first * unit, 3),
                "end": round((each.last + 1) * unit, 3),
                "confidence": round(each.confidence, 4),
            }
            for each in self.characters
        ]
        name = "seconds" if self.seconds_per_step else "steps"
        return {"text": self.text, "confidence": round(self.confidence, 4), "unit": name, "characters": ends}


class Decoder:
    """Turns scores of steps into transcripts, by the best path or by a prefix beam, as `config` says.

    labels: the text of each label. trust: see `open_task`, for the language model's run.
    """

    def __init__(
        self,
        labels: Sequence[str],
        config: DecodingConfig,
        seconds_per_step: float | None = None,
        device: torch.device | str = "cpu",
        trust: bool = False,
    ) -> None:
        self.labels, self.config, self.seconds_per_step = list(labels), config, seconds_per_step
        #: What the user should know about the lexicon.
        self.notes: list[str] = []
        self.beam: CTCBeam | None = None
        if config.width:
            model = self._language_model(config.lm, str(device), trust) if config.lm else None
            lexicon = self._lexicon(config.lexicon) if config.lexicon else None
            bonus = config.length_bonus if model else 0.0
            self.beam = CTCBeam(
                config.width, language_model=model, lm_weight=config.lm_weight, length_bonus=bonus, lexicon=lexicon
            )

    def _language_model(self, path: str, device: str, trust: bool) -> LabelScorer:
        """Return a language model: a file of KenLM, or a run of `train lm` on characters."""
        if not Path(path).is_file():
            return _model_of_characters(self.labels, path, device, trust)
        from unrolled.decoding.word_scorer import KenLMScorer

        if " " not in self._number:
            said = f"{path}: KenLM scores words, and the transcripts in training had no spaces"
            raise ConfigurationError(said, setting="lm")
        return KenLMScorer(path, self.labels, self._number[" "])

    def _lexicon(self, path: str) -> Lexicon:
        words = {word for line in open_lines(path) for word in plain_text(line).split()}
        known = sorted(word for word in words if not set(word) - self._number.keys())
        if not known:
            raise DataError(f"{path}: there is no word in it that the run can write", setting="lexicon")
        if len(known) < len(words):
            left = len(words) - len(known)
            self.notes.append(f"{path}: {left:,} of {len(words):,} words have characters that the run cannot write")
        return Lexicon(([self._number[letter] for letter in word] for word in known), self._number.get(" "))

    @cached_property
    def _number(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self.labels) if number}

    def __str__(self) -> str:
        config = self.config
        if self.beam is None:
            return "best path"
        with_lm = f" with {config.lm}, weight {config.lm_weight:g}, bonus {config.length_bonus:g}" if config.lm else ""
        return f"beam of {config.width}{with_lm}{f', words of {config.lexicon}' if config.lexicon else ''}"

    def __call__(self, scores: tuple[Tensor, Tensor]) -> list[Transcript]:
        """Return the transcript of each sequence, for log-probabilities `[S, B, K]` and lengths `[B]`."""
        log_probs, lengths = scores
        if self.beam is None:
            return [
                self._transcript(found.labels, found.frames, found.confidence, found.log_prob)
                for found in best_path(log_probs, lengths)
            ]
        each = [log_probs[:end, row] for row, end in enumerate(lengths.tolist())]
        return [self.result(self.beam.feed(self.beam.start(), one), one) for one in each]

    def result(self, state: CTCState, log_probs: Tensor, final: bool = True) -> Transcript:
        """Return the best transcript of a beam's state after the steps `log_probs [S, K]`; "" if there is none.

        final: whether the sequence is complete.
        """
        assert self.beam is not None
        found = self.beam.result(state, 1, final=final)
        if not found:  # the lexicon allows none
            return Transcript("", (), float("-inf"), self.seconds_per_step)
        best = found[0]
        confidence = [
            float(log_probs[first : last + 1, label].exp().mean())
            for label, (first, last) in zip(best.labels, best.frames, strict=True)
        ]
        return self._transcript(best.labels, best.frames, confidence, best.log_prob)

    def _transcript(
        self, labels: Iterable[int], frames: Iterable[tuple[int, int]], confidence: Iterable[float], log_prob: float
    ) -> Transcript:
        parts = zip(labels, frames, confidence, strict=True)
        characters = tuple(Character(self.labels[label], first, last, sure) for label, (first, last), sure in parts)
        return Transcript("".join(each.text for each in characters), characters, log_prob, self.seconds_per_step)


def _model_of_characters(labels: Sequence[str], path: str, device: str, trust: bool) -> ModelScorer:
    """Return a language model of characters, whose text has a transcript per line, as a scorer of labels."""
    from unrolled.tasks.language import LanguageTask

    task = open_task(path, device, "best", LanguageTask, trust=trust)
    ends = [int(token) for token in task.vocabulary.encode("\n")]
    if len(ends) != 1:
        said = f"{path}: its vocabulary has no token for a line end; train it on one transcript per line"
        raise ConfigurationError(said, setting="lm")
    try:
        tokens = label_tokens(labels, task.vocabulary)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}", setting="lm") from error
    context = torch.tensor(ends, device=task.device)
    return ModelScorer(task.model, tokens, context, end=ends[0])
