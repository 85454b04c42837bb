"""The command `unrolled bench`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from unrolled.bench.cases import PEERS, SIZES
from unrolled.cells import CELLS, find_cell
from unrolled.cli.parsing import parse
from unrolled.settings import require, require_choice

if TYPE_CHECKING:
    from unrolled.bench.measure import Timing


@dataclass(frozen=True)
class Arguments:
    """Time a training step of cells in native code, forward and backward, and compare it with other implementations.

    These are torch.nn's layers, the eager loop, torch.compile of that loop (if it compiles within two minutes), and
    JAX's lax.scan (for lstm and gru, if JAX is installed). All are timed alternately in one process, and their medians
    are compared. Run nothing else on the machine at the same time.

    The sizes, as sequence length, batch size, input size and hidden size: S1 25, 1, 64, 100; S2 50, 50, 65, 128;
    S3 64, 32, 128, 256; S4 50, 64, 512, 512; S5 35, 20, 650, 650.
    """

    cells: Annotated[tuple[str, ...], arg(metavar="NAME...")] = tuple(CELLS)
    """Cells to time."""
    sizes: Annotated[tuple[str, ...], arg(metavar="SIZE...")] = tuple(SIZES)
    """Sizes to time, of S1 to S5."""
    against: Annotated[tuple[str, ...], arg(metavar="PEER...")] = ("torch.nn", "eager", "jax")
    """What to compare with: torch.nn, eager, torch.compile, jax."""
    repeats: int = 15
    """How many times each implementation is timed."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Also write the results to this file."""


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    import torch
    from rich.console import Console

    from unrolled.bench.measure import time_cell

    require(arguments.repeats >= 3, "repeats", "at least 3", arguments.repeats)
    for name in arguments.cells:
        find_cell(name)
    for size in arguments.sizes:
        require_choice("sizes", size, tuple(SIZES))
    for peer in arguments.against:
        require_choice("against", peer, PEERS)
    console = Console(stderr=True, highlight=False)
    timings = []
    with console.status("") as status:
        for name in arguments.cells:
            for size in arguments.sizes:
                status.update(f"{name} at {size}")
                timings.append(time_cell(name, size, arguments.against, arguments.repeats))
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.repeats} repeats\n")
    peers = [peer for peer in PEERS if any(peer in timing.seconds for timing in timings)]
    heads = ["cell", "size", "ms", *(f"against {peer}" for peer in peers), "share of a matrix product", "spread"]
    print(f"| {' | '.join(heads)} |")
    print("|---" * len(heads) + "|")
    for timing in timings:
        print(_row(timing, peers))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(t) | {"share": t.share} for t in timings], indent=2) + "\n")
    return 0


def _row(timing: Timing, peers: Sequence[str]) -> str:
    ratios = [timing.ratio(peer) for peer in peers]
    shown = ["" if ratio is None else f"{ratio:.2f}×" for ratio in ratios]
    cells = [f"`{timing.cell}`", timing.size, f"{timing.seconds['native'] * 1e3:.2f}", *shown]
    return f"| {' | '.join(cells)} | {timing.share:.2f} | ±{timing.spread['native'] * 50:.0f}% |"
