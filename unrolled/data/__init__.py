"""Text in, token numbers out: sources, vocabularies, memory-mapped token files, streams and sentence pairs."""

from unrolled.data.levels import LEVELS
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
