"""The loop on a tiny task: what stops it, what it keeps, and that going on is the same as never having stopped."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import torch
from filelock import FileLock
from rich.console import Console

from tests.programs import usual_signals
from unrolled.cells import CELLS
from unrolled.data.batch import Stretch
from unrolled.errors import DivergenceError, LostProcessError, RunError
from unrolled.tasks.language import LanguageTask, create_run
from unrolled.tasks.language_settings import LanguageConfig, ModelConfig, StreamTraining, TextConfig
from unrolled.training import Checkpoints, Trainer, TrainingConfig, open_run
from unrolled.training.config import OPTIMIZERS
from unrolled.training.optimisation import clip_gradients, learning_rate, make_optimizer

QUIET = {"eval_every": 1000, "sample_every": 0, "log_every": 1}


@pytest.fixture(autouse=True)
def _signals():
    with usual_signals():
        yield


def make(folder, text_file, model=None, **training):
    training = {"batch_size": 2, "seq_length": 8, "max_steps": 12, **QUIET, **training}
    config = LanguageConfig(
        TextConfig(data=(str(text_file),)),
        ModelConfig(**{"hidden_size": (8,), "num_layers": 1, "embedding_size": 4, "dropout": 0.2, **(model or {})}),
        StreamTraining(**training),
    )
    return create_run(folder, config)


def trainer(task, **options):
    return Trainer(task, task.config.training, task.run, Console(quiet=True), **options)


def run(task):
    return trainer(task).train()


class StoppedAt(LanguageTask):
    """A task that sends this process a signal while step `at` is computed, as a person or a scheduler would."""

    def __init__(self, run, at, number=signal.SIGINT):
        super().__init__(run)
        self.at, self.number, self.calls = at, number, 0

    def loss(self, batch, state):
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), self.number)
        return super().loss(batch, state)


def weights(task):
    return torch.cat([p.detach().flatten() for p in task.model.parameters()])


def test_the_same_seed_gives_the_same_weights(tmp_path, text_file):
    tasks = [make(tmp_path / str(k), text_file, seed=seed) for k, seed in enumerate((3, 3, 4))]
    for task in tasks:
        torch.manual_seed(task.config.training.seed)
        run(LanguageTask(task.run))
    states = [LanguageTask(task.run).load("last") for task in tasks]
    assert torch.equal(weights(states[0]), weights(states[1]))
    assert not torch.equal(weights(states[0]), weights(states[2]))


@pytest.mark.parametrize(
    ("optimizer", "signal_number"), [*((name, signal.SIGINT) for name in OPTIMIZERS), (OPTIMIZERS[-1], signal.SIGTERM)]
)
def test_stopped_and_resumed_is_as_never_stopped(tmp_path, text_file, optimizer, signal_number):
    options = {"optimizer": optimizer, "eval_every": 5, "sample_every": 20, "seq_length": 64, "max_steps": 40}
    run(LanguageTask(make(tmp_path / "whole", text_file, **options).run))
    stopped = StoppedAt(make(tmp_path / "parts", text_file, **options).run, 13, signal_number)
    outcome = run(stopped)
    assert (outcome.reason, outcome.position.step) == ("interrupted", 13)
    again = LanguageTask(open_run(tmp_path / "parts"))
    outcome = trainer(again, resume=True).train()
    assert (outcome.reason, outcome.position.step) == ("finished", 40)
    assert outcome.position.epoch > 0
    whole = LanguageTask(open_run(tmp_path / "whole")).load("last")
    assert torch.equal(weights(again), weights(whole))
    steps = [record["step"] for record in open_run(tmp_path / "parts").metrics() if "loss" in record]
    assert steps == list(range(1, 41))


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_run_at_once(tmp_path, text_file, second):
    ended = []
    before = signal.signal(signal.SIGTERM, lambda *_: ended.append("terminated"))
    task = StoppedAt(make(tmp_path / "run", text_file, max_steps=50).run, 7)
    honest = task.loss

    def loss(*given):
        result = honest(*given)
        if task.calls == 7:
            os.kill(os.getpid(), second)
        return result

    task.loss = loss
    try:
        if second == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                run(task)
            assert not Checkpoints(task.run).folders()
        else:  # what the process would have done without us
            run(task)
            assert ended == ["terminated"]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not list(task.run.path.rglob("*.tmp"))


def test_a_signal_that_is_ignored_stays_ignored(tmp_path, text_file):
    """As SIGINT is in the background of a script; SIGTERM is heard there."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        outcome = run(StoppedAt(make(tmp_path / "ignored", text_file).run, 7))
        assert (outcome.reason, outcome.position.step) == ("finished", 12)
        outcome = run(StoppedAt(make(tmp_path / "heard", text_file).run, 7, signal.SIGTERM))
        assert (outcome.reason, outcome.position.step) == ("interrupted", 7)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("by_torchrun", [False, True])
