"""Transcripts from the scores of steps: the text, and when each character was said or where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unrolled.decoding.ctc import BestPath, best_path
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
        unit_name = "seconds" if self.seconds_per_step else "steps"
        return {"text": self.text, "confidence": round(self.confidence, 4), "unit": unit_name, "characters": ends}


class Decoder:
    """Turns `(log-probabilities [S, B, K], lengths [B])` into transcripts, as its configuration says."""

    def __init__(
        self, labels: Sequence[str], config: DecodingConfig, seconds_per_step: float | None, device: torch.device
    ) -> None:
        self.labels, self.config, self.seconds_per_step = labels, config, seconds_per_step

    def __str__(self) -> str:
        return "best path"

    def __call__(self, scores: tuple[Tensor, Tensor]) -> list[Transcript]:
        log_probs, lengths = scores
        return [self._transcript(found) for found in best_path(log_probs, lengths)]

    def _transcript(self, found: BestPath) -> Transcript:
        parts = zip(found.labels, found.frames, found.confidence, strict=True)
        characters = tuple(Character(self.labels[label], first, last, sure) for label, (first, last), sure in parts)
        return Transcript("".join(each.text for each in characters), characters, found.log_prob, self.seconds_per_step)
