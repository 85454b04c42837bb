"""Train every cell on one text with the same settings and print the table of validation losses in docs/cells.md.

    .venv/bin/python benchmarks/train_every_cell.py --data tinyshakespeare/input.txt --steps 1000

Runs go to `--out`, one directory per cell. A finished run is only read; a stopped run is resumed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from unrolled.cells import CELLS
from unrolled.cli import main as unrolled
from unrolled.metrics import bits
from unrolled.tasks.language import LanguageTask
from unrolled.training import Checkpoints, open_run


@dataclass(frozen=True)
class Arguments:
    data: Path
    """Text to train on."""
    steps: int = 1000
    """Updates for each cell."""
    hidden_size: int = 256
    """Hidden size of the one layer."""
    seed: int = 1
    """Seed of every run."""
    cells: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = tuple(CELLS)
    """Cells to train."""
    out: Path = Path("runs/every-cell")
    """Directory of the runs."""


def main() -> None:
    arguments = tyro.cli(Arguments)
    rows = [train(name, arguments) for name in arguments.cells]
    rows.sort(key=lambda row: row[2])
    print(f"\n{arguments.steps} updates, one layer of {arguments.hidden_size} units, seed {arguments.seed}\n")
    print("| cell | parameters | validation nats | bits/char |")
    print("|---|---|---|---|")
    for name, parameters, nats in rows:
        print(f"| `{name}` | {parameters:,} | {nats:.4f} | {bits(nats):.3f} |")


def train(name: str, arguments: Arguments) -> tuple[str, int, float]:
    path = arguments.out / name
    found = Checkpoints(open_run(path)).find("last") if path.exists() else None
    last = found.step if found else 0
    if last < arguments.steps:
        words = ["--resume", str(path)] if last else fresh(name, path, arguments)
        started = time.monotonic()
        code = unrolled(["train", "lm", *words])
        if code:
            raise SystemExit(code)
        print(f"{name}: {time.monotonic() - started:.0f} s")
    task = LanguageTask(open_run(path), "cpu")
    nats = [r["validation_loss"] for r in task.run.metrics() if "validation_loss" in r][-1]
    return name, sum(p.numel() for p in task.model.parameters()), nats


def fresh(name: str, path: Path, arguments: Arguments) -> list[str]:
    sizes = ["--hidden-size", str(arguments.hidden_size), "--num-layers", "1", "--dropout", "0"]
    limits = ["--max-steps", str(arguments.steps), "--eval-every", str(arguments.steps), "--sample-every", "0"]
    return [
        "--data",
        str(arguments.data),
        "--cell",
        name,
        *sizes,
        *limits,
        "--seed",
        str(arguments.seed),
        "--out",
        str(path),
    ]


if __name__ == "__main__":
    main()
