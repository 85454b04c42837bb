"""Times a training step of cells: this engine, `torch.nn`, the eager loop, and a plain matrix product beside them.

All sides are run in turn, in one process, and compared by their medians: only ratios within one run carry over.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unrolled.cells import Cell, find_cell
from unrolled.unroll import unroll

#: Steps, batch, input, hidden.
SIZES: dict[str, tuple[int, int, int, int]] = {
    "S1": (25, 1, 64, 100),
    "S2": (50, 50, 65, 128),
    "S3": (64, 32, 128, 256),
    "S4": (50, 64, 512, 512),
    "S5": (35, 20, 650, 650),
}
_PRODUCT = 2048
#: The cells that `torch.nn` has layers of.
_PEERS: dict[str, Callable[[int, int], nn.Module]] = {
    "lstm": nn.LSTM,
    "gru-after": nn.GRU,
    "elman": nn.RNN,
    "relu": lambda inputs, hidden: nn.RNN(inputs, hidden, nonlinearity="relu"),
}


@dataclass(frozen=True)
class Timing:
    """Medians of one cell at one size, in seconds, and the middle half's width as a share of the median."""

    cell: str
    size: str
    seconds: dict[str, float]
    spread: dict[str, float]
    flops: float

    def ratio(self, peer: str) -> float | None:
        """A peer's time over this engine's."""
        return self.seconds[peer] / self.seconds["native"] if peer in self.seconds else None

    @property
    def share(self) -> float:
        """This engine's speed as a share of the matrix product's, by the operations of the cell's products."""
        return self.flops / self.seconds["native"] / (2 * _PRODUCT**3 / self.seconds["product"])


def time_cell(cell_name: str, size: str, peers: Sequence[str], repeats: int) -> Timing:
    """Time forward and backward, gradients of input and weights included."""
    steps, batch, inputs, hidden = SIZES[size]
    make = find_cell(cell_name)
    equal = getattr(getattr(make, "func", make), "needs_equal_sizes", False)
    cell: Cell = make(hidden if equal else inputs, hidden)
    x = torch.randn(steps, batch, cell.input_size, requires_grad=True)
    left, right = torch.randn(2, _PRODUCT, _PRODUCT)
    sides: dict[str, Callable[[], object]] = {"native": _training(cell, x, "native")}
    if "eager" in peers:
        sides["eager"] = _training(cell, x, "eager")
    if "torch.nn" in peers and cell_name in _PEERS:
        sides["torch.nn"] = _layer_training(_PEERS[cell_name](inputs, hidden), x)
    sides["product"] = lambda: left @ right
    times: dict[str, list[float]] = {name: [] for name in sides}
    calls = {name: _calls_a_turn(side) for name, side in sides.items()}
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


def _calls_a_turn(side: Callable[[], object]) -> int:
    """As many calls as take a fiftieth of a second; what is done once, such as to compile, is done before."""
    side()
    started = time.perf_counter()
    side()
    return max(1, round(0.02 / (time.perf_counter() - started)))


def _training(cell: Cell, x: Tensor, backend: str) -> Callable[[], object]:
    leaves = [x, *cell.parameters()]
    return lambda: torch.autograd.grad(unroll(cell, x, backend=backend)[0].sum(), leaves)


def _layer_training(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    leaves = [x, *layer.parameters()]
    return lambda: torch.autograd.grad(layer(x)[0].sum(), leaves)
