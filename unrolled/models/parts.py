"""Helpers with which several models build their recurrent layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from unrolled.cells import Cell, find_cell


def named_cell(name: str, forget_bias: float) -> tuple[Callable[..., Cell], dict[str, Any], bool]:
    """Return the constructor of the cell `name`, its options, and whether its input size must equal its hidden size."""
    make = find_cell(name)
    kind = make.func if isinstance(make, partial) else make  # a name may stand for a class with preset options
    takes_it = "forget_bias" in inspect.signature(kind).parameters
    return make, {"forget_bias": forget_bias} if takes_it else {}, getattr(kind, "needs_equal_sizes", False)
