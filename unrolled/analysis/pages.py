"""Self-contained HTML pages that hold their data, and which examples a page shows."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import numpy as np


def page_with(name: str, data: Any) -> str:
    """Return the page `name.html` of this package with its data."""
    # Only < could end the script element.
    embedded = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    page = files("unrolled.analysis").joinpath(f"{name}.html").read_text(encoding="utf-8")
    return page.replace("/* data */", embedded)


def worst_and_others(scores: Any, count: int, seed: int) -> list[int]:
    """Return the numbers of `count` examples: half are those with the lowest scores, the others are drawn at random."""
    order = np.argsort(scores, kind="stable")
    half = min(len(order), count // 2)
    others = np.random.default_rng(seed).permutation(order[half:])[: count - half]
    return [*order[:half].tolist(), *others.tolist()]
