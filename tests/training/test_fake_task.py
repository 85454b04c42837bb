"""The loop apart from what it trains: a fake task of a few lines, whose batches are no tensors and carry a state."""

import dataclasses
import warnings
from itertools import pairwise

import pytest
import torch
from rich.console import Console
from torch import nn

from unrolled.training import Checkpoints, Run, Trainer, TrainingConfig, open_run
from unrolled.training.journal import best_validation
from unrolled.training.processes import Processes


class Sums:
    """Rows of numbers of any length, each with its sum as the target; the state is the number of batches before."""

    def __init__(self, rows):
        self.rows, self.count, self.carries = rows, sum(row is not None for row in rows), True

    def share(self, rank, size):
        return Sums(self.rows[len(self.rows) * rank // size : len(self.rows) * (rank + 1) // size] or [None])

    def parts(self, count):
        cuts = [*range(0, len(self.rows), -(-len(self.rows) // count)), len(self.rows)]
        return [(first, end, Sums(self.rows[first:end])) for first, end in pairwise(cuts)]

    def steps(self):
        return [self]

    def to(self, device):
        return self


class FakeTask:
    """Learns that every weight of a sum is 1, from ragged rows; nothing here knows of text or of recurrent nets."""

    counted, validated = "sums", "loss"

    def __init__(self):
        torch.manual_seed(1)
        self.model, self.states = nn.Linear(4, 1, bias=False), []

    def epoch(self, number):
        draw = torch.Generator().manual_seed(number)
        batches = [Sums([torch.randn(1 + k % 4, generator=draw) for k in range(6)]) for _ in range(5)]
        return type("Pass", (), {"__len__": lambda _: 5, "batch": lambda _, k: batches[k]})()

    def loss(self, batch, state):
        self.states.append(None if state is None else state.flatten().tolist())
        before = torch.zeros(len(batch.rows), 1) if state is None else state
        rows = [row for row in batch.rows if row is not None]
        found = [self.model(nn.functional.pad(row, (0, 4 - len(row)))) - row.sum() for row in rows]
        return torch.stack(found or [0 * self.model.weight.sum(1)]).square().sum(), before + 1

    def layer_groups(self):
        return ()

    def validate(self, step=None):
        return float((self.model.weight - 1).square().mean())

    def preview(self, step):
        return f"weights {self.model.weight.tolist()}"

    def describe(self, loss):
        return f"loss {loss:.4f}"

    describe_validation = describe


def trained(folder, task=None, resume=False, processes=None, **settings):
    settings = {
        "batch_size": 6,
        "learning_rate": 0.05,
        "warmup_steps": 0,
        "eval_every": 4,
        "sample_every": 7,
    } | settings
    config = TrainingConfig(weight_decay=0.0, lr_schedule="constant", **settings)
    if not resume:
        with Run.create(folder, "fake", {"training": dataclasses.asdict(config)}):
            pass
    task = task or FakeTask()
    trainer = Trainer(task, config, open_run(folder), Console(quiet=True), resume, processes)
    return task, trainer.train()


def test_it_learns(tmp_path):
    task, outcome = trained(tmp_path / "run", max_steps=120)
    assert (outcome.reason, outcome.position.step, outcome.position.epoch) == ("finished", 120, 24)
    assert task.validate() < 1e-3
    assert outcome.position.best_loss == pytest.approx(task.validate(), abs=1e-3)
    assert outcome.position.tokens == 720
    records = open_run(tmp_path / "run").metrics()
    assert [record["step"] for record in records if "validation_loss" in record] == list(range(4, 121, 4))
    assert (tmp_path / "run" / "samples.txt").read_text().count("weights [[") == 17


@pytest.mark.parametrize(("validated", "best"), [("loss", 8), ("error rate", 16)])
def test_of_equal_error_rates_the_last_is_the_best_and_of_equal_losses_the_first(tmp_path, validated, best):
    """An error rate stays at 100% while the net learns, and the first checkpoint knows the least."""
    task, values = FakeTask(), iter([2.0, 1.0, 1.5, 1.0, 1.25])
    task.validated, task.validate = validated, lambda step: next(values)
    _, outcome = trained(tmp_path / "run", task, max_steps=20)
    assert (outcome.position.best_step, outcome.position.best_loss) == (best, 1.0)
    assert outcome.position.without_progress == 3
    run = open_run(tmp_path / "run")
    assert Checkpoints(run).find("best").step == best
    scored = [record for record in run.metrics() if "validation_loss" in record]
    assert best_validation(scored, validated)["step"] == best


def test_equal_error_rates_are_no_progress(tmp_path):
    task = FakeTask()
    task.validated, task.validate = "error rate", lambda step: 1.0
    _, outcome = trained(tmp_path / "run", task, max_steps=100, early_stopping=3)
    assert (outcome.reason, outcome.position.step, outcome.position.best_step) == ("early stopping", 16, 16)


def test_the_state_goes_from_batch_to_batch_and_ends_with_the_pass(tmp_path):
    task, _ = trained(tmp_path / "run", max_steps=10)
    assert task.states == [None, *([float(k)] * 6 for k in range(1, 5))] * 2


@pytest.mark.parametrize("stop", [1, 4, 5, 7])
def test_resumed_it_is_as_never_stopped(tmp_path, stop):
    whole, _ = trained(tmp_path / "whole", max_steps=12)
    trained(tmp_path / "parts", max_steps=stop)
    again, outcome = trained(tmp_path / "parts", FakeTask(), resume=True, max_steps=12)
    assert outcome.position.step == 12
    assert torch.equal(whole.model.weight, again.model.weight)
    assert again.states == whole.states[stop:]


@pytest.mark.parametrize("accumulate", [2, 4, 6])
def test_parts_of_a_batch_are_the_batch(tmp_path, accumulate):
    whole, _ = trained(tmp_path / "whole", max_steps=9)
    parts, _ = trained(tmp_path / "parts", max_steps=9, accumulate=accumulate)
    torch.testing.assert_close(parts.model.weight, whole.model.weight)
    assert sorted(map(str, parts.states)) != sorted(map(str, whole.states))
    assert len(parts.states) > len(whole.states)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_shares_of_processes_add_up_to_the_batch(tmp_path, size):
    """Each process reads its rows; the mean of their gradients is that of the whole batch."""
    gradients = []
    for rank, of in ((0, 1), *((rank, size) for rank in range(size))):
        processes = Processes()
        processes.rank, processes.size = rank, of
        with Run.create(tmp_path / f"{rank}-{of}", "fake", {}) as run:
            task = FakeTask()
        trainer = Trainer(task, TrainingConfig(batch_size=6), run, Console(quiet=True), processes=processes)
        trainer._backward(task.epoch(0).batch(0))
        gradients.append(task.model.weight.grad)
    torch.testing.assert_close(sum(gradients[1:]) / size, gradients[0])


def test_the_curve_of_a_run_whose_name_looks_like_mathematics(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(tmp_path / r"$\foo$ 鬱", max_steps=4)
    assert (tmp_path / r"$\foo$ 鬱" / "loss.png").stat().st_size > 10_000
