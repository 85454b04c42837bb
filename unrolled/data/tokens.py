"""A text as a memory-mapped file of token numbers: any size of text in a small, fixed amount of memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from unrolled.data.sources import read_bytes, read_text
from unrolled.data.vocabulary import Blocks, BPEVocabulary, ByteVocabulary, CharacterVocabulary, Vocabulary
from unrolled.data.words import WordVocabulary
from unrolled.errors import ConfigurationError, DataError, RunError

VOCABULARIES: dict[str, type[Vocabulary]] = {
    kind.level: kind for kind in (CharacterVocabulary, WordVocabulary, ByteVocabulary, BPEVocabulary)
}
LEVELS = tuple(VOCABULARIES)


def build_vocabulary(level: str, files: Sequence[Path], *, size: int | None = None, min_count: int = 2) -> Vocabulary:
    """Learn the vocabulary of `level` from the files: `size` bounds words and BPE, `min_count` drops rare words."""
    return learn_vocabulary(level, partial(read_text, files), size=size, min_count=min_count)


def learn_vocabulary(level: str, blocks: Blocks, *, size: int | None = None, min_count: int = 2) -> Vocabulary:
    """As `build_vocabulary`, from text that is not a file."""
    if level == "char":
        return CharacterVocabulary.build(blocks)
    if level == "word":
        return WordVocabulary.build(blocks, min_count, size)
    if level == "byte":
        return ByteVocabulary()
    if level == "bpe":
        return BPEVocabulary.build(blocks, size or 2000)
    raise ConfigurationError(f"unknown level {level!r}: choose from {', '.join(LEVELS)}")


def load_vocabulary(path: Path) -> Vocabulary:
    """Read what `Vocabulary.save` wrote; RunError where the file is missing or something else."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        return VOCABULARIES[state["level"]].from_state(state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        raise RunError(f"{path}: not a vocabulary of this program ({type(error).__name__}: {error})") from error


@dataclass(frozen=True)
class TokenFile:
    """An encoded text: `path` holds `count` numbers of `dtype`; its description lies beside it as JSON."""

    path: Path
    dtype: str
    count: int

    @property
    def tokens(self) -> np.ndarray:
        """The numbers, `[count]`, mapped from disk."""
        if not self.count:  # an empty file cannot be mapped
            return np.empty(0, self.dtype)
        return np.memmap(self.path, dtype=self.dtype, mode="r", shape=(self.count,))

    @classmethod
    def open(cls, path: Path) -> TokenFile:
        """RunError where the file or its description is missing or damaged."""
        description = path.with_suffix(".json")
        try:
            stored = json.loads(description.read_text(encoding="utf-8"))
            file = cls(path, stored["dtype"], stored["count"])
            size = path.stat().st_size
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: no encoded text here ({type(error).__name__}: {error})") from error
        if size != file.count * np.dtype(file.dtype).itemsize:
            raise RunError(f"{path}: {size:,} bytes, but {description.name} says {file.count:,} tokens of {file.dtype}")
        return file


def encode_files(
    files: Sequence[Path], vocabulary: Vocabulary, path: Path, progress: Callable[[int], None] = lambda done: None
) -> TokenFile:
    """Encode the files, one after the other, into `path`; `progress` is told the tokens written so far."""
    limit = len(vocabulary)
    dtype = "uint8" if limit <= 1 << 8 else "uint16" if limit <= 1 << 16 else "uint32"
    count = 0
    with path.open("wb") as out:
        for tokens in _encoded(files, vocabulary):
            out.write(tokens.astype(dtype).tobytes())
            count += len(tokens)
            progress(count)
    file = TokenFile(path, dtype, count)
    description = {key: value for key, value in asdict(file).items() if key != "path"}
    path.with_suffix(".json").write_text(json.dumps(description), encoding="utf-8")
    return file


def _encoded(files: Sequence[Path], vocabulary: Vocabulary):
    if isinstance(vocabulary, ByteVocabulary):
        return (vocabulary.encode_bytes(block) for block in read_bytes(files))
    return (vocabulary.encode(block) for block in read_text(files))
