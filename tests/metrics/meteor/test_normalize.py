"""The words of a line: each expected line is what METEOR's program gives."""

import pytest

from unrolled.metrics.meteor.normalize import words


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("A tri-colored dog isn't here.", "a tri colored dog isn 't here ."),
        ("the man 's t-shirt , #8", "the man ' s t shirt , # 8"),
        ("O'Neil said ``no'' in the 90's", "o 'neil said \" no \" in the 90 's"),
        ("U.S. men run... 10,000 miles, 3.5 hours", "us men run ... 10,000 miles , 3.5 hours"),
        ("Rome vs. Paris pp. 5 end.", "rome vs. paris pp. 5 end ."),
        ("mr. potato goes home. He sleeps", "mr. potato goes home . he sleeps"),
        ("", ""),
    ],
)
def test_words(line, expected):
    assert words(line, {"vs": False, "pp": True}) == expected.split()
