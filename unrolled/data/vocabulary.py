"""Vocabularies, which map text to token numbers and back: one interface for characters, bytes, words and BPE."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from unrolled.data.lines import readable, split_lines
from unrolled.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: A function that yields a text in pieces of about a megabyte, cut at line ends. Each call starts at the beginning.
Blocks = Callable[[], Iterator[str]]

#: The character for bytes that are not UTF-8, or not yet a complete character.
REPLACEMENT = "\ufffd"


class Vocabulary(ABC):
    """A two-way map between text and token numbers `0 .. len(self)-1`."""

    level: ClassVar[str]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Return the token numbers, int64 `[N]`. Text outside the vocabulary is left out or replaced; see `unknown`."""

    @abstractmethod
    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of the tokens."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return all data that `from_state` needs, in JSON's types."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Any]) -> Vocabulary:
        """Build the vocabulary from a result of `state`.

        Raises ValueError, TypeError, KeyError or DataError if `state` is not a valid one.
        """

    def spelling(self, token: int) -> str:
        """Return how the vocabulary itself writes a token. No two tokens have the same spelling."""
        return self.decode([token])

    def keys(self) -> list[str]:
        """Return a unique key for each token. The same token has the same key in all vocabularies of this level."""
        return [self.spelling(k) for k in range(len(self))]

    def names(self) -> list[str]:
        """Return a unique name for each token: its text, or its spelling if another token has the same text."""
        texts = [self.decode([k]) for k in range(len(self))]
        spellings = [self.spelling(k) for k in range(len(self))]
        shared = Counter(texts)
        taken = {text for text, spelling in zip(texts, spellings, strict=True) if text == spelling}
        names = []
        for text, spelling in zip(texts, spellings, strict=True):
            alone = shared[text] == 1 or text == spelling
            first = not alone and text not in taken and REPLACEMENT not in text
            taken.add(text)
            names.append(text if alone or first else spelling)
        return names

    def unknown(self, text: str) -> list[str]:
        """Return the parts of `text` that `encode` leaves out or replaces, each once, in order."""
        return []

    def save(self, path: Path) -> None:
        """Write the vocabulary as JSON in UTF-8."""
        path.write_text(json.dumps({"level": self.level, **self.state()}, ensure_ascii=False), encoding="utf-8")


def unknown_note(level: str, unknown: Sequence[str]) -> str:
    """Return a note for the user about how unknown text is treated, or "" if there is no unknown text."""
    if not unknown:
        return ""
    fate = "left out" if level == "char" else "read as <unk>"
    more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
    return f"{fate} because not in the vocabulary: {' '.join(map(repr, unknown[:10]))}{more}"


def require_text(tokens: Sequence[str]) -> None:
    """Raise DataError if a token holds half of a surrogate pair, which no UTF-8 terminal or file accepts."""
    for number, token in enumerate(tokens):
        if readable(token) != token:
            raise DataError(f"token {number:,}, {token!r}, holds half of a surrogate pair, which is not text")


