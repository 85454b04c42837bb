"""Words of a text for display: they make up the text, and their tokens are those of the vocabulary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.data.text_parts import Part, parts_of, parts_of_tokens
from unrolled.data.tokens import learn_vocabulary

TEXT = "It isn't 'good', Zoë said: grüß dich, 世界!\nSo (dull)…  really"


def vocabulary(level, text=TEXT):
    return learn_vocabulary(level, lambda: iter([text]), size=300 if level == "bpe" else None, min_count=1)


@pytest.mark.parametrize("level", ["word", "bpe", "char", "byte"])
def test_parts_make_up_the_text(level):
    parts = parts_of(vocabulary(level), TEXT)
    assert "".join(part.text for part in parts) == TEXT
    assert sum(part.tokens for part in parts) == len(vocabulary(level).encode(TEXT))
    assert {"It", "good", " Zoë", " dich", " 世界", "dull"} <= {part.text for part in parts}


@given(st.text(alphabet="ab é.'\n世", max_size=20), st.sampled_from(["word", "bpe", "byte"]))
def test_parts_of_any_text(text, level):
    parts = parts_of(vocabulary(level), text)
    assert "".join(part.text for part in parts) == text
    assert sum(part.tokens for part in parts) == len(vocabulary(level).encode(text))


def test_unknown_words_are_shown():
    parts = parts_of(vocabulary("word", "so dull"), "so weird!")
    assert parts == [Part("so", 1), Part(" weird", 1), Part("!", 1)]
    known = vocabulary("char", "so dull")
    assert parts_of(known, "so xdull") == [Part("so", 2), Part(" dull", 5)]


def test_tokens_that_are_not_read():
    parts = parts_of(vocabulary("bpe"), TEXT, kept=range(3))
    assert sum(part.tokens for part in parts) == 3
    assert parts[-1].tokens == 0
    words = vocabulary("word")
    assert parts_of_tokens(words, words.encode("It isn't"), [1]) == [Part("It", 0), Part(" isn't", 1)]
