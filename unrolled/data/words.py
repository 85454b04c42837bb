"""The word vocabulary: words and punctuation marks, from which the text can be restored exactly.

A space between two tokens is implied. If there is no space, the punctuation mark has a joiner on that side: `f(x), y`
is the tokens `f`, `￭(￭`, `x`, `￭)`, `￭,`, `y`. All other white space has its own tokens.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from unrolled.data.vocabulary import Blocks, Vocabulary, require_text
from unrolled.errors import DataError

UNKNOWN = "<unk>"
JOINER = "￭"
_PIECE = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]|\s")
_WORD = re.compile(r"\w")


def split_words(text: str) -> list[str]:
    """Split `text` into tokens from which `join_words` restores it."""
    pieces = _PIECE.findall(text)
    tokens: list[str] = []
    previous = "\n"  # the piece before this one; the first piece needs no joiner
    for k, piece in enumerate(pieces):
        if piece == " " and not previous.isspace() and k + 1 < len(pieces) and not pieces[k + 1].isspace():
            previous = piece
            continue
        token = piece
        touching = not previous.isspace() and not piece.isspace()
        if touching:
            if _WORD.match(piece) and not _WORD.match(previous):
                tokens[-1] += JOINER
            else:
                token = JOINER + piece
        tokens.append(token)
        # A space that is a token acts like a line end: no space is implied next to it.
        previous = "\n" if piece == " " else piece
    return tokens


def bare_words(text: str) -> list[str]:
    """Return the words and punctuation marks of `text`, without its white space."""
    return [piece for piece in _PIECE.findall(text) if not piece.isspace()]


def join_words(tokens: Iterable[str]) -> str:
    """Return the text that `split_words` splits into `tokens`."""
    text: list[str] = []
    open_left = False  # whether a space is due before the next word
    for token in tokens:
        if token.isspace():
            text.append(token)
            open_left = False
            continue
        joins_left, joins_right = token.startswith(JOINER), len(token) > 1 and token.endswith(JOINER)
        if open_left and not joins_left:
            text.append(" ")
        text.append(token.removeprefix(JOINER).removesuffix(JOINER) if joins_left or joins_right else token)
        open_left = not joins_right
    return "".join(text)


class WordVocabulary(Vocabulary):
    """A vocabulary of words in decreasing frequency. Token 0 is `<unk>`, which stands for all other words."""

    level = "word"

    def __init__(self, words: list[str]) -> None:
        require_text(words)
        self.words = words
        self._token_of = {word: k for k, word in enumerate(words)}

    @classmethod
    def build(cls, blocks: Blocks, min_count: int = 2, max_size: int | None = None) -> WordVocabulary:
        """Build a vocabulary from the words of a text; see `from_counts`."""
        return cls.from_counts(Counter(word for block in blocks() for word in split_words(block)), min_count, max_size)

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], min_count: int = 2, max_size: int | None = None) -> WordVocabulary:
        """Build a vocabulary from the words that occur at least `min_count` times.

        Of these it keeps the `max_size - 1` most frequent.
        """
        if not counts:
            raise DataError("cannot build a vocabulary from an empty text")
        kept = [word for word, count in counts.items() if count >= min_count]
        kept.sort(key=lambda word: (-counts[word], word))
        return cls([UNKNOWN, *kept[: max_size - 1 if max_size else None]])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> np.ndarray:
        find = self._token_of.get
        return np.array([find(word, 0) for word in split_words(text)], dtype=np.int64)

    def decode(self, tokens: Iterable[int]) -> str:
        return join_words(self.words[t] for t in tokens)

    def unknown(self, text: str) -> list[str]:
        return list(dict.fromkeys(word for word in split_words(text) if word not in self._token_of))

    def spelling(self, token: int) -> str:
        """Return the word with its joiners."""
        return self.words[token]

    def state(self) -> dict[str, Any]:
        return {"words": self.words}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> WordVocabulary:
        words = state["words"]
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError("its words must be a list of strings")
        if words[:1] != [UNKNOWN] or len(set(words)) < len(words):
            raise ValueError(f"its words must begin with {UNKNOWN}, each once")
        return cls(words)