def code_points(text: str) -> np.ndarray:
    """Return the characters' code points `[N]`: as uint8 if all are ASCII, which is several times faster."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


class CharacterVocabulary(Vocabulary):
    """A vocabulary with one token for each Unicode character, in code point order."""

    level = "char"

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = sorted(set(characters))
        if not self.characters:
            raise DataError("cannot build a vocabulary from an empty text")
        require_text(self.characters)
        points = np.array([ord(c) for c in self.characters])
        # The last entry is for all code points above the highest known one.
        self._token_of = np.full(int(points.max()) + 2, -1, dtype=np.int32)
        self._token_of[points] = np.arange(len(points))

    @classmethod
    def build(cls, blocks: Blocks) -> CharacterVocabulary:
        seen: set[str] = set()
        for block in blocks():
            seen.update(block)
        return cls(seen)

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        tokens = self._token_of.take(code_points(text), mode="clip")
        return (tokens if tokens.min(initial=0) >= 0 else tokens[tokens >= 0]).astype(np.int64)

    def decode(self, tokens: Iterable[int]) -> str:
        return "".join(self.characters[t] for t in tokens)

    def unknown(self, text: str) -> list[str]:
        known = set(self.characters)
        return list(dict.fromkeys(c for c in text if c not in known))

    def state(self) -> dict[str, Any]:
        return {"characters": "".join(self.characters)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> CharacterVocabulary:
        characters = state["characters"]
        if not isinstance(characters, str) or list(characters) != sorted(set(characters)):
            raise ValueError("its characters must be a string, each once, in the order of code points")
        return cls(characters)


class ByteVocabulary(Vocabulary):
    """A vocabulary of the 256 bytes, which can encode any file. Text is encoded as UTF-8."""

    level = "byte"

    def __len__(self) -> int:
        return 256

    def encode(self, text: str) -> np.ndarray:
        try:
            return self.encode_bytes(text.encode("utf-8", "surrogateescape"))  # restores raw bytes of a command line
        except UnicodeEncodeError:
            return self.encode_bytes(readable(text).encode())

    def encode_bytes(self, data: bytes) -> np.ndarray:
        return np.frombuffer(data, dtype=np.uint8).astype(np.int64)

    def decode(self, tokens: Iterable[int]) -> str:
        return bytes(int(t) for t in tokens).decode("utf-8", "replace")

    def spelling(self, token: int) -> str:
        return self.decode([token]) if token < 0x80 else f"<0x{token:02X}>"

    def state(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ByteVocabulary:
        return cls()


#: Byte-level BPE writes each byte as a character: visible ones as themselves, the others from U+0100 on, in order.
_SEEN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_UNSEEN = [number for number in range(0x100) if number not in _SEEN]
_BYTE_OF = {chr(number): number for number in _SEEN} | {chr(0x100 + k): number for k, number in enumerate(_UNSEEN)}


class BPEVocabulary(Vocabulary):
    """Byte-level byte-pair encoding by the `tokenizers` library. It is lossless and has no unknown text.

    Source: Sennrich et al. 2016; over bytes as in GPT-2.
    """

    level = "bpe"
    #: How many characters merges are learned from. More would need more memory, because the library counts all words.
    TRAINING_CHARACTERS = 20_000_000

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def build(cls, blocks: Blocks, size: int = 2000) -> BPEVocabulary:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        if size < 257:
            raise ConfigurationError(f"a BPE vocabulary holds the 256 bytes, so its size must be above 256, got {size}")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(cls._head(blocks()), trainer)
        return cls(tokenizer)

    @classmethod
    def _head(cls, blocks: Iterator[str]) -> Iterator[str]:
        left = cls.TRAINING_CHARACTERS
        for block in blocks:
            yield from split_lines(block[:left])
            left -= len(block)
            if left <= 0:
                return

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> np.ndarray:
        # A batch of lines lets the library's threads share the work, and frees its offsets soon.
        lines = split_lines(readable(text))
        encoded = self._tokenizer.encode_batch_fast(lines)
        return np.array([token for line in encoded for token in line.ids], dtype=np.int64)

    def decode(self, tokens: Iterable[int]) -> str:
        return self._tokenizer.decode([int(t) for t in tokens], skip_special_tokens=False)

    def spelling(self, token: int) -> str:
        """Return the token's text, or its bytes if they are not whole characters."""
        text = self.decode([token])
        if REPLACEMENT not in text:
            return text
        stored = self._tokenizer.id_to_token(token) or ""
        numbers = [_BYTE_OF.get(character) for character in stored]
        if None in numbers:  # an imported tokenizer that does not work on bytes
            return f"<token {token}>"
        return "".join(f"<0x{number:02X}>" for number in numbers)

    def keys(self) -> list[str]:
        """Return the tokens as the tokenizer stores them, with one character for each byte."""
        return [self._tokenizer.id_to_token(k) or f"<token {k}>" for k in range(len(self))]

    def state(self) -> dict[str, Any]:
        return {"tokenizer": json.loads(self._tokenizer.to_str())}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> BPEVocabulary:
        from tokenizers import Tokenizer

        try:
            return cls(Tokenizer.from_str(json.dumps(state["tokenizer"])))
        except Exception as error:  # the library raises no narrower class
            raise ValueError(f"not a tokenizer: {error}") from error


class StreamingDecoder:
    """A decoder of tokens that arrive one at a time. It holds back characters that are still incomplete.

    context: the tokens before the first. They may determine how it is written, such as a word's leading space.
    """

    _WINDOW = 16  # how many tokens of context a decoder sees: more than the number of bytes in any character

    def __init__(self, vocabulary: Vocabulary, context: Sequence[int] = ()) -> None:
        self._vocabulary = vocabulary
        self._tokens = [int(token) for token in context[-self._WINDOW :]]
        self._emitted = vocabulary.decode(self._tokens)

    def feed(self, token: int) -> str:
        """Return the text that is certain after `token` and was not returned before. It may be empty."""
        self._tokens.append(token)
        text = self._vocabulary.decode(self._tokens)
        if text.endswith(REPLACEMENT) and len(self._tokens) < 2 * self._WINDOW:
            return ""
        return self._emit(text)

    def finish(self) -> str:
        """Return the text that was held back."""
        return self._emit(self._vocabulary.decode(self._tokens))

    def _emit(self, text: str) -> str:
        new = text[len(self._emitted) :]
        self._tokens = self._tokens[-self._WINDOW :]
        self._emitted = self._vocabulary.decode(self._tokens)
        return new
