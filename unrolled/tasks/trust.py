"""Source that this user has agreed to run, by its digest: what lies in a run may be somebody else's.

Each digest is the name of a file in the user's own folder of state (`UNROLLED_STATE`), guarded as the cache is.
"""

from __future__ import annotations

import warnings
from contextlib import suppress

from unrolled.cache import open_state
from unrolled.errors import CacheError, RecoveryWarning
from unrolled.training.run import one_line

_FOLDER = "trusted-cells"
#: What may be run by this process, whether or not it is remembered.
_allowed: set[str] = set()


def allow(key: str) -> None:
    """Let this process run what has that digest."""
    _allowed.add(key)


def remember(key: str, origin: str) -> None:
    """Let this process and those after it run what has that digest; a note where that cannot be kept.

    origin: where it came from, for the person who looks into the folder.
    """
    allow(key)
    try:
        with open_state(_FOLDER, make=True) as folder:
            if folder is not None and folder.read(key) is None:
                folder.write(key, f"{origin}\n".encode("utf-8", "surrogateescape"))
    except (OSError, CacheError, RuntimeError) as error:  # RuntimeError: there is no home
        why = str(error) if isinstance(error, CacheError) else one_line(error)
        message = f"that the cell of {origin} is trusted cannot be remembered ({why})"
        warnings.warn(message, RecoveryWarning, stacklevel=2)


def is_trusted(key: str) -> bool:
    """Whether this process may run what has that digest; where the folder is not safe, nothing in it counts."""
    if key in _allowed:
        return True
    with suppress(OSError, CacheError, RuntimeError), open_state(_FOLDER) as folder:
        return folder is not None and folder.read(key) is not None
    return False
