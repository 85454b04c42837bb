"""What a translation run learns from and is measured by, against the plain way to compute it."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from unrolled.cli import main
from unrolled.decoding import forced_log_probs
from unrolled.errors import RunError
from unrolled.tasks.pairs import ModelConfig, PairsConfig, SentenceTraining, TranslationConfig
from unrolled.tasks.translation import SNAPSHOTS, create_run
from unrolled.tasks.translator import Translator
from unrolled.training import Trainer
from unrolled.training.processes import Processes


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
    batch = task.epoch(0).batch(0)
    source, target = batch.inputs, batch.targets
    expected = -log_probs(task, source, target).sum()
    torch.testing.assert_close(task.loss(batch)[0], expected)
    assert task.loss(batch)[1] is None


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
    batch = task.epoch(0).batch(0)
    source, target = batch.inputs, batch.targets
    counted = target >= 0
    given = torch.cat([torch.full((1, target.size(1)), task.end), target[:-1]])
    task.model.train()
    logs = torch.log_softmax(task.model(source, given, counted), -1)
    share = task.config.training.label_smoothing
    nats = -logs.gather(-1, target[counted].unsqueeze(-1)).squeeze(-1)
    expected = (1 - share) * nats - share * logs.mean(-1)
    torch.testing.assert_close(task.loss(batch)[0], expected.sum())


def test_scheduled_sampling_reads_the_models_own_guesses(task):
    batch = task.epoch(0).batch(0)
    source, target = batch.inputs, batch.targets
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
    task.loss(batch)[0].backward()


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
    vocabulary = task.run.path / "vocabulary.json"
    vocabulary.write_text(vocabulary.read_text(encoding="utf-8").replace("drei", "vier"), encoding="utf-8")
    with pytest.raises(RunError, match=r"vocabulary\.json: not the vocabulary that the weights were trained with"):
        task.load("average")


def test_validations_between_two_lines_of_the_log_are_all_kept(tmp_path, task):
    training = dataclasses.replace(task.config.training, log_every=100, max_steps=2, eval_every=1)
    pairs = dataclasses.replace(task.config.pairs, val_fraction=0.0)
    silent = create_run(tmp_path / "silent", TranslationConfig(pairs, task.config.model, training))
    Trainer(silent, training, silent.run, Console(quiet=True)).train()
    names = sorted(file.stem for file in (silent.run.path / SNAPSHOTS).iterdir())
    assert names == ["step-00000001", "step-00000002"]


def test_pairs_of_another_vocabulary_are_refused(task):
    task.verify()
    pairs = task.pairs("train")
    pairs.target.tokens[3] = len(task.target)
    with pytest.raises(RunError, match=r"pairs\.safetensors: damaged"):
        task.verify()


def gradients(task, batch, size=1, rank=0, accumulate=1):
    """This process's part of the batch's mean loss, and of its gradients."""
    processes = Processes()
    processes.rank, processes.size = rank, size
    training = dataclasses.replace(task.config.training, accumulate=accumulate)
    trainer = Trainer(task, training, task.run, Console(quiet=True), processes=processes)
    task.model.train()
    task.model.zero_grad()
    loss = trainer._backward(batch)
    return loss, [parameter.grad / size for parameter in task.model.parameters()]


@pytest.mark.parametrize("columns", [2, 8])
def test_parts_and_shares_of_a_batch_add_up_to_it(task, columns):
    """Also where a batch is so small that one of three processes has no pair of its own."""
    batch = task.epoch(0).batch(0).rows(0, columns)
    loss, whole = gradients(task, batch)
    for accumulate in (1, 3):
        shares = [gradients(task, batch, 3, rank, accumulate) for rank in range(3)]
        assert sum(part == 0 for part, _ in shares) == max(0, 3 - columns)
        assert sum(part for part, _ in shares) == pytest.approx(loss, rel=1e-5)
        for expected, *parts in zip(whole, *(found for _, found in shares), strict=True):
            torch.testing.assert_close(sum(parts), expected, rtol=1e-4, atol=1e-6)


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
        assert "\n= " in made.preview(0)
        assert Translator([made]).is_long("é" * 60) == (level == "bpe")  # of which each is two bytes


@pytest.fixture
def unscaled(tmp_path):
    """A run of before `scale_embeddings`, whose embeddings were not scaled."""
    return Path(shutil.copytree(Path(__file__).parent / "runs" / "unscaled-embeddings", tmp_path / "old"))


def test_an_old_run_goes_on_as_it_is(unscaled, capsys):
    for limit in ("50", "60"):
        assert main(["train", "translate", "--resume", str(unscaled), "--max-steps", limit]) == 0
        assert f"finished after {limit} steps" in capsys.readouterr().out
        model = json.loads((unscaled / "config.json").read_text())["config"]["model"]
        assert model["scale_embeddings"] is False
    assert main(["train", "translate", "--resume", str(unscaled), "--scale-embeddings", "--max-steps", "70"]) == 2
    assert "--scale-embeddings cannot change" in capsys.readouterr().err
