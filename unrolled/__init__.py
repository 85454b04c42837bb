"""Unrolled: recurrent networks on PyTorch, one step of the recurrence at a time.

The names below are imported on first use, so that the command line answers before PyTorch is imported. The engine's
one function, `unroll`, has the same name as its package, `unrolled.unroll`; the package can therefore be called too.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unrolled.cells import (
        CELLS,
        Cell,
        CoupledLSTMCell,
        ElmanCell,
        GRUCell,
        GRUResetAfterCell,
        LayerNormGRUCell,
        LayerNormLSTMCell,
        LSTMCell,
        MUT1Cell,
        MUT2Cell,
        MUT3Cell,
        PascanuCell,
        PeepholeLSTMCell,
    )
    from unrolled.layers import GRU, LSTM, RNN, Highway, Recurrent
    from unrolled.tasks import load
    from unrolled.unroll import unroll

__version__ = "0.1.0"

__all__ = [
    "CELLS",
    "GRU",
    "LSTM",
    "RNN",
    "Cell",
    "CoupledLSTMCell",
    "ElmanCell",
    "GRUCell",
    "GRUResetAfterCell",
    "Highway",
    "LSTMCell",
    "LayerNormGRUCell",
    "LayerNormLSTMCell",
    "MUT1Cell",
    "MUT2Cell",
    "MUT3Cell",
    "PascanuCell",
    "PeepholeLSTMCell",
    "Recurrent",
    "load",
    "unroll",
]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'unrolled' has no attribute {name!r}")
    if name == "unroll":
        return importlib.import_module("unrolled.unroll")
    packages = {"unrolled.layers": ("GRU", "LSTM", "RNN", "Highway", "Recurrent"), "unrolled.tasks": ("load",)}
    package = next((package for package, names in packages.items() if name in names), "unrolled.cells")
    return getattr(importlib.import_module(package), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
