"""Data: text sources, vocabularies, memory-mapped token files, token streams and sentence pairs.

The names below are imported when they are first used, so that reading `LEVELS` does not import NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unrolled.data.levels import LEVELS
from unrolled.lazy import door

if TYPE_CHECKING:
    from unrolled.data.pieces import read_text
    from unrolled.data.sources import find_sources, standard_library
    from unrolled.data.tokens import TokenFile, build_vocabulary, encode_files, load_vocabulary
    from unrolled.data.vocabulary import (
        BPEVocabulary,
        ByteVocabulary,
        CharacterVocabulary,
        StreamingDecoder,
        Vocabulary,
    )
    from unrolled.data.words import WordVocabulary
else:
    __getattr__ = door(
        __name__,
        {
            "pieces": ("read_text",),
            "sources": ("find_sources", "standard_library"),
            "tokens": ("TokenFile", "build_vocabulary", "encode_files", "load_vocabulary"),
            "vocabulary": (
                *("BPEVocabulary", "ByteVocabulary", "CharacterVocabulary"),
                *("StreamingDecoder", "Vocabulary"),
            ),
            "words": ("WordVocabulary",),
        },
    )

__all__ = [
    "LEVELS",
    "BPEVocabulary",
    "ByteVocabulary",
    "CharacterVocabulary",
    "StreamingDecoder",
    "TokenFile",
    "Vocabulary",
    "WordVocabulary",
    "build_vocabulary",
    "encode_files",
    "find_sources",
    "load_vocabulary",
    "read_text",
    "standard_library",
]
