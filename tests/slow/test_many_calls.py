"""A hundred thousand calls with changing settings, sizes and lengths: memory and the cache stay bounded."""

import random
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from unrolled.unroll import known, planned, unroll

CALLS, SETTLED = 100_000, 30_000


class Changing(nn.Module):
    """Reads a float that is computed with, a number that is counted with, and one inside a dictionary."""

    def __init__(self, size):
        super().__init__()
        self.i, self.h = nn.Linear(3, size), nn.Linear(size, size)
        self.temperature, self.power, self.settings = 1.0, 1, {"slope": 1.0}

    def forward(self, x, h):
        new = torch.tanh(self.temperature * self.i(x) + self.settings["slope"] * self.h(h))
        for _ in range(self.power):
            new = new * new
        return new


def resident():
    """The memory of this process that is not on disk, in bytes."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_hundred_thousand_calls(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path))
    draw = random.Random(0)
    cells = [Changing(size) for size in range(1, 9)]
    seen = {}
    for number in range(CALLS):
        cell = draw.choice(cells)
        cell.temperature = 1 - number / CALLS
        cell.power = draw.choice([0, 1, 2])
        cell.settings["slope"] = draw.choice([0.5, 1.0])
        steps, batch = draw.randint(1, 3), draw.randint(1, 2)
        x, h = torch.randn(steps, batch, 3), torch.zeros(batch, cell.h.out_features)
        lengths = draw.choice([None, [draw.randint(0, steps) for _ in range(batch)]])
        with torch.no_grad():
            made, _ = unroll(cell, x, h, lengths=lengths)
            if number % 500 == 0:
                expected, _ = unroll(cell, x, h, lengths=lengths, backend="eager")
                torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)
        if number in (SETTLED, CALLS - 1):
            files = list(tmp_path.iterdir())
            seen[number] = resident(), len(planned._planned), len(files), sum(path.stat().st_size for path in files)
    first, last = seen[SETTLED], seen[CALLS - 1]
    with capsys.disabled():
        print(f"\nmemory {first[0] / 1e6:.0f} -> {last[0] / 1e6:.0f} MB, plans {first[1]} -> {last[1]}, ", end="")
        print(f"cache {first[2]} files, {first[3] / 1e6:.1f} MB -> {last[2]} files, {last[3] / 1e6:.1f} MB")
    assert last[0] - first[0] < 20e6
    assert last[1] <= known.MOST_PLANS
    assert last[2:] == first[2:]
