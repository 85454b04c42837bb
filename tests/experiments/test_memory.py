"""Memory tasks: what each asks, answered here by plain code; and which nets can learn them."""

import math

import pytest
import torch

from unrolled.errors import ConfigurationError
from unrolled.experiments.memory import (
    MEMORY_TASKS,
    NAMES,
    PREVIOUS_INPUT,
    SYMBOLS,
    MemoryMean,
    MemoryResult,
    PreviousInputCell,
    average,
    chance,
    train_memory,
)


def draw(name, delay, batch=20):
    made = MEMORY_TASKS[name].make(delay, batch, torch.Generator().manual_seed(3))
    assert made.inputs.shape[1:] == (batch, MEMORY_TASKS[name].input_size)
    assert len(made.counted) == len(made.inputs) == len(made.targets)
    return made.inputs, made.targets, made.counted


def test_recall():
    inputs, targets, counted = draw("recall", 7)
    assert len(inputs) == 9
    assert counted.nonzero().flatten().tolist() == [8]
    assert torch.equal(targets[8], inputs[0].argmax(-1))
    assert (inputs[1:8].argmax(-1) == SYMBOLS).all()


def test_adding():
    inputs, targets, _ = draw("adding", 30)
    assert (inputs[..., 1].sum(0) == 2).all()
    assert (inputs[:16, :, 1].sum(0) == 1).all()
    assert torch.allclose(targets[-1], (inputs[..., 0] * inputs[..., 1]).sum(0))


def test_copying():
    inputs, targets, counted = draw("copying", 4)
    assert torch.equal(targets[counted], inputs[:5].argmax(-1))
    assert counted.nonzero().flatten().tolist() == list(range(9, 14))


def test_brackets():
    inputs, targets, _ = draw("brackets", 40)
    opened = (inputs[..., 0] - inputs[..., 1]).cumsum(0)
    assert torch.equal(opened[-1].long(), targets[-1])
    assert opened.min() >= 0
    assert opened.max() <= 4


def test_the_alphabet_backwards():
    inputs, targets, counted = draw("alphabet", 6)
    heard = inputs[:6].argmax(-1)
    assert torch.equal((heard[1:] - heard[:-1]) % 26, torch.ones(5, 20, dtype=torch.long))
    assert torch.equal(targets[counted], heard.flip(0))
    assert (inputs[6:].argmax(-1) == 26).all()


def test_names():
    inputs, targets, _ = draw("name", 11)
    tokens = inputs.argmax(-1)
    assert len(tokens) == (1 + 5) + (1 + 4) + 11 + (1 + 3)
    named = (tokens < len(NAMES)).sum(0)
    assert (named == 3).all()
    for column in range(20):
        first, second, speaker = (int(t) for t in tokens[:, column] if t < len(NAMES))
        assert speaker in (first, second)
        assert targets[-1, column] == (second if speaker == first else first)


def test_gates_remember_and_tanh_does_not():
    assert train_memory("recall", "gru", 40, updates=300, keep_bias=math.log(40)).accuracy > 0.99
    assert train_memory("recall", "elman", 40, updates=60).accuracy < 0.8


def test_the_previous_input_reaches_one_step_back_and_no_further():
    assert train_memory("recall", PREVIOUS_INPUT, 0, updates=100).accuracy > 0.99
    assert train_memory("recall", PREVIOUS_INPUT, 1, updates=60).accuracy < 0.4


def test_the_previous_input_cells_formula():
    cell = PreviousInputCell(3, 4)
    x, before = torch.randn(2, 3), torch.randn(2, 3)
    h, kept = cell(x, (torch.randn(2, 4), before))
    assert torch.allclose(h, torch.tanh(x @ cell.weight_ih.T + before @ cell.weight_ph.T + cell.bias), atol=1e-6)
    assert torch.equal(kept, x)


def test_numbers_are_right_within_four_hundredths():
    assert chance("adding") == 0.0
    assert chance("recall") == 1 / SYMBOLS
    assert 0.0 <= train_memory("adding", "gru", 2, updates=30).accuracy <= 1.0


def test_a_task_that_is_none():
    with pytest.raises(ConfigurationError, match="choose from recall"):
        train_memory("remember", "gru", 3)


def test_means_over_nets():
    results = [MemoryResult("gru", 5, 1.0, 40), MemoryResult("gru", 5, 0.5, 600), MemoryResult("lstm", 9, 0.2, 7)]
    assert average(results) == {"gru": {5: MemoryMean(0.75, 320.0)}, "lstm": {9: MemoryMean(0.2, 7.0)}}
