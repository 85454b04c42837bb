"""The command `unrolled inspect memory`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from unrolled.analysis.figures import save, targets
from unrolled.cells import CELL_NAMES, CELLS, find_cell
from unrolled.cli.parsing import parse
from unrolled.experiments.names import PREVIOUS_INPUT
from unrolled.settings import require, require_choice

if TYPE_CHECKING:
    from unrolled.experiments.memory import MemoryResult


@dataclass(frozen=True)
class Arguments:
    """Train small nets on a memory task and show accuracy against delay for every cell.

    recall: repeat a symbol after a delay. adding: add two marked numbers among many. copying: repeat five symbols after
    a delay. brackets: count the open brackets. alphabet: repeat letters backwards. name: complete "Jane walked into the
    room. John walked in too. ... Jane said hi to", with other words between.

    The cell previous-input sees the previous input in place of its own previous state.
    """

    task: str = "recall"
    """Memory task: recall, adding, copying, brackets, alphabet or name."""
    cells: Annotated[tuple[str, ...], arg(metavar="NAME...", help=f"Cells, of {PREVIOUS_INPUT}, {CELL_NAMES}.")] = (
        *CELLS,
        PREVIOUS_INPUT,
    )
    delays: Annotated[tuple[int, ...], arg(metavar="N...")] = (5, 10, 20, 50, 100)
    """Steps to remember."""
    nets: int = 3
    """Nets for each cell and delay; the results are means over them."""
    hidden_size: int = 32
    """Hidden size."""
    updates: int = 600
    """Maximum number of updates of each net; training ends early once its answers are right."""
    batch_size: int = 32
    """Sequences per update."""
    learning_rate: float = 0.01
    """Learning rate of Adam."""
    open_gates: bool = True
    """Start gates that keep the state, such as an LSTM's forget gate, at a bias of log(delay)."""
    seed: int = 1
    """Seed of the first net's weights and sequences."""
    out: Annotated[Path, arg(metavar="FIGURE")] = Path("memory")
    """Write FIGURE.png and FIGURE.svg."""
    overwrite: bool = False
    """Replace existing files."""


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    from rich.console import Console

    from unrolled.cli.inspecting import print_table
    from unrolled.experiments.memory import average, chance, draw_memory, train_memory
    from unrolled.training.progress import clock

    _check(arguments)
    paths = targets(arguments.out, arguments.overwrite)
    results: list[MemoryResult] = []
    delays = sorted(set(arguments.delays))
    cells = list(dict.fromkeys(arguments.cells))
    console = Console(stderr=True, highlight=False)
    started = time.monotonic()
    work = list(product(cells, delays, range(arguments.seed, arguments.seed + arguments.nets)))
    with console.status("") as status:
        for number, (cell, delay, seed) in enumerate(work, 1):
            status.update(f"{cell}, delay {delay}: net {number} of {len(work)}")
            results.append(
                train_memory(
                    arguments.task,
                    cell,
                    delay,
                    hidden_size=arguments.hidden_size,
                    updates=arguments.updates,
                    batch_size=arguments.batch_size,
                    learning_rate=arguments.learning_rate,
                    keep_bias=math.log(delay) if arguments.open_gates and delay else None,
                    seed=seed,
                )
            )
    rows = [
        [cell, *(f"{mean.accuracy:.3f} ({mean.updates:.0f})" for mean in means.values())]
        for cell, means in average(results).items()
    ]
    print(f"{arguments.task}: accuracy on 1,000 new sequences (updates)")
    print_table(("delay", *map(str, delays)), rows)
    how = "gates that keep start at log(delay)" if arguments.open_gates else "gates start as drawn"
    title = f"{arguments.task}: {arguments.hidden_size} units, {how}; mean of {arguments.nets}"
    save(draw_memory(results, title, chance(arguments.task)), paths)
    print(f"figure {' '.join(map(str, paths))}")
    print(f"took {clock(time.monotonic() - started)}")
    return 0


def _check(arguments: Arguments) -> None:
    from unrolled.experiments.memory import MEMORY_TASKS

    require_choice("task", arguments.task, tuple(MEMORY_TASKS))
    for name in arguments.cells:
        if name != PREVIOUS_INPUT:
            find_cell(name)
    for delay in arguments.delays:
        require(0 <= delay <= 100_000, "delays", "from 0 to 100,000", delay)
    for name, most in (("nets", 1000), ("hidden_size", 4096), ("updates", 1_000_000), ("batch_size", 4096)):
        value = getattr(arguments, name)
        require(1 <= value <= most, name, f"from 1 to {most:,}", value)
    require(0 < arguments.learning_rate <= 1000, "learning_rate", "above 0 and at most 1000", arguments.learning_rate)
    require(0 <= arguments.seed < 1 << 62, "seed", "from 0 to below 2^62", arguments.seed)
    for name in ("cells", "delays"):
        require(bool(getattr(arguments, name)), name, "at least one", "none")
