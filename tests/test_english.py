"""The package and its documents use the field's words, as docs/decisions.md and CONTRIBUTING.md ask."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: What is not to be written, and what is written in its place.
WORDS = {
    r"(?<!left )\bbehind\b(?! <unk>)(?! = |\.flatten)": "after",
    r"\bstrangers?\b": "user module, somebody else",
    r"\bcrew\b": "worker pool",
    r"\bdear\b(?! \{)": "expensive",
    r"\banew\b": "again",
    r"\bfor ever\b": "forever",
    r"\b(?:un)?told are\b": "are reported",
    r"\bof which the\b": "whose",
    r"\bbeside\b": "next to, in addition to",
    r"\bpersons?\b": "user",
    r"\btold\b": "reported, given",
    r"\bbut for\b": "except",
    r"\b(?:lest|whence|thereby|hence|herein)\b": "so that, because, thus",
    r"\bof (?:one's|somebody's) own\b": "a user's",
    r"\bstands? aside\b": "falls back",
    r"\bstands? apart\b": "is separate",
    r"\b(?:nats|bits|bytes|units|lines|tokens|one) an? (?:token|step|character|word|line|layer|sequence|second)\b": "per",
}
PATHS = sorted(
    path
    for pattern in ("unrolled/**/*.py", "unrolled/**/*.[ch]", "docs/*.md", "*.md", "benchmarks/*.py", "examples/*.py")
    for path in ROOT.glob(pattern)
)


def test_there_is_something_to_look_at():
    assert len(PATHS) > 150


@pytest.mark.parametrize("word", WORDS)
def test_words(word):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in PATHS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(word, line, re.IGNORECASE)
    ]
    assert not found, f"write {WORDS[word]!r}"
