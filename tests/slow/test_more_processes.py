"""More processes, as `torchrun` starts them."""

import os
import sys

import pytest

from tests.cli.test_translation import QUICK, SMALL, write_pairs
from tests.programs import completed
from tests.training.test_processes import WORDS
from unrolled.cli import main
from unrolled.training import open_run

pytestmark = pytest.mark.slow


def by_processes(count, words):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "-m", "unrolled", *words]
    done = completed(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr


def same_losses(one, many):
    one, many = open_run(one).metrics(), open_run(many).metrics()
    assert len(one) == len(many)
    for expected, found in zip(one, many, strict=True):
        for name in {"loss", "validation_loss", "gradient_norm", "tokens"} & set(expected):
            assert expected[name] == pytest.approx(found[name], rel=1e-4)


def test_more_processes_go_on_from_fewer(tmp_path, text_file):
    words = ["train", "lm", "--data", str(text_file), *WORDS, "--lr-schedule", "constant", "--eval-every", "40"]
    assert main([*words, "--max-steps", "120", "--out", str(tmp_path / "one")]) == 0
    assert main([*words, "--max-steps", "40", "--out", str(tmp_path / "many")]) == 0
    for count, steps in ((2, "80"), (3, "120")):
        by_processes(count, ["train", "lm", "--resume", str(tmp_path / "many"), "--max-steps", steps])
    same_losses(tmp_path / "one", tmp_path / "many")


def test_three_processes_train_to_translate_as_one(tmp_path):
    # 49 pairs to train on, in batches of 16: the last holds one, and two processes have none of it.
    words = ["train", "translate", *write_pairs(tmp_path, 50), "--level", "word", *SMALL, *QUICK, "--log-every", "1"]
    words += ["--lr-schedule", "constant", "--max-steps", "12", "--eval-every", "4", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    by_processes(3, [*words, "--out", str(tmp_path / "three")])
    same_losses(tmp_path / "one", tmp_path / "three")
    last = str(tmp_path / "three")
    assert main(["train", "translate", "--resume", last, "--max-steps", "16"]) == 0
