"""METEOR's resources for a few words, so that tests need no other package than the stemmer."""

import gzip
from pathlib import Path

import pytest

from unrolled.metrics.meteor import Resources

FUNCTIONS = ["a", "the", "of", "in", "it", "is", "on", "'s", "'t", "was", "with", "two", "and", "by"]
PARAPHRASES = (("in front of", "before"), ("kick", "strike"))


def small_resources(folder: Path) -> Resources:
    """Return resources with a few synonyms, and a table of paraphrases in `folder`."""
    stemmer = pytest.importorskip("snowballstemmer", reason="needs the package snowballstemmer")
    table = folder / "paraphrases.gz"
    table.write_bytes(gzip.compress("".join(f"0.5\n{one}\n{other}\n" for one, other in PARAPHRASES).encode()))
    return Resources(
        functions=frozenset(FUNCTIONS),
        prefixes={"vs": False, "pp": True},
        synsets={word: frozenset(numbers) for word, numbers in SYNSETS.items()},
        bases={"mice": ["mouse"]},
        stemmer=stemmer.stemmer("english"),
        table=table,
    )


SYNSETS = {"big": [1, 2], "large": [2, 3], "small": [4], "mouse": [5], "rodent": [5], "carry": [6], "hold": [6]}
