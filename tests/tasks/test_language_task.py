"""Scores and samples of a language model, against the plain way to compute them."""

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.nn.functional import cross_entropy

from unrolled.tasks.language import create_run
from unrolled.tasks.language_settings import LanguageConfig, ModelConfig, StreamTraining, TextConfig
from unrolled.training import Trainer


def make(tmp_path, text_file, cell="lstm", training=None, **text):
    return create_run(
        tmp_path / "run",
        LanguageConfig(
            TextConfig(data=(str(text_file),), **text),
            ModelConfig(cell=cell, hidden_size=(8, 6), embedding_size=5, dropout=0.0),
            training
            or StreamTraining(
                batch_size=2, seq_length=8, max_steps=250, sample_every=0, learning_rate=0.02, warmup_steps=0
            ),
        ),
    )


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(("streams", "steps"), [(1, 7), (3, 200), (8, 64)])
def test_the_score_is_that_of_one_long_text(tmp_path, text_file, cell, streams, steps):
    task = make(tmp_path, text_file, cell)
    task.model.eval()
    with torch.no_grad():  # larger weights remember longer, so that a stream without its context would be seen
        for parameter in task.model.parameters():
            parameter.mul_(1.5)
    tokens = np.array(task.split().train)[:1999]
    with torch.no_grad():
        logits, _ = task.model(torch.from_numpy(tokens[:-1].astype(np.int64)).unsqueeze(1))
        expected = cross_entropy(logits.squeeze(1), torch.from_numpy(tokens[1:].astype(np.int64)), reduction="sum")
    # Streams begin after `steps` tokens of context, not all of it: at these lengths memory is long gone.
    assert task.total_nats(tokens, streams, steps) == pytest.approx(float(expected), rel=1e-5)


def test_bits_per_character_count_characters(tmp_path, text_file):
    task = make(tmp_path, text_file, level="byte")
    task.model.eval()
    text = "grüß dich 世界"
    score = task.score_tokens(task.vocabulary.encode("x" + text))
    assert score.tokens == len(text.encode())
    assert score.characters == len(text)


def test_training_learns(tmp_path, text_file):
    task = make(tmp_path, text_file)
    task.model.eval()
    before = task.validate()
    Trainer(task, task.config.training, task.run, Console(quiet=True)).train()
    task.model.eval()
    assert task.validate() < before - 0.8


def test_previews_leave_the_training_random_numbers_alone(tmp_path, text_file):
    task = make(tmp_path, text_file)
    task.model.eval()
    before = torch.get_rng_state()
    assert task.preview(3) == task.preview(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_validation_is_bounded_and_optional(tmp_path, text_file):
    task = make(tmp_path, text_file, val_tokens=100)
    task.model.eval()
    assert task.validate() == pytest.approx(task.total_nats(task.split().validation[:100]) / 99)
    (tmp_path / "none").mkdir()
    assert make(tmp_path / "none", text_file, val_fraction=0.0).validate() is None


def test_epochs_differ_in_their_offset_only_by_seed_and_number(tmp_path, text_file):
    task = make(tmp_path, text_file)
    offsets = [task.epoch(k).offset for k in range(20)]
    assert offsets[0] == 0
    assert len(set(offsets)) > 3
    assert offsets == [task.epoch(k).offset for k in range(20)]
