"""Checks that take minutes: `make test-slow`."""

import os
import random
import sys

import pytest

from tests.programs import completed
from unrolled.cli import main
from unrolled.data import TokenFile
from unrolled.tasks.language import LanguageTask
from unrolled.training import open_run

pytestmark = pytest.mark.slow


REPORT = """
import resource, sys, time
from pathlib import Path
from unrolled.cli import main
started = time.monotonic()
code = main(sys.argv[1:])
# Not getrusage: its maximum is that of the process that started this one, where that was larger.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print("peak", int(peak.split()[1]) / 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
print("seconds", time.monotonic() - started)
sys.exit(code)
"""


def test_two_gigabytes_are_encoded_and_trained_in_one_and_a_half(tmp_path, shakespeare):
    source, path = shakespeare.read_text(), tmp_path / "large.txt"
    draw = random.Random(1)
    with path.open("w") as file:
        while file.tell() < 2_000_000_000:
            start = draw.randrange(len(source) // 2)
            file.write(source[start:].replace(draw.choice("aeiou"), draw.choice("aeiou")))
    environment = {**os.environ, "UNROLLED_CACHE": str(tmp_path / "cache")}
    model = ["--hidden-size", "8", "--num-layers", "1", "--embedding-size", "4", "--eval-every", "1000"]
    words = ["train", "lm", "--data", str(path), "--batch-size", "256", "--seq-length", "512", *model]
    peaks, seconds = [], []
    for steps, out in (("1", "first"), ("400", "cached")):
        command = [sys.executable, "-c", REPORT, *words, "--max-steps", steps, "--sample-every", "0"]
        command += ["--out", str(tmp_path / out)]
        done = completed(command, patience=3600, check=True, env=environment)
        peak, taken = done.stdout.splitlines()[-2:]
        peaks += [float(number) for number in peak.split()[1:]]
        seconds.append(float(taken.split()[1]))
        print(out, peak, taken, f"{path.stat().st_size / 1e6 / seconds[-1]:.0f} MB/s")
    assert TokenFile.open(tmp_path / "first" / "tokens.bin").count == path.stat().st_size
    assert max(peaks) < 1500


def test_memory_does_not_grow_over_fifty_thousand_steps(tmp_path, text_file):
    script = f"""
from pathlib import Path
from rich.console import Console
from unrolled.tasks.language import create_run
from unrolled.tasks.language_settings import *
from unrolled.training import Trainer
model = ModelConfig(hidden_size=(8,), num_layers=1, embedding_size=4)
training = StreamTraining(batch_size=2, seq_length=8, max_steps=50_000, eval_every=2000, sample_every=2000)
config = LanguageConfig(TextConfig(data=({str(text_file)!r},)), model, training)
task = create_run(Path({str(tmp_path / "run")!r}), config)
honest, calls = task.loss, 0
def loss(*given):
    global calls
    calls += 1
    if calls % 10_000 == 0:
        status = Path("/proc/self/status").read_text()
        print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")), flush=True)
    return honest(*given)
task.loss = loss
Trainer(task, training, task.run, Console(quiet=True)).train()
"""
    one = {**os.environ, "OMP_NUM_THREADS": "1"}  # a second thread only waits, with so little to do
    done = completed([sys.executable, "-c", script], patience=3600, check=True, env=one)
    resident = [int(line) / 1024 for line in done.stdout.split()]
    print(resident)
    assert len(resident) == 5
    assert resident[-1] - resident[0] < 10


def test_tinyshakespeare_is_learned(tmp_path, shakespeare):
    out = str(tmp_path / "run")
    assert (
        main(["train", "lm", "--data", str(shakespeare), "--max-steps", "700", "--sample-every", "0", "--out", out])
        == 0
    )
    best = min(r["validation_loss"] for r in LanguageTask(open_run(out)).run.metrics() if "validation_loss" in r)
    assert best < 1.85  # 1.794 was measured
