"""The commands that train, each a process of its own, killed 60 times in all: the same run as without."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.programs import PATIENCE, started
from tests.training.killed import TASKS, command, go_on
from tests.training.test_killed import compare
from unrolled.training import open_run

pytestmark = pytest.mark.slow

KILLS = 60
RESUMABLE = [task for task in TASKS if task != "min-char-rnn"]
#: `unrolled`, which dies in front of its N-th operation on a file below a path; N = 0: which does not.
DYING = """
import sys
from tests.training.killed import die_at_operation
from unrolled.cli import main
if int(sys.argv[1]):
    die_at_operation(int(sys.argv[1]), sys.argv[2])
sys.exit(main(sys.argv[3:]))
"""


def attempt(words, path, number=0, lines=None):
    """The exit status of the command, killed before an operation or once it has written so many lines of metrics."""
    program = [sys.executable, "-c", DYING, str(number), str(path), *go_on(words, path)]
    metrics, deadline = path / "metrics.jsonl", time.monotonic() + PATIENCE

    def written():
        return metrics.read_bytes().count(b"\n") if metrics.exists() else 0

    before = written()
    with started(program, stdout=subprocess.DEVNULL) as process:
        while lines is not None and process.poll() is None and time.monotonic() < deadline:
            there = (path / "config.json").exists()
            # What a killed process wrote behind its last checkpoint is taken out when the next one begins.
            before = min(before, written())
            if there and written() - before >= lines:
                process.kill()
            time.sleep(0.002)
        _, err = process.communicate(timeout=PATIENCE)
    assert err == "", program
    assert process.returncode in (0, -signal.SIGKILL), program
    return process.returncode


@pytest.mark.parametrize("task", RESUMABLE)
def test_sixty_kills_in_all_change_nothing(tmp_path, task):
    seed = 1 if "CI" in os.environ else random.randrange(1_000_000)
    draw = random.Random(seed)
    words = command(task, tmp_path)
    whole, path = tmp_path / "whole", tmp_path / "parts"
    assert attempt(words, whole) == 0
    kills, ended, steps = 0, [], []
    while kills < KILLS // len(RESUMABLE):
        how = {"number": draw.randrange(1, 150)} if kills % 2 else {"lines": draw.randrange(30) if kills else 0}
        if attempt(words, path, **how):
            kills += 1
            steps.append(
                max((r["step"] for r in open_run(path).metrics()), default=0)
                if path.joinpath("config.json").exists()
                else -1
            )
        else:
            ended.append(path.rename(tmp_path / f"parts-{len(ended)}"))
    assert attempt(words, path) == 0
    print(f"{task}, seed {seed}: killed at steps {steps}")
    for run in (*ended, path):
        compare(open_run(whole), open_run(run))
