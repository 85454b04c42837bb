"""Batches of trees are shared among processes, and read in parts, as any other batch."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.test_train_tree import SMALL, tree
from tests.programs import completed
from tests.tasks.test_translation_task import gradients
from unrolled.cli import main
from unrolled.tasks.sentiment import SentimentTask
from unrolled.tasks.sentiment_settings import SentimentConfig, TreeConfig, TreeModelConfig


@pytest.fixture
def trees(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for name, count in (("train", 60), ("dev", 20)):
        made = [tree(generator, generator.choice(["good", "bad"], generator.integers(1, 7))) for _ in range(count)]
        Path(f"{name}.txt").write_text("\n".join(made) + "\n")
    return tmp_path


@pytest.mark.parametrize("count", [2, 20])
def test_parts_and_shares_of_a_batch_add_up_to_it(trees, count):
    """Also where a batch is so small that one of three processes has no tree of its own."""
    config = SentimentConfig(TreeConfig(data="."), TreeModelConfig(hidden_size=5, embedding_size=4, dropout=0.0))
    task = SentimentTask.create(trees / "run", config)
    batch = task.epoch(0).batch(0).rows(0, count)
    loss, whole = gradients(task, batch)
    for accumulate in (1, 2):
        shares = [gradients(task, batch, 3, rank, accumulate) for rank in range(3)]
        assert sum(part == 0 for part, _ in shares) == max(0, 3 - count)
        assert sum(part for part, _ in shares) == pytest.approx(loss, rel=1e-5)
        for expected, *parts in zip(whole, *(found for _, found in shares), strict=True):
            torch.testing.assert_close(sum(parts), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_processes_train_trees_as_one(trees):
    words = ["train", "tree", "--data", ".", *SMALL, "--max-steps", "12", "--log-every", "1", "--device", "cpu"]
    assert main([*words, "--out", "one"]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "unrolled", *words]
    assert "2 processes" in completed([*torchrun, "--out", "two"], check=True).stdout
    one, two = (
        [json.loads(line) for line in (trees / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert len(one) == len(two) > 12
    for expected, found in zip(one, two, strict=True):
        for name in {"loss", "validation_loss", "gradient_norm"} & set(expected):
            assert found[name] == pytest.approx(expected[name], rel=1e-4)