def test_what_torchrun_ends_can_say_why_first(tmp_path, text_file, monkeypatch, by_torchrun):
    """torchrun sends SIGTERM to all that are left when one process fails, the error of another perhaps still unsaid."""
    if by_torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append("terminated"))
    task = make(tmp_path / "run", text_file)
    task.loss = lambda *given: (_ for _ in ()).throw(RuntimeError("Connection closed by peer"))
    task_run = trainer(task)
    monkeypatch.setattr(task_run.processes, "size", 2)
    with pytest.raises(LostProcessError, match="another process of this training was lost at step 1"):
        task_run.train()
    os.kill(os.getpid(), signal.SIGTERM)
    assert ended == ([] if by_torchrun else ["terminated"])


def test_torchrun_may_pass_on_a_signal_twice(tmp_path, text_file, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    task = StoppedAt(make(tmp_path / "run", text_file, max_steps=50).run, 7)
    honest = task.loss
    task.loss = lambda *given: (honest(*given), os.kill(os.getpid(), signal.SIGINT) if task.calls == 7 else None)[0]
    outcome = run(task)
    assert (outcome.reason, outcome.position.step) == ("interrupted", 7)
    assert Checkpoints(task.run).find("last").step == 7


@pytest.mark.parametrize("cell", ["lstm", "gru", "pascanu"])
def test_the_carried_state_is_part_of_the_checkpoint(tmp_path, text_file, cell):
    options = {"model": {"cell": cell, "num_layers": None, "hidden_size": (5, 7)}, "max_steps": 12}
    run(LanguageTask(make(tmp_path / "whole", text_file, **options).run))
    run(StoppedAt(make(tmp_path / "parts", text_file, **options).run, 7))
    again = LanguageTask(open_run(tmp_path / "parts"))
    resumed = trainer(again, resume=True)
    assert resumed.carried is not None
    resumed.train()
    assert torch.equal(weights(again), weights(LanguageTask(open_run(tmp_path / "whole")).load("last")))


def test_limits(tmp_path, text_file):
    assert run(make(tmp_path / "steps", text_file, max_steps=3)).position.step == 3
    done = run(make(tmp_path / "epochs", text_file, max_steps=None, epochs=2.0, seq_length=64))
    assert (done.position.epoch, done.position.chunk) == (2, 0)
    timed = run(make(tmp_path / "time", text_file, max_steps=None, max_time="0.3s"))
    assert timed.position.seconds >= 0.3
    assert timed.position.step > 0


def test_early_stopping(tmp_path, text_file):
    task = make(
        tmp_path / "run", text_file, max_steps=None, epochs=1e6, eval_every=1, early_stopping=3, learning_rate=1e-9
    )
    losses = iter([3.0, 2.0, 2.5, 2.1, 2.0])
    task.validate = lambda step: next(losses)
    outcome = run(task)
    assert (outcome.reason, outcome.position.step, outcome.position.best_step) == ("early stopping", 5, 2)
    checkpoints = Checkpoints(task.run)
    assert (checkpoints.find("best").step, checkpoints.find("last").step) == (2, 5)
    assert {p.name for p in checkpoints.folder.iterdir()} == {f"step-0000000{step}" for step in (2, 3, 4, 5)}


def test_a_run_directory_holds_what_it_promises(tmp_path, text_file):
    task = make(tmp_path / "run", text_file, max_steps=6, eval_every=3, sample_every=2)
    run(task)
    names = {path.name for path in task.run.path.iterdir()}
    promised = {"config.json", "vocabulary.json", "tokens.bin", "tokens.json", "checkpoints", "metrics.jsonl"}
    assert promised | {"samples.txt", "tensorboard", "loss.png"} <= names
    assert (task.run.path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list((task.run.path / "tensorboard").glob("events.out.tfevents.*"))
    assert (task.run.path / "samples.txt").read_text(encoding="utf-8").count("--- step") == 3
    assert not list(task.run.path.rglob("*.tmp"))
    records = task.run.metrics()
    assert [r["step"] for r in records if "validation_loss" in r] == [3, 6]
    assert set(records[0]) == {"step", "epoch", "seconds", "loss", "learning_rate", "gradient_norm", "tokens"}


def test_a_loss_that_is_no_number_stops_with_advice(tmp_path, text_file):
    task = make(tmp_path / "run", text_file, eval_every=2)
    honest = task.loss

    def breaks_at_step_four(batch, state):
        loss, state = honest(batch, state)
        return loss * (float("nan") if steps.position.step == 3 else 1), state

    task.loss = breaks_at_step_four
    steps = trainer(task)
    with pytest.raises(DivergenceError, match=r"nan at step 4; the last good checkpoint is from step 2; try `resume="):
        steps.train()
    assert all(p.isfinite().all() for p in LanguageTask(task.run).load("last").model.parameters())


def test_two_at_once_cannot_train_one_run(tmp_path, text_file):
    path = tmp_path / "run"
    run(StoppedAt(make(path, text_file).run, 7))
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    second = trainer(LanguageTask(open_run(path)), resume=True)
    with FileLock(path / ".lock"), pytest.raises(RunError, match="another process"):
        second.train()
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_settings_given_anew_reach_the_optimizer(tmp_path, text_file):
    task = StoppedAt(make(tmp_path / "run", text_file, weight_decay=0.1).run, 7)
    run(task)
    config = dataclasses.replace(task.config.training, weight_decay=0.5)
    resumed = Trainer(LanguageTask(task.run), config, task.run, Console(quiet=True), resume=True)
    assert resumed.optimizer.param_groups[0]["weight_decay"] == 0.5
    assert resumed.optimizer.state


def test_weights_that_are_no_numbers_are_not_saved(tmp_path, text_file):
    task = make(tmp_path / "run", text_file, max_steps=3)

    def break_the_weights(step):
        task.model.readout.weight.data.fill_(float("inf"))

    task.validate = break_the_weights
    with pytest.raises(DivergenceError, match="a weight became infinite or NaN at step 3"):
        run(task)
    assert not Checkpoints(task.run).folders()


def test_truncation_is_settable_apart_from_the_carried_state(tmp_path, text_file):
    """Gradients of the first embedding row, read at step 0, must vanish beyond the backward length."""
    options = {"batch_size": 1, "seq_length": 8, "weight_decay": 0.0}
    for backward_length, reaches in ((0, True), (8, True), (4, False)):
        task = make(tmp_path / f"b{backward_length}", text_file, backward_length=backward_length, **options)
        loop = trainer(task)
        tokens = torch.arange(8).unsqueeze(1)
        honest = task.loss
        task.loss = lambda batch, state, honest=honest: scale_to_last(honest, batch, state)
        task.model.train(False)
        loop._backward(Stretch(tokens, tokens, backward_length, carry_state=True))
        assert bool(task.model.embedding.weight.grad[0].abs().sum() > 0) == reaches
        assert loop.carried is not None
    for carry in (True, False):
        task = make(tmp_path / f"c{carry}", text_file, carry_state=carry, **options)
        seen = []
        honest = task.loss
        task.loss = lambda batch, state, honest=honest, seen=seen: (seen.append(state), honest(batch, state))[1]
        run(task)
        assert seen[0] is None
        assert all((state is not None) == carry for state in seen[1:10])


def scale_to_last(honest, batch, state):
    """The loss of token 7's prediction alone."""
    if 7 not in batch.inputs:
        _, state = honest(batch, state)
        return state[0].sum() * 0.0, state
    return honest(dataclasses.replace(batch, targets=torch.where(batch.targets == 7, 7, -1)), state)


def test_the_state_never_crosses_a_streams_end(tmp_path, text_file):
    task = make(tmp_path / "run", text_file, max_steps=None, epochs=2.0, seq_length=512)
    honest, seen = task.loss, []
    task.loss = lambda batch, state: (seen.append(state is None), honest(batch, state))[1]
    run(task)
    chunks = [len(task.epoch(k)) for k in (0, 1)]
    assert seen == [k == 0 for count in chunks for k in range(count)]


def test_every_optimizer_by_name_and_no_decay_of_biases():
    model = CELLS["lstm"](3, 4)
    kinds = {}
    for name in OPTIMIZERS:
        optimizer = make_optimizer(model, TrainingConfig(optimizer=name, weight_decay=0.1, learning_rate=0.5))
        kinds[name] = type(optimizer).__name__
        assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
        assert optimizer.param_groups[1]["params"] == [model.bias]
        assert optimizer.param_groups[0]["lr"] == 0.5
    assert kinds == {
        "sgd": "SGD",
        "momentum": "SGD",
        "adagrad": "Adagrad",
        "rmsprop": "RMSprop",
        "adam": "Adam",
        "adamw": "AdamW",
    }


@pytest.mark.parametrize(
    ("schedule", "arguments", "expected"),
    [
        ("constant", (500, 3.0, 0.5, 4), 1.0),
        ("constant", (4, 0.0, 0.0, 0), 0.5),
        ("cosine", (500, 3.0, 0.0, 0), 1.0),
        ("cosine", (500, 3.0, 0.5, 0), 0.505),
        ("cosine", (500, 3.0, 1.0, 0), 0.01),
        ("step", (500, 1.9, 0.5, 0), 1.0),
        ("step", (500, 4.1, 0.5, 0), 0.25),
        ("plateau", (500, 9.0, 0.5, 3), 0.125),
    ],
)
def test_schedules(schedule, arguments, expected):
    config = TrainingConfig(learning_rate=1.0, lr_schedule=schedule, lr_decay_every=2.0, warmup_steps=10)
    assert learning_rate(config, *arguments) == pytest.approx(expected)


def test_plateau_decay_follows_the_validations(tmp_path, text_file):
    task = make(
        tmp_path / "run",
        text_file,
        max_steps=9,
        eval_every=1,
        lr_schedule="plateau",
        lr_patience=2,
        warmup_steps=0,
        learning_rate=1e-3,
    )
    losses = iter([3.0, 3.1, 3.1, 3.1, 3.1, 2.0, 2.1, 2.1, 2.1])
    task.validate = lambda step: next(losses)
    run(task)
    rates = [r["learning_rate"] for r in task.run.metrics() if "learning_rate" in r]
    np.testing.assert_allclose(rates, [1e-3 * f for f in (1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125)])


def test_clipping_by_norm_and_by_value():
    model = torch.nn.Linear(3, 1, bias=False)
    for options, expected in (
        ({"clip_norm": 0.0}, [3.0, 4.0, 0.0]),
        ({"clip_norm": 1.0}, [0.6, 0.8, 0.0]),
        ({"clip_norm": 10.0}, [3.0, 4.0, 0.0]),
        ({"clip_norm": 0.0, "clip_value": 3.5}, [3.0, 3.5, 0.0]),
    ):
        model.weight.grad = torch.tensor([[3.0, 4.0, 0.0]])
        assert clip_gradients(model, TrainingConfig(**options)) == pytest.approx(5.0)
        torch.testing.assert_close(model.weight.grad, torch.tensor([expected]))


def test_metrics_with_a_torn_last_line_are_readable(tmp_path, text_file):
    task = make(tmp_path / "run", text_file, max_steps=3)
    run(task)
    path = task.run.metrics_path
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines) + '\n{"step": 4, "lo')
    assert [json.loads(line) for line in lines] == task.run.metrics()
    path.write_text('{"st\n' + "\n".join(lines))
    with pytest.raises(RunError, match=r"metrics\.jsonl:1"):
        task.run.metrics()
