"""What the tests of several tasks share."""

from dataclasses import replace

import torch

from unrolled.tasks import load
from unrolled.training import Trainer, open_run


def whole_and_resumed(folder, kind, settings, stop):
    """The task of a run that was never stopped, and that of one that was stopped after some steps and resumed."""
    end, training = settings.training.max_steps, replace(settings.training, lr_schedule="constant")
    for name, stops in (("whole", [end]), ("parts", [stop, end])):
        for number, steps in enumerate(stops):
            now = replace(settings, training=replace(training, max_steps=steps))
            task = kind(open_run(folder / name)) if number else kind.create(folder / name, now)
            Trainer(task, now.training, task.run, resume=number > 0).train()
    return load(folder / "whole", "last"), load(folder / "parts", "last")


def assert_same_weights(one, other):
    ours, theirs = one.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
