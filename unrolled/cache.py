"""Where this program keeps what it can make again: compiled steps, encoded text."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """`$UNROLLED_CACHE`, or `unrolled` in the user's cache directory."""
    given = os.environ.get("UNROLLED_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unrolled"
