"""The cells by their form: what holds for one of each form is tried at once, for all others by `make test-slow`."""

import pytest

from unrolled.cells import CELLS

#: A plain net, a cell memory, gates of its own, normalisation, an input of the hidden size.
FORMS = ("elman", "lstm", "gru-swapped", "ln-gru", "mut2")


def by_form(*others: object) -> list:
    """Every cell's name, with `others` after it where there are some; slow unless it is the one of its form."""
    return [
        pytest.param(
            name, *others, id="-".join(map(str, (name, *others))), marks=[] if name in FORMS else pytest.mark.slow
        )
        for name in sorted(CELLS)
    ]
