"""The split of a text into three parts: for training, validation and testing."""

from __future__ import annotations

from unrolled.errors import ConfigurationError


def split_lengths(count: int, validation: float, test: float) -> tuple[int, int, int]:
    """Return the lengths of the three parts of `count` tokens. The last two are fractions at the end of the text.

    Raises ConfigurationError if nothing is left to train on.
    """
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise ConfigurationError(
            f"the validation and test fractions must be from 0 to below 1 and leave text to train on, "
            f"got {validation} and {test}"
        )
    first = int(count * (1 - validation - test))
    second = max(first, count - int(count * test))
    return first, second - first, count - second
