"""The overhead for cells that the engine cannot compile: the time of `unroll` over a loop's, after the first call.

    python benchmarks/fallback.py [--steps 50] [--batch 8] [--repeats 40]

The script times ten cells, each of which fails to compile for another reason, forward and backward, in one thread. The
two sides run alternately. The result is the median of the ratios, pair by pair, with their quartiles in brackets.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional

from unrolled import unroll
from unrolled.errors import FallbackWarning

INPUTS, H = 32, 64


class Plain(nn.Module):
    """The two products that the cells below share."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.h = nn.Linear(INPUTS, H), nn.Linear(H, H)

    def mixed(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(self.i(x) + self.h(h))


class Branches(Plain):
    def forward(self, x, h):
        new = self.mixed(x, h)
        return new if float(new.detach().sum()) > 0 else 0.5 * new


class Counts(Plain):
    steps = 0

    def forward(self, x, h):
        self.steps += 1
        return self.mixed(x, h)


class Draws(Plain):
    def forward(self, x, h):
        return self.mixed(x, h) if random.random() < 0.9 else h


class Keeps(Plain):
    def forward(self, x, h):
        self.last = self.mixed(x, h)
        return self.last


class Hooked(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.i.register_forward_hook(lambda module, given, made: 2 * made)

    def forward(self, x, h):
        return self.mixed(x, h)


class Drops(Plain):
    """Dropout that draws another mask at every step."""

    def forward(self, x, h):
        return functional.dropout(self.mixed(x, h), 0.1)


class Normalises(Plain):
    """Batch normalisation, with statistics over all sequences (Cooijmans et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(H)

    def forward(self, x, h):
        return torch.tanh(self.norm(self.i(x) + self.h(h)))


class Attends(Plain):
    """Soft attention over a learned memory (after Xu et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.Parameter(torch.randn(12, H) / 8)

    def forward(self, x, h):
        weights = torch.softmax(torch.tanh(h.unsqueeze(1) + self.memory).sum(-1), -1)
        return self.mixed(x, h + weights @ self.memory)


class Convolves(nn.Module):
    """A convolution over the units, like a flattened ConvLSTM (Shi et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.h = nn.Linear(INPUTS, H), nn.Conv1d(1, 1, 5, padding=2)

    def forward(self, x, h):
        return torch.tanh(self.i(x) + self.h(h.unsqueeze(1)).squeeze(1))


class Writes(Plain):
    """A cell that writes into a part of its new state."""

    def forward(self, x, h):
        mixed = self.i(x) + self.h(h)
        mixed[:, : H // 2] = h[:, : H // 2]
        return torch.tanh(mixed)


CELLS = (Branches, Counts, Draws, Keeps, Hooked, Drops, Normalises, Attends, Convolves, Writes)


def loop(cell: nn.Module, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    outputs = []
    for t in range(len(x)):
        h = cell(x[t], h)
        outputs.append(h)
    return torch.stack(outputs), h


def seconds(run, cell: nn.Module, x: Tensor, h: Tensor) -> float:
    cell.zero_grad()
    start = time.perf_counter()
    outputs, _ = run(cell, x, h)
    outputs.square().mean().backward()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=40)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, h = torch.randn(given.steps, given.batch, INPUTS), torch.zeros(given.batch, H)
    print(f"T {given.steps}, B {given.batch}, I {INPUTS}, H {H}: unroll / loop, forward and backward, one thread")
    for kind in CELLS:
        cell = kind()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", FallbackWarning)
            first = seconds(unroll, cell, x, h)
        fell_back = any(issubclass(each.category, FallbackWarning) for each in said)
        loop(cell, x, h)
        ratios = []
        for number in range(given.repeats):
            sides = [unroll, loop] if number % 2 else [loop, unroll]
            took = {side: seconds(side, cell, x, h) for side in sides}
            ratios.append(took[unroll] / took[loop])
        low, median, high = statistics.quantiles(ratios, n=4)
        note = "" if fell_back else "  (compiled!)"
        print(f"{kind.__name__:12s} {median:.3f}  ({low:.3f} to {high:.3f})  first call {first:.2f} s{note}")


if __name__ == "__main__":
    main()
