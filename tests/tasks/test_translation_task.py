"""What a translation run learns from and is measured by, against the plain way to compute it."""

import dataclasses

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from unrolled.decoding import forced_log_probs
from unrolled.tasks.pairs import ModelConfig, PairsConfig, SentenceTraining, TranslationConfig
from unrolled.tasks.translation import SNAPSHOTS, create_run
from unrolled.tasks.translator import Translator
from unrolled.training import Trainer


@pytest.fixture
def task(tmp_path):
    (tmp_path / "a").write_text("one two\nthree\nfour one two\n" * 20)
    (tmp_path / "b").write_text("eins zwei\ndrei\nvier eins zwei\n" * 20)
    config = TranslationConfig(
        PairsConfig(str(tmp_path / "a"), str(tmp_path / "b"), level="word", val_fraction=0.2),
        ModelConfig(hidden_size=8, embedding_size=6, dropout=0.0),
        SentenceTraining(batch_size=8, max_steps=9, eval_every=3, log_every=1, sample_every=0, average=2),
    )
    return create_run(tmp_path / "run", config)


def log_probs(task, source, target):
    task.model.eval()
    first = torch.full((source.size(1),), task.end)
    return forced_log_probs(task.model, task.model.start(source), first, target.unsqueeze(-1))


def test_the_loss_is_that_of_forced_decoding(task):
    source, target = task.epoch(0).chunk(0)
    expected = -log_probs(task, source, target).sum()
    torch.testing.assert_close(task.loss(source, target)[0], expected)
    assert task.loss(source, target)[1] is None


def test_validation_is_a_mean_over_tokens_and_ends(task):
    task.model.eval()
    pairs = task.pairs("validation")
    assert len(pairs) == 12
    lines = [[task.target.decode(side[k].tolist()) for k in range(12)] for side in (pairs.source, pairs.target)]
    scores = [some[0] for some in Translator([task]).score(lines[0], [[line] for line in lines[1]])]
    expected = -sum(p for p, _ in scores) / sum(n for _, n in scores)
    assert task.validate() == pytest.approx(expected, rel=1e-5)
    assert task.total_nats(pairs, batch_size=5) == pytest.approx(task.total_nats(pairs, batch_size=12), rel=1e-5)


def test_label_smoothing_spreads_a_share_over_all_tokens(task):
    source, target = task.epoch(0).chunk(0)
    counted = target >= 0
    given = torch.cat([torch.full((1, target.size(1)), task.end), target[:-1]])
    task.model.train()
    logs = torch.log_softmax(task.model(source, given, counted), -1)
    share = task.config.training.label_smoothing
    nats = -logs.gather(-1, target[counted].unsqueeze(-1)).squeeze(-1)
    expected = (1 - share) * nats - share * logs.mean(-1)
    torch.testing.assert_close(task.loss(source, target)[0], expected.sum())


def test_scheduled_sampling_reads_the_models_own_guesses(task):
    source, target = task.epoch(0).chunk(0)
    given = torch.cat([torch.full((1, target.size(1)), task.end), target[:-1]])
    task.model.eval()
    guesses = task.model(source, given).argmax(-1)
    made = task._with_guesses(source, given, 0.5)
    replaced = made != given
    assert not replaced[0].any()
    assert (made[given < 0] == given[given < 0]).all()
    assert (made[1:][replaced[1:]] == guesses[:-1][replaced[1:]]).all()
    wrong = (guesses[:-1] != given[1:]) & (given[1:] >= 0)
    share = replaced[1:][wrong].float().mean()
    assert 0.2 < share < 0.8
    task.config = dataclasses.replace(
        task.config, training=dataclasses.replace(task.config.training, scheduled_sampling=0.5)
    )
    task.model.train()
    task.loss(source, target)[0].backward()


def test_the_average_is_that_of_the_last_validations(task):
    Trainer(task, task.config.training, task.run, Console(quiet=True)).train()
    files = sorted((task.run.path / SNAPSHOTS).glob("*"))
    assert len(files) == 2
    last, before = (load_file(file) for file in reversed(files))
    task.load("last")
    for name, parameter in task.model.named_parameters():
        torch.testing.assert_close(parameter, last[name])
    task.load("average")
    for name, parameter in task.model.named_parameters():
        torch.testing.assert_close(parameter, (last[name] + before[name]) / 2)


def test_separate_vocabularies(tmp_path):
    (tmp_path / "a").write_text("one two\nthree\n" * 9)
    (tmp_path / "b").write_text("α β γ\nδ\n" * 9)
    for level in ("char", "bpe", "word"):
        pairs = PairsConfig(
            str(tmp_path / "a"),
            str(tmp_path / "b"),
            level=level,
            separate=True,
            vocab_size=300 if level == "bpe" else None,
        )
        made = create_run(
            tmp_path / level, TranslationConfig(pairs, ModelConfig(hidden_size=4, embedding_size=4), SentenceTraining())
        )
        assert made.source.state() != made.target.state()
        assert made.model.source_embedding.num_embeddings == len(made.source) + 1
        assert made.model.readout.out_features == len(made.target) + 1
        made.model.eval()
        assert "\n= " in made.sample(0)
