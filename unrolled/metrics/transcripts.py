"""Character and word error rates of transcripts, computed by jiwer, and what was mistaken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import jiwer

from unrolled.errors import DataError
from unrolled.metrics.confusion import by_true


@dataclass(frozen=True)
class EditCounts:
    """Counts of the edits that turn the references into the hypotheses, over characters or over words.

    total: the number of characters or words of the references.
    right: how often each character or word of the references was found.
    confusions: the count of every edit `(reference, hypothesis)`. An insertion has the reference "", and a deletion the
        hypothesis "".
    """

    total: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    confusions: Counter[tuple[str, str]] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """The errors per character or word of the references. It can be above 1.

        If all references are empty, it is the number of insertions, as in jiwer.
        """
        return self.errors / max(self.total, 1)

    def by_true(self) -> dict[str, dict[str, int]]:
        """Return how often each character or word was found as each, by the true one, the right ones included.

        What was inserted is under "", and what was deleted was found as "".
        """
        right = Counter({(part, part): count for part, count in self.right.items()})
        return by_true(right + self.confusions)

    def commonest(self, count: int = 10) -> list[tuple[str, str, int]]:
        """Return the `count` commonest confusions as `(reference, hypothesis, count)`, the most frequent first."""
        ordered = sorted(self.confusions.items(), key=lambda item: (-item[1], item[0]))
        return [(wanted, found, times) for (wanted, found), times in ordered[:count]]


@dataclass(frozen=True)
class TranscriptScore:
    """The edits of characters and of words, and how many of the `count` transcripts are entirely right."""

    characters: EditCounts
    words: EditCounts
    count: int
    right: int

    @property
    def cer(self) -> float:
        """The character error rate; see `EditCounts.rate`."""
        return self.characters.rate

    @property
    def wer(self) -> float:
        """The word error rate; see `EditCounts.rate`."""
        return self.words.rate


def score_transcripts(references: Sequence[str], hypotheses: Sequence[str]) -> TranscriptScore:
    """Compare hypotheses with the references, over the whole corpus: the sum of all errors by the sum of all lengths.

    The comparison is exact, including case and punctuation. Only white space is normalised: words are separated by one
    space, which counts as a character, and there is none at the ends. A reference may be empty; then every character
    and word of its hypothesis is an insertion.
    Raises DataError if there are not as many hypotheses as references.
    """
    if len(references) != len(hypotheses):
        raise DataError(f"{len(hypotheses):,} hypotheses for {len(references):,} references: give one for each")
    pairs = [(" ".join(a.split()), " ".join(b.split())) for a, b in zip(references, hypotheses, strict=True)]
    inserted = [found for wanted, found in pairs if not wanted]  # jiwer 3 rejects empty references
    aligned = [pair for pair in pairs if pair[0]]
    given = [wanted for wanted, _ in aligned], [found for _, found in aligned]
    characters = jiwer.process_characters(*given) if aligned else None
    words = jiwer.process_words(*given) if aligned else None
    return TranscriptScore(
        _counts(characters, [list(text) for text in inserted]),
        _counts(words, [text.split() for text in inserted]),
        len(pairs),
        sum(wanted == found for wanted, found in pairs),
    )


def _counts(output: jiwer.CharacterOutput | jiwer.WordOutput | None, inserted: list[list[str]]) -> EditCounts:
    """Return the counts of jiwer's output and of the hypotheses of empty references."""
    confusions, right = Counter(("", each) for found in inserted for each in found), Counter[str]()
    insertions = confusions.total()
    if output is None:
        return EditCounts(insertions=insertions, confusions=confusions)
    for wanted, found, chunks in zip(output.references, output.hypotheses, output.alignments, strict=True):
        for chunk in chunks:
            old = wanted[chunk.ref_start_idx : chunk.ref_end_idx]
            if chunk.type == "equal":
                right.update(old)
            else:
                new = found[chunk.hyp_start_idx : chunk.hyp_end_idx]
                longest = max(len(old), len(new))  # one side is empty, or both are equally long
                confusions.update(zip(old or [""] * longest, new or [""] * longest, strict=True))
    return EditCounts(
        sum(map(len, output.references)),
        output.substitutions,
        output.deletions,
        output.insertions + insertions,
        confusions,
        right,
    )
