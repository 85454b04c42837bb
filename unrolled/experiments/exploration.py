"""The tasks with which "An Empirical Exploration of Recurrent Network Architectures" compares cells, as texts.

Source: Jozefowicz, Zaremba & Sutskever 2015, section 3.3, at a smaller scale. A model learns each text character by
character, like any other text.
"""

from __future__ import annotations

import random
from collections.abc import Callable

LETTERS = "abcdefghijk"


def arithmetic(lines: int, seed: int, digits: int = 3) -> str:
    """Return sums and differences of two numbers, mixed with letters that mean nothing: `4b1-a39=2.`

    A number has up to `digits` digits (8 in the paper). On average, a letter follows every third character of the
    problem.
    """
    draw = random.Random(seed)
    made = []
    for _ in range(lines):
        left, right = (draw.randrange(10 ** draw.randint(1, digits)) for _ in range(2))
        sign = draw.choice("+-")
        answer = left + right if sign == "+" else left - right
        problem = "".join(
            character + (draw.choice(LETTERS) if draw.random() < 1 / 3 else "") for character in f"{left}{sign}{right}"
        )
        made.append(f"{problem}={answer}.\n")
    return "".join(made)


def xml(lines: int, seed: int, depth: int = 4) -> str:
    """Return nested tags with random names of 2 to 5 letters, at most `depth` deep: `<ab><cd></cd></ab>`."""
    draw = random.Random(seed)
    made = []
    for _ in range(lines):
        open_tags: list[str] = []
        line = ""
        while not line or open_tags:
            if not line or (len(open_tags) < depth and draw.random() < 0.5):
                open_tags.append("".join(draw.choice(LETTERS) for _ in range(draw.randint(2, 5))))
                line += f"<{open_tags[-1]}>"
            else:
                line += f"</{open_tags.pop()}>"
        made.append(line + "\n")
    return "".join(made)


#: Synthetic texts by the name of their task.
TEXTS: dict[str, Callable[[int, int], str]] = {"arithmetic": arithmetic, "xml": xml}
LINES = 20_000
