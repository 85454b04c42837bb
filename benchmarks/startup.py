"""The time of short commands, next to Python alone and `import torch`: python benchmarks/startup.py

Every command is a new process. The commands run alternately, so that a machine that becomes slower affects all of them.
The first round, which reads files from the disk, is left out. The table shows the median, the quartiles in brackets,
and the median processor time.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def trained(folder: Path) -> Path:
    """Train a run of the default size, which users try first, on the source of this package."""
    text, run = folder / "text.txt", folder / "runs" / "lm"
    text.write_text("".join(path.read_text("utf-8") for path in sorted((ROOT / "unrolled").rglob("*.py"))), "utf-8")
    command = [sys.executable, "-m", "unrolled", "train", "lm", "--data", text, "--out", run]
    subprocess.run([*command, "--max-steps", "5", "--sample-every", "0"], check=True, stdout=subprocess.DEVNULL)
    return run


def timed(command: list[str]) -> tuple[float, float]:
    """Run one process and return its wall-clock and processor seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="how many times each command is timed")
    rounds = parser.parse_args().rounds
    os.environ["PYTHONPATH"] = str(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        run = trained(Path(folder))
        unrolled = [sys.executable, "-m", "unrolled"]
        commands = {
            'python -c ""': [sys.executable, "-c", ""],
            'python -c "import torch"': [sys.executable, "-c", "import torch"],
            "unrolled --help": [*unrolled, "--help"],
            "unrolled train lm --help": [*unrolled, "train", "lm", "--help"],
            "unrolled runs DIR": [*unrolled, "runs", str(run.parent)],
            "unrolled info RUN": [*unrolled, "info", str(run)],
            "unrolled sample RUN --length 50": [*unrolled, "sample", str(run), "--length", "50"],
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for round in range(rounds + 1):
            for name, command in commands.items():
                seconds = timed(command)
                if round:
                    found[name].append(seconds)
    print(f"{'':32} {'seconds':>18} {'processor':>10}")
    for name, times in found.items():
        low, middle, high = statistics.quantiles([seconds for seconds, _ in times], n=4)
        processor = statistics.median(seconds for _, seconds in times)
        print(f"{name:32} {middle:5.2f} ({low:.2f} to {high:.2f}) {processor:9.2f}")


if __name__ == "__main__":
    main()
