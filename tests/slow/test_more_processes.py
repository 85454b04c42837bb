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


def by_processes(count, words, code=0, **environment):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "-m", "unrolled", *words]
    done = completed(command, env={**os.environ, "OMP_NUM_THREADS": "1", **environment})
    assert done.returncode == code, done.stderr
    return done


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


def test_the_first_process_decides_for_all_whether_a_cell_is_trusted(tmp_path, text_file):
    source, run, states = tmp_path / "cells.py", tmp_path / "run", [tmp_path / "mine", tmp_path / "theirs"]
    source.write_text("import torch\nclass Own(torch.nn.GRUCell):\n    pass\n")
    words = ["train", "lm", "--data", str(text_file), *WORDS, "--cell", f"{source}:Own", "--out", str(run)]
    by_processes(2, [*words, "--max-steps", "2"], UNROLLED_STATE=str(states[0]))
    source.unlink()
    go_on = ["train", "lm", "--resume", str(run), "--max-steps", "4"]
    refused = by_processes(2, go_on, 1, UNROLLED_STATE=str(states[1]))
    assert refused.stderr.count("unrolled: error:") == refused.stderr.count("add --trust to run it") == 1
    by_processes(2, [*go_on, "--trust"], UNROLLED_STATE=str(states[1]))
    assert open_run(run).metrics()[-1]["step"] == 4
    for state in states:
        assert len([path for path in state.rglob("*") if path.is_file()]) == 1


def test_three_processes_train_to_translate_as_one(tmp_path):
    # 49 pairs to train on, in batches of 16: the last holds one, and two processes have none of it.
    words = ["train", "translate", *write_pairs(tmp_path, 50), "--level", "word", *SMALL, *QUICK, "--log-every", "1"]
    words += ["--lr-schedule", "constant", "--max-steps", "12", "--eval-every", "4", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    by_processes(3, [*words, "--out", str(tmp_path / "three")])
    same_losses(tmp_path / "one", tmp_path / "three")
    last = str(tmp_path / "three")
    assert main(["train", "translate", "--resume", last, "--max-steps", "16"]) == 0
