"""Words of captions: each expected line is what Stanford's tokenizer 3.4.1 and COCO's list of punctuation give."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.data.caption_tokens import caption_text, caption_tokens


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A child in a pink dress is climbing up a set of stairs in an entry way .", None),
        ('Two dogs, one tri-colored; a man\'s "T-shirt"!', "two dogs one tri-colored a man 's t-shirt"),
        ("It isn't on, they're off -- we'd go... 'there'", "it is n't on they 're off we 'd go there"),
        ("Mr. Smith of the U.S. won 1st place, etc.", "mr. smith of the u.s. won 1st place etc."),
        ("black & white, H&amp;M, 10,000 a 4x4 rock 'n' roll", "black & white h&m 10,000 a 4x4 rock 'n' roll"),
        ('the letter " P. " isn’t “big” … ½', "the letter p. is n't big 1/2"),
        ("a man (standing) cannot see #8 at 3:30", "a man -lrb- standing -rrb- can not see # 8 at 3:30"),
    ],
)
def test_words_without_punctuation(caption, words):
    assert caption_tokens(caption) == (words or caption.lower().removesuffix(" .")).split()


@pytest.mark.parametrize(
    "caption",
    ["a man's AT&T cap isn't (much) worn", "rock 'n' roll in the '90s", "Mr. Smith can't; they're at 3:30 pm, u.s."],
)
def test_a_line_of_the_words_has_the_same_words(caption):
    found = caption_tokens(caption)
    assert caption_tokens(caption_text(found)) == found


@given(st.lists(st.text("abcdefghij", min_size=2, max_size=6), max_size=8))
def test_plain_words_are_kept_and_words_are_stable(words):
    assert caption_tokens(" ".join(words).upper() + " .") == words
    assert caption_tokens(f'"{", ".join(words)}!"') == words


@given(st.text())
def test_any_text_has_words_without_white_space(text):
    assert all(token and token.split() == [token] for token in caption_tokens(text))


@pytest.mark.parametrize("caption", ["", " ", ".", "! ?", "... -- ;"])
def test_captions_without_words(caption):
    assert caption_tokens(caption) == []
