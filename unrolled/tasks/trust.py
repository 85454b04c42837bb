"""The digests of source that this user has agreed to run, because a run may contain code from somebody else.

Each digest is the name of a file in the user's state folder (`UNROLLED_STATE`), which is protected like the cache.
"""

from __future__ import annotations

import warnings
from contextlib import suppress

from unrolled.cache import open_state
from unrolled.errors import CacheError, RecoveryWarning
from unrolled.training.run import one_line

_FOLDER = "trusted-cells"
#: The digests of source that this process may run, whether or not they are stored.
_allowed: set[str] = set()


def allow(key: str) -> None:
    """Let this process run the source with a digest."""
    _allowed.add(key)


def trust(key: str, origin: str) -> None:
    """Let this process and later ones run the source with a digest; warn if that cannot be stored.

    origin: the path of the source, which is stored for a user who looks into the folder.
    """
    allow(key)
    try:
        with open_state(_FOLDER, make=True) as folder:
            if folder is not None and folder.read(key) is None:
                folder.write(key, f"{origin}\n".encode("utf-8", "surrogateescape"))
    except (OSError, CacheError, RuntimeError) as error:  # RuntimeError: there is no home
        why = str(error) if isinstance(error, CacheError) else one_line(error)
        message = f"the trust in the cell of {origin} cannot be stored ({why})"
        warnings.warn(message, RecoveryWarning, stacklevel=2)


def is_trusted(key: str) -> bool:
    """Return whether this process may run the source with a digest; an unsafe state folder is ignored."""
    if key in _allowed:
        return True
    with suppress(OSError, CacheError, RuntimeError), open_state(_FOLDER) as folder:
        return folder is not None and folder.read(key) is not None
    return False
