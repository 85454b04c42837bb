"""Scores, apart from the models that earn them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LanguageScore:
    """How well a language model predicted a text: `total_nats` is `-Σ ln P(y_t | y_<t)` over `tokens` predictions.

    `characters` counts the text's characters, by which levels can be compared. `unknown` counts the predictions of
    `<unk>`: it is cheap to predict and stands for text that is not, so with any of them there are no bits a character.
    """

    total_nats: float
    tokens: int
    characters: int
    unknown: int = 0

    @property
    def nats(self) -> float:
        """Mean cross-entropy a token, in nats."""
        return self.total_nats / self.tokens

    @property
    def perplexity(self) -> float:
        """`exp(nats)`, a token: `log2 PPL = -1/L Σ log2 P(w_n | w_<n)`."""
        return perplexity(self.nats)

    @property
    def bits_per_character(self) -> float | None:
        """The same total in bits, a character of the text; None if some of the text was not scored."""
        if self.unknown:
            return None
        return self.total_nats / math.log(2) / self.characters


def perplexity(nats: float) -> float:
    """`exp(nats)`, infinite where that overflows."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def bits(nats: float) -> float:
    """Nats in bits."""
    return nats / math.log(2)
