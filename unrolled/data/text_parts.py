"""A text as words for display, each with the number of tokens that it is read as."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from unrolled.data.vocabulary import StreamingDecoder, Vocabulary
from unrolled.data.words import WordVocabulary, split_words


@dataclass(frozen=True)
class Part:
    """A word or a punctuation mark, with the space before it, and how many tokens it is. Those of 0 are not read."""

    text: str
    tokens: int


def parts_of(vocabulary: Vocabulary, text: str, kept: Iterable[int] | None = None) -> list[Part]:
    """Return the parts of a text, whose tokens together are `vocabulary.encode(text)`.

    kept: the places of the tokens that are read, if these are not all.
    """
    if vocabulary.level != "word":
        return parts_of_tokens(vocabulary, vocabulary.encode(text).tolist(), kept)
    # Words that the vocabulary lacks are shown, too, by a vocabulary of this text alone.
    words = split_words(text)
    own = WordVocabulary.from_counts(Counter(words), min_count=1) if words else vocabulary
    return parts_of_tokens(own, own.encode(text).tolist(), kept)


def parts_of_tokens(vocabulary: Vocabulary, tokens: Sequence[int], kept: Iterable[int] | None = None) -> list[Part]:
    """Return the parts of the text that the vocabulary writes for `tokens`."""
    read = set(range(len(tokens)) if kept is None else kept)
    pieces = _pieces(vocabulary, tokens)
    parts: list[Part] = []
    for place, piece in enumerate(pieces):
        here = int(place in read)
        if parts and (not piece or (vocabulary.level != "word" and _continues(parts[-1].text, piece))):
            parts[-1] = Part(parts[-1].text + piece, parts[-1].tokens + here)
        else:
            parts.append(Part(piece, here))
    return parts


def _pieces(vocabulary: Vocabulary, tokens: Sequence[int]) -> Iterator[str]:
    """Iterate over the text that each token adds; it may be empty, as of a token inside a character."""
    decoder = StreamingDecoder(vocabulary)
    for place, token in enumerate(tokens, 1):
        piece = decoder.feed(token)
        yield piece + decoder.finish() if place == len(tokens) else piece


def _continues(before: str, piece: str) -> bool:
    """Return whether a piece belongs to the same word as the text before it."""
    if not before or before.isspace():
        return True
    return not piece[0].isspace() and before[-1].isalnum() == piece[0].isalnum()
