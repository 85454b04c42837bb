"""Error rates of transcripts against known values and a naive edit distance."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.errors import DataError
from unrolled.metrics.transcripts import score_transcripts


def test_what_was_right_is_counted_by_character():
    counts = score_transcripts(["abba", ""], ["aba", "c"]).characters
    assert counts.right == {"a": 2, "b": 1}
    assert counts.by_true() == {"": {"c": 1}, "a": {"a": 2}, "b": {"": 1, "b": 1}}


def distance(old, new):
    """Levenshtein's distance, row by row."""
    row = list(range(len(new) + 1))
    for i, a in enumerate(old, 1):
        before, row = row, [i]
        for j, b in enumerate(new, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1]


TEXT = st.text(alphabet="ab ç\n", max_size=9)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=5))
def test_it_is_the_edit_distance(pairs):
    score = score_transcripts([a for a, _ in pairs], [b for _, b in pairs])
    clean = [tuple(" ".join(text.split()) for text in pair) for pair in pairs]
    for counts, parts in ((score.characters, list), (score.words, str.split)):
        cut = [(parts(a), parts(b)) for a, b in clean]
        assert counts.errors == sum(distance(a, b) for a, b in cut)
        assert counts.total == sum(len(a) for a, _ in cut)
        assert counts.rate == counts.errors / max(counts.total, 1)
        kinds = Counter({"s": counts.substitutions, "d": counts.deletions, "i": counts.insertions})
        found = Counter()
        for (wanted, got), times in counts.confusions.items():
            assert wanted != got
            found["i" if not wanted else "d" if not got else "s"] += times
        assert found == kinds
        assert counts.right.total() == counts.total - counts.substitutions - counts.deletions
        by_true = counts.by_true()
        inserted = sum(by_true.pop("", {}).values())
        assert inserted == counts.insertions
        assert {part: sum(row.values()) for part, row in by_true.items()} == Counter(p for a, _ in cut for p in a)
        # The edits account for every character and word: what is wanted, changed, is what was found.
        change = Counter(part for _, b in cut for part in b)
        change.subtract(part for a, _ in cut for part in a)
        edits = Counter()
        for (wanted, got), times in counts.confusions.items():
            edits.update({got: times})
            edits.subtract({wanted: times})
        assert {k: v for k, v in edits.items() if k and v} == {k: v for k, v in change.items() if v}
    assert (score.count, score.right) == (len(pairs), sum(a == b for a, b in clean))


def test_known_values():
    score = score_transcripts(["the cat sat", "on the mat", "no"], ["the cat sad", "on mat", "no no"])
    assert (score.words.total, score.words.substitutions, score.words.deletions, score.words.insertions) == (7, 1, 1, 1)
    assert score.wer == 3 / 7
    assert (score.characters.total, score.characters.errors) == (23, 1 + 4 + 3)
    assert score.words.commonest() == [("", "no", 1), ("sat", "sad", 1), ("the", "", 1)]
    assert score.words.commonest(1) == [("", "no", 1)]
    assert (score.count, score.right) == (3, 0)


def test_the_commonest_come_first():
    score = score_transcripts(["aab", "ab"], ["ccb", "cb"])
    assert score.characters.commonest() == [("a", "c", 3)]
    assert score.cer == 3 / 5


def test_empty_references_count_insertions():
    score = score_transcripts(["", "ab"], ["x y", "ab"])
    assert (score.characters.insertions, score.words.insertions) == (3, 2)
    assert score.cer == 3 / 2
    assert score.wer == 2
    assert score.right == 1
    assert score_transcripts([" "], ["ab"]).cer == 2
    assert score_transcripts([""], [""]).cer == 0
    assert score_transcripts([], []).wer == 0


def test_case_and_white_space():
    assert score_transcripts([" a\t b"], ["a b\n"]).right == 1
    assert score_transcripts(["A"], ["a"]).cer == 1


def test_as_many_hypotheses_as_references():
    with pytest.raises(DataError, match="1 hypotheses for 2 references"):
        score_transcripts(["a", "b"], ["a"])
