"""Words of captions: each expected line is what Stanford's tokenizer 3.4.1 and COCO's list of punctuation give."""

import pytest

from unrolled.data.caption_tokens import caption_tokens


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A child in a pink dress is climbing up a set of stairs in an entry way .", None),
        ('Two dogs, one tri-colored; a man\'s "T-shirt"!', "two dogs one tri-colored a man 's t-shirt"),
        ("It isn't on, they're off -- we'd go... 'there'", "it is n't on they 're off we 'd go there"),
        ("a man (standing) cannot see #8 at 3:30", "a man -lrb- standing -rrb- can not see # 8 at 3:30"),
    ],
)
def test_words_without_punctuation(caption, words):
    assert caption_tokens(caption) == (words or caption.lower().removesuffix(" .")).split()


@pytest.mark.parametrize("caption", ["", " ", ".", "! ?", "... -- ;"])
def test_captions_without_words(caption):
    assert caption_tokens(caption) == []
