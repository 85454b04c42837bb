"""Checks that take minutes: `make test-slow`."""

import subprocess
import sys

import pytest

from unrolled.cli import main
from unrolled.tasks.language import LanguageTask
from unrolled.training import Run

pytestmark = pytest.mark.slow


def test_two_gigabytes_are_encoded_in_200_megabytes(tmp_path, shakespeare):
    script = f"""
import time
from pathlib import Path
from unrolled.data import build_vocabulary, encode_files
source, path = Path({str(shakespeare)!r}).read_text(), Path({str(tmp_path / "large.txt")!r})
with path.open("w") as file:
    while file.tell() < 2_000_000_000:
        file.write(source[file.tell() % 9973 :])
started = time.monotonic()
vocabulary = build_vocabulary("char", [path])
encoded = encode_files([path], vocabulary, path.with_suffix(".bin"))
print(encoded.count / 1e6 / (time.monotonic() - started), "million characters a second")
assert encoded.count == path.stat().st_size
# Not getrusage: its maximum is that of the process that started this one, where that was larger.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    print(done.stdout)
    assert float(done.stdout.splitlines()[-1]) < 200


def test_tinyshakespeare_is_learned(tmp_path, shakespeare):
    out = str(tmp_path / "run")
    assert (
        main(["train", "lm", "--data", str(shakespeare), "--max-steps", "700", "--sample-every", "0", "--out", out])
        == 0
    )
    best = min(r["validation_loss"] for r in LanguageTask(Run.open(out)).run.metrics() if "validation_loss" in r)
    assert best < 1.85  # 1.794 was measured
