"""Memory and time of a training step over a long sequence, in one piece and with recomputation in pieces.

    python benchmarks/long_sequences.py [--steps 20000] [--batch 8] [--hidden 256] [--every 141] [--cell lstm]

The two sides run alternately, each in its own process. Memory is the process's peak during the step, minus the peak
before it.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path


def peak() -> int:
    """Return the peak memory of this process, in bytes."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def measure(cell_name: str, steps: int, batch: int, hidden: int, every: int | None, repeats: int) -> dict:
    import torch

    from unrolled.cells import find_cell
    from unrolled.unroll import unroll

    cell = find_cell(cell_name)(hidden, hidden)
    short = torch.randn(10, batch, hidden, requires_grad=True)
    unroll(cell, short)[0].sum().backward()  # compiles
    x = torch.randn(steps, batch, hidden, requires_grad=True)
    before, times = peak(), []
    for _ in range(repeats):
        cell.zero_grad()
        x.grad = None
        started = time.perf_counter()
        unroll(cell, x, recompute_every=every)[0].sum().backward()
        times.append(time.perf_counter() - started)
    return {"memory": peak() - before, "seconds": statistics.median(times)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", default="lstm")
    for name, value in {"steps": 20_000, "batch": 8, "hidden": 256, "every": 141, "rounds": 3, "repeats": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--one", choices=["whole", "pieces"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        every = given.every if given.one == "pieces" else None
        print(json.dumps(measure(given.cell, given.steps, given.batch, given.hidden, every, given.repeats)))
        return
    found: dict[str, list[dict]] = {"whole": [], "pieces": []}
    for _ in range(given.rounds):
        for side, results in found.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--one", side]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    middle = {
        side: {key: statistics.median(result[key] for result in results) for key in results[0]}
        for side, results in found.items()
    }
    for side, result in middle.items():
        print(f"{side}: {result['memory'] / 1e6:,.0f} MB, {result['seconds']:.2f} s")
    ratios = {key: middle["pieces"][key] / middle["whole"][key] for key in ("memory", "seconds")}
    print(
        f"pieces of {given.every} steps: {ratios['memory']:.2f} of the memory, {ratios['seconds']:.2f} times the time"
    )


if __name__ == "__main__":
    main()
