"""The levels of text that a vocabulary can have, by name."""

from __future__ import annotations

from unrolled.data.vocabulary import BPEVocabulary, ByteVocabulary, CharacterVocabulary, Vocabulary
from unrolled.data.words import WordVocabulary

VOCABULARIES: dict[str, type[Vocabulary]] = {
    kind.level: kind for kind in (CharacterVocabulary, WordVocabulary, ByteVocabulary, BPEVocabulary)
}
LEVELS = tuple(VOCABULARIES)
