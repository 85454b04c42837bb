"""The number of threads is a matter of speed: order of data, rates and updates are the same with any."""

import pytest
import torch

from tests.training.test_loop import make, run
from unrolled.tasks.language import LanguageTask
from unrolled.training import TrainingConfig
from unrolled.training.config import OPTIMIZERS
from unrolled.training.optimisation import clip_gradients, make_optimizer


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_updates_are_the_same_bit_for_bit(optimizer):
    found = []
    config = TrainingConfig(optimizer=optimizer, weight_decay=0.1, clip_norm=0.5, clip_value=0.01)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        model = torch.nn.Linear(512, 300)
        stepper = make_optimizer(model, config)
        for _ in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            norm = clip_gradients(model, config)
            stepper.step()
        found.append((norm, [parameter.detach().clone() for parameter in model.parameters()]))
    for norm, parameters in found[1:]:
        assert norm == found[0][0]
        assert all(torch.equal(now, then) for now, then in zip(parameters, found[0][1], strict=True))


def test_data_and_rates_are_the_same(tmp_path, text_file):
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        task = make(tmp_path / str(threads), text_file, max_steps=None, epochs=2.0, seq_length=64, batch_size=3)
        seen = []
        task.loss = lambda batch, state, task=task, seen=seen: (
            seen.append((batch.inputs.tolist(), batch.targets.tolist())),
            LanguageTask.loss(task, batch, state),
        )[1]
        run(task)
        records = [record for record in task.run.metrics() if "loss" in record]
        found.append((seen, [record["learning_rate"] for record in records], [record["loss"] for record in records]))
    for seen, rates, losses in found[1:]:
        assert seen == found[0][0]
        assert rates == found[0][1]
        assert losses == pytest.approx(found[0][2], rel=1e-5)
