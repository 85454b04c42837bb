"""Timing of a cell's training step in this engine and in others, and of a plain matrix product.

All sides run alternately in one process, and their medians are compared. Only ratios within one run can be compared
with those of other runs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from unrolled.bench.cases import PEERS, SIZES
from unrolled.bench.peers import Side, engine, jax_scan, torch_compiled, torch_layer
from unrolled.cells import find_cell
from unrolled.layers.wrap import make_cell

#: Number of rows and columns of the matrices in the product.
_PRODUCT = 2048


@dataclass(frozen=True)
class Timing:
    """Median times of one cell at one size, in seconds, and the interquartile ranges as shares of the medians."""

    cell: str
    size: str
    seconds: dict[str, float]
    spread: dict[str, float]
    flops: float

    def ratio(self, peer: str) -> float | None:
        """Return the peer's time divided by this engine's; None if the peer was not timed."""
        return self.seconds[peer] / self.seconds["native"] if peer in self.seconds else None

    @property
    def share(self) -> float:
        """This engine's speed as a share of the matrix product's; only the cell's own products count as operations."""
        return self.flops / self.seconds["native"] / (2 * _PRODUCT**3 / self.seconds["product"])


def time_cell(cell_name: str, size: str, peers: Sequence[str], repeats: int) -> Timing:
    """Time the forward and the backward pass, including the gradients of the input and the weights."""
    steps, batch, inputs, hidden = SIZES[size]
    make = find_cell(cell_name)
    equal = getattr(getattr(make, "func", make), "needs_equal_sizes", False)
    cell = make_cell(cell_name, hidden if equal else inputs, hidden)
    x = torch.randn(steps, batch, cell.input_size, requires_grad=True)
    left, right = torch.randn(2, _PRODUCT, _PRODUCT)
    makers: dict[str, Callable[[], Side | None]] = {
        "torch.nn": lambda: torch_layer(cell_name, inputs, hidden, x),
        "eager": lambda: engine(cell, x, "eager"),
        "torch.compile": lambda: torch_compiled(cell_name, cell, x),
        "jax": lambda: jax_scan(cell_name, cell, x),
    }
    found = {name: makers[name]() for name in PEERS if name in peers}
    sides: dict[str, Side] = {"native": engine(cell, x, "native")}
    sides |= {name: side for name, side in found.items() if side is not None}
    sides["product"] = lambda: left @ right
    times: dict[str, list[float]] = {name: [] for name in sides}
    calls = {name: _calls_per_round(side) for name, side in sides.items()}
    for _ in range(repeats):
        for name, side in sides.items():
            started = time.perf_counter()
            for _ in range(calls[name]):
                side()
            times[name].append((time.perf_counter() - started) / calls[name])
    seconds = {name: statistics.median(values) for name, values in times.items()}
    quarters = {name: statistics.quantiles(values, n=4) for name, values in times.items()}
    spread = {name: (quarters[name][2] - quarters[name][0]) / seconds[name] for name in sides}
    weights = sum(p.numel() for p in cell.parameters() if p.dim() == 2)
    return Timing(cell_name, size, seconds, spread, 6 * steps * batch * weights)


def _calls_per_round(side: Side) -> int:
    """Return how many calls take a fiftieth of a second, after a first call for one-time work such as compiling."""
    side()
    started = time.perf_counter()
    side()
    return max(1, round(0.02 / (time.perf_counter() - started)))
