"""What METEOR knows of English words, read from an installed `pycocoevalcap`."""

from __future__ import annotations

import gzip
import importlib.util
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unrolled.errors import DataError
from unrolled.metrics.meteor.normalize import words

#: The longest phrase of the table of paraphrases, in words.
LONGEST = 7

#: How much of the table is read at once, in bytes.
BLOCK = 1 << 22

#: Endings of inflected words and of their base forms, in the order in which they are tried, as in WordNet's Morphy.
_ENDINGS = (
    *(("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man")),
    *(("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    *(("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
)

Phrase = tuple[str, ...]


@dataclass
class Resources:
    """Function words, stems, synonyms and paraphrases.

    synsets: the numbers of the WordNet synsets of each word. bases: the base forms of irregular words.
    prefixes: see `normalize.words`. stemmer: an English Snowball stemmer.
    table: the file of paraphrases. `prepare` reads from it what some texts need.
    """

    functions: frozenset[str]
    prefixes: dict[str, bool]
    synsets: dict[str, frozenset[int]]
    bases: dict[str, list[str]]
    stemmer: Any
    table: Path
    paraphrases: dict[Phrase, list[Phrase]] = field(default_factory=dict)
    _senses: dict[str, frozenset[int]] = field(default_factory=dict)
    _stems: dict[str, str] = field(default_factory=dict)

    def words(self, text: str) -> list[str]:
        """Return the words of a text."""
        return words(text, self.prefixes)

    def stem(self, word: str) -> str:
        """Return the stem of a word."""
        if word not in self._stems:
            self._stems[word] = self.stemmer.stemWord(word)
        return self._stems[word]

    def senses(self, word: str) -> frozenset[int]:
        """Return the synsets of a word and of its base form. Two words that share one are synonyms."""
        if word not in self._senses:
            nothing: frozenset[int] = frozenset()
            bases = self.bases.get(word) or [self._base(word)]
            self._senses[word] = self.synsets.get(word, nothing).union(*(self.synsets.get(each, ()) for each in bases))
        return self._senses[word]

    def _base(self, word: str) -> str:
        """Return the first base form that WordNet knows, or "" if there is none."""
        if word.endswith("ss") or len(word) <= 2:
            return word
        forms = (word.removesuffix(end) + base for end, base in _ENDINGS if word.endswith(end))
        return next((form for form in forms if form in self.synsets), "")

    def prepare(self, hypotheses: Iterable[Sequence[str]], references: Iterable[Sequence[str]]) -> None:
        """Read the paraphrases between phrases of the hypotheses and phrases of the references, given as words.

        The table has 5 million pairs. Reading it takes about two seconds, and what an earlier call read is forgotten.
        """
        ours, theirs = _phrases(hypotheses), _phrases(references)
        either = ours | theirs
        self.paraphrases = {}
        for first, second in _pairs(self.table):
            if first not in either or second not in either:
                continue
            if (first in ours and second in theirs) or (first in theirs and second in ours):
                self.paraphrases.setdefault(_words(first), []).append(_words(second))


def missing() -> str:
    """Return the names of the packages that METEOR needs and that are not installed, or ""."""
    lacking = [name for name in ("pycocoevalcap", "snowballstemmer") if importlib.util.find_spec(name) is None]
    return " ".join(lacking)


def find_resources() -> Resources | None:
    """Read the resources, except for paraphrases, or return None if a package that they need is not installed.

    Raises DataError if the installed `pycocoevalcap` does not contain METEOR's data.
    """
    if missing():
        return None
    from snowballstemmer import stemmer

    spec = importlib.util.find_spec("pycocoevalcap")
    places = list(spec.submodule_search_locations or ()) if spec else []
    folder = next((Path(place) / "meteor" for place in places), Path("meteor"))
    archive, table = folder / "meteor-1.5.jar", folder / "data" / "paraphrase-en.gz"
    for path in (archive, table):
        if not path.is_file():
            raise DataError(f"{path}: not found; install pycocoevalcap 1.2 again, which contains METEOR's data")
    with zipfile.ZipFile(archive) as jar:
        functions, prefixes, exceptions, synsets = (
            jar.read(name).decode().splitlines()
            for name in (
                "function/english.words",
                "nonbreaking/english.prefixes",
                "synonym/english.exceptions",
                "synonym/english.synsets",
            )
        )
    bases: dict[str, list[str]] = {}
    for base, forms in zip(exceptions[::2], exceptions[1::2], strict=True):
        for form in forms.split():
            bases.setdefault(form, []).append(base)
    return Resources(
        functions=frozenset(functions),
        prefixes={line.split()[0]: "#NUMERIC_ONLY#" in line for line in prefixes if line.strip() and line[0] != "#"},
        synsets={
            word: frozenset(map(int, numbers.split()))
            for word, numbers in zip(synsets[::2], synsets[1::2], strict=True)
        },
        bases=bases,
        stemmer=stemmer("english"),
        table=table,
    )


def _phrases(texts: Iterable[Sequence[str]]) -> set[bytes]:
    """Return all phrases of the texts that the table could contain, as it writes them."""
    found = set()
    for tokens in texts:
        for length in range(1, LONGEST + 1):
            for start in range(len(tokens) - length + 1):
                found.add(" ".join(tokens[start : start + length]).encode())
    return found


def _words(phrase: bytes) -> Phrase:
    return tuple(phrase.decode().split())


def _pairs(table: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield each pair of paraphrases. The table has three lines for each: a probability and the two phrases."""
    lines: list[bytes] = []
    rest = b""
    with gzip.open(table) as file:
        while block := file.read(BLOCK):
            *more, rest = (rest + block).split(b"\n")
            lines += more
            whole = len(lines) // 3 * 3
            yield from zip(lines[1:whole:3], lines[2:whole:3], strict=True)
            del lines[:whole]
