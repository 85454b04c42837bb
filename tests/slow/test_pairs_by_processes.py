"""Translation by several processes, as `torchrun` starts them."""

import os
import subprocess
import sys

import pytest

from tests.cli.test_translation import QUICK, SMALL, write_pairs
from unrolled.cli import main
from unrolled.training import Run

pytestmark = pytest.mark.slow


def test_three_processes_train_to_translate_as_one(tmp_path):
    # 49 pairs to train on, in batches of 16: the last holds one, and two processes have none of it.
    words = ["train", "translate", *write_pairs(tmp_path, 50), "--level", "word", *SMALL, *QUICK, "--log-every", "1"]
    words += ["--lr-schedule", "constant", "--max-steps", "12", "--eval-every", "4", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "3", "-m", "unrolled", *words]
    subprocess.run([*command, "--out", str(tmp_path / "three")], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    one, three = (Run.open(tmp_path / name).metrics() for name in ("one", "three"))
    assert len(one) == len(three)
    for expected, found in zip(one, three, strict=True):
        for name in {"loss", "validation_loss", "gradient_norm", "tokens"} & set(expected):
            assert expected[name] == pytest.approx(found[name], rel=1e-4)
    last = str(tmp_path / "three")
    assert main(["train", "translate", "--resume", last, "--max-steps", "16"]) == 0
