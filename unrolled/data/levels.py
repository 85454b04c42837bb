"""The levels of text that a vocabulary can work at, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unrolled.lazy import Place, Table

if TYPE_CHECKING:
    from unrolled.data.vocabulary import Vocabulary


def _at(place: str) -> Any:
    return Place(f"unrolled.data.{place}")


VOCABULARIES: Table[type[Vocabulary]] = Table(
    {
        "char": _at("vocabulary:CharacterVocabulary"),
        "word": _at("words:WordVocabulary"),
        "byte": _at("vocabulary:ByteVocabulary"),
        "bpe": _at("vocabulary:BPEVocabulary"),
    }
)
LEVELS = tuple(VOCABULARIES)
