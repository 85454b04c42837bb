"""A text in three parts: how many tokens to train on, to validate on and to test on."""

from __future__ import annotations

from unrolled.errors import ConfigurationError


def split_lengths(count: int, validation: float, test: float) -> tuple[int, int, int]:
    """The lengths of the three parts of `count` tokens; the last two are fractions, cut off its end.

    ConfigurationError if nothing would be left to train on.
    """
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise ConfigurationError(
            f"the validation and test fractions must be from 0 to below 1 and leave text to train on, "
            f"got {validation} and {test}"
        )
    first = int(count * (1 - validation - test))
    second = max(first, count - int(count * test))
    return first, second - first, count - second
