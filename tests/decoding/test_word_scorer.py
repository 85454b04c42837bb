"""KenLM's words in a CTC beam, by a small model that is written out here."""

import math
import sys

import pytest
import torch

from unrolled.decoding import CTCBeam, Lexicon
from unrolled.decoding.word_scorer import KenLMScorer
from unrolled.errors import ConfigurationError, DataError

LABELS = ["", "a", "b", " "]
ARPA = """\\data\\
ngram 1=5
ngram 2=4

\\1-grams:
-2.0\t<unk>
0\t<s>\t-0.3
-0.7\t</s>
-0.5\tab\t-0.4
-0.6\tb\t-0.2

\\2-grams:
-0.2\t<s> ab
-0.9\t<s> b
-0.1\tab b
-0.3\tb </s>

\\end\\
"""
#: Backoff is added if a pair is not listed.
PAIRS = {("<s>", "ab"): -0.2, ("<s>", "b"): -0.9, ("ab", "b"): -0.1, ("b", "</s>"): -0.3}
WORDS = {"</s>": -0.7, "ab": -0.5, "b": -0.6}
BACKOFF = {"<s>": -0.3, "ab": -0.4, "b": -0.2}


def log_prob(words):
    """The natural log-probability of a sentence by the model above."""
    total = 0.0
    for before, word in zip(["<s>", *words], words, strict=False):
        total += PAIRS.get((before, word), BACKOFF.get(before, 0.0) + WORDS.get(word, -2.0))
    return math.log(10) * total


@pytest.fixture
def path(tmp_path):
    pytest.importorskip("kenlm")
    file = tmp_path / "words.arpa"
    file.write_text(ARPA)
    return file


def test_it_is_the_sum_over_words(path):
    torch.manual_seed(0)
    frames = torch.log_softmax(torch.randn(5, len(LABELS)), -1)
    beam = CTCBeam(5000, 5000, language_model=KenLMScorer(path, LABELS, 3), lm_weight=0.7, prune=0)
    state = beam.feed(beam.start(), frames)
    found = beam.result(state)
    texts = {"".join(LABELS[label] for label in one.labels): one for one in found}
    assert len(texts) == len(found) > 100
    assert {"ab b", "b ", " b", "a  b", ""} <= set(texts)
    for text, one in texts.items():
        assert one.lm_log_prob == pytest.approx(log_prob([*text.split(), "</s>"]), abs=1e-4)
        assert one.score == pytest.approx(one.log_prob + 0.7 * one.lm_log_prob)
    for one in beam.result(state, final=False):  # the last word goes on, and has no score
        text = "".join(LABELS[label] for label in one.labels)
        assert one.lm_log_prob == pytest.approx(log_prob(f"{text}.".split()[:-1]), abs=1e-4)


def test_with_a_lexicon_and_in_pieces(path):
    torch.manual_seed(1)
    frames = torch.log_softmax(torch.randn(30, len(LABELS)), -1)
    words = Lexicon([[1, 2], [2]], separator=3)
    beam = CTCBeam(8, 8, language_model=KenLMScorer(path, LABELS, 3), lexicon=words)
    state = beam.start()
    for piece in frames.split(7):
        state = beam.feed(state, piece)
    assert beam.result(state) == beam.result(beam.feed(beam.start(), frames))
    for one in beam.result(state):
        text = "".join(LABELS[label] for label in one.labels)
        assert set(text.split()) <= {"ab", "b"}
        assert one.lm_log_prob == pytest.approx(log_prob([*text.split(), "</s>"]), abs=1e-4)


def test_what_is_wrong_is_named(path, tmp_path):
    with pytest.raises(ConfigurationError, match="separator"):
        KenLMScorer(path, LABELS, 4)
    with pytest.raises(DataError, match=r"none\.arpa"):
        KenLMScorer(tmp_path / "none.arpa", LABELS, 3)
    (tmp_path / "bad.arpa").write_text("nothing")
    with pytest.raises(DataError, match=r"bad\.arpa"):
        KenLMScorer(tmp_path / "bad.arpa", LABELS, 3)


def test_without_kenlm(monkeypatch):
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(ConfigurationError, match=r"unrolled\[lm\]"):
        KenLMScorer("words.arpa", LABELS, 3)
