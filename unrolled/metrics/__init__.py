"""Scores of models, computed without the models themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LanguageScore:
    """How well a language model predicts a text: `total_nats` is `-Σ ln P(y_t | y_<t)` over `tokens` predictions.

    `characters` is the number of characters in the text, which makes levels comparable. `unknown` is the number of
    predictions of `<unk>`. This token is easy to predict, but stands for text that is not. So if `unknown` is not 0,
    there is no score in bits per character.
    """

    total_nats: float
    tokens: int
    characters: int
    unknown: int = 0

    @property
    def nats(self) -> float:
        """The mean cross-entropy per token, in nats."""
        return self.total_nats / self.tokens

    @property
    def perplexity(self) -> float:
        """The perplexity per token, `exp(nats)`: `log2 PPL = -1/L Σ log2 P(w_n | w_<n)`."""
        return perplexity(self.nats)

    @property
    def bits_per_character(self) -> float | None:
        """The cross-entropy in bits per character of the text, or None if there are predictions of `<unk>`."""
        if self.unknown:
            return None
        return self.total_nats / math.log(2) / self.characters


def perplexity(nats: float) -> float:
    """Return `exp(nats)`, or infinity if it overflows."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def bits(nats: float) -> float:
    """Convert nats to bits."""
    return nats / math.log(2)
