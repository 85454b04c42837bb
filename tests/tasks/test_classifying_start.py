"""A classifier that starts from a language model: what arrives, and which layers learn when, and how fast."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.cli.shared import error_of
from tests.programs import completed
from tests.tasks.test_classifying_task import SMALL, texts, write
from tests.tasks.test_init_from import shaken
from unrolled.cli import main
from unrolled.errors import RunError
from unrolled.tasks import load
from unrolled.tasks.classifying import ClassifyingTask
from unrolled.tasks.classifying_settings import ClassifierConfig, ClassifyingConfig, ClassTraining, LabelledConfig
from unrolled.tasks.inherit import inherited
from unrolled.tasks.language import LanguageTask
from unrolled.tasks.language_settings import LanguageConfig, ModelConfig, StreamTraining, TextConfig
from unrolled.tasks.start import Start
from unrolled.tasks.tagging import TaggingTask
from unrolled.tasks.tagging_settings import SentencesConfig, TaggingConfig
from unrolled.training import Trainer, open_run


def language_model(folder, level="word", **model):
    """A language model's run with weights that no other run draws."""
    (folder / "text.txt").write_text("a fine film\nso dull it is\nI saw it\n" * 40)
    sizes = {"hidden_size": (7, 5), "embedding_size": 6, "cell": "gru", **model}
    text = TextConfig((str(folder / "text.txt"),), level=level, vocab_size=300 if level == "bpe" else None)
    training = StreamTraining(batch_size=2, seq_length=8, device="cpu")
    return shaken(LanguageTask.create(folder / "lm", LanguageConfig(text, ModelConfig(**sizes), training)))


def begun(folder, training=None, **model):
    """The language model and a classifier that starts from it."""
    source = language_model(folder, **model)
    stored, fates = ClassifyingTask.settings_from(source.run)
    settings = inherited(ClassifyingTask, stored, fates)
    data = write(folder / "train.jsonl", texts(60))
    settings = replace(
        settings,
        texts=replace(settings.texts, data=data, dev=data),
        training=ClassTraining(**{"warmup_steps": 0, "eval_every": 100, "device": "cpu", **(training or {})}),
    )
    start = Start(folder / "lm")
    return source, ClassifyingTask.create(folder / "run", settings, start=start), start


@pytest.mark.parametrize("level", ["word", "bpe", "char"])
def test_vocabulary_embedding_and_layers_arrive(tmp_path, level):
    source, task, start = begun(tmp_path, level=level, cell="lstm")
    assert task.vocabulary.keys() == source.vocabulary.keys()
    theirs, ours = source.model.state_dict(), task.model.state_dict()
    same = [name for name in ours if name in theirs and not name.startswith("readout")]
    assert {name.split(".")[0] for name in same} == {"embedding", "recurrent"}
    assert all(torch.equal(ours[name], theirs[name]) for name in same)
    assert set(ours) - set(same) == {"readout.weight", "readout.bias"}
    assert start.notes == [f"vocabulary: all {len(source.vocabulary)} tokens are known to {tmp_path / 'lm'}"]
    tokens = torch.from_numpy(source.vocabulary.encode("a fine film")).unsqueeze(1)
    batch = task.texts["train"].batch([0]).rows(0, 1)
    batch = replace(batch, inputs=tokens, lengths=torch.tensor([len(tokens)]))
    outputs, _ = source.model.eval().read(tokens)
    torch.testing.assert_close(task.model.eval().read(batch), outputs, rtol=1e-4, atol=1e-5)


def test_frozen_layers_do_not_change(tmp_path):
    training = {"unfreeze_every": 2, "lr_schedule": "constant", "learning_rate": 0.01, "weight_decay": 0.1}
    _, task, _ = begun(tmp_path, training)
    layers = task.model.layers()
    assert [len(layer) for layer in layers] == [1, 4, 4, 2]  # embedding, two cells, readout
    before = [[parameter.detach().clone() for parameter in layer] for layer in layers]
    for steps, moving in ((1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (7, 4)):
        config = replace(task.config.training, max_steps=steps)
        Trainer(task, config, task.run, resume=True).train()
        moved = [
            any(not torch.equal(parameter, old) for parameter, old in zip(layer, olds, strict=True))
            for layer, olds in zip(layers, before, strict=True)
        ]
        assert moved == [False] * (4 - moving) + [True] * moving


def test_a_stop_changes_nothing(tmp_path):
    """In the middle of gradual unfreezing, when the optimiser knows some of the layers alone."""
    ends = []
    for name, stops in (("whole", [6]), ("parts", [3, 6])):
        folder = tmp_path / name
        folder.mkdir()
        _, task, _ = begun(folder, {"unfreeze_every": 2, "layer_decay": 2.6, "lr_schedule": "constant"})
        for stop in stops:
            task = ClassifyingTask(open_run(folder / "run"))
            Trainer(task, replace(task.config.training, max_steps=stop), task.run, resume=True).train()
        ends.append(load(folder / "run", "last").model.state_dict())
    assert all(torch.equal(one, ends[1][name]) for name, one in ends[0].items())


@pytest.mark.slow
def test_two_processes_freeze_the_same_layers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    language_model(tmp_path)
    write(tmp_path / "train.jsonl", texts(60))
    words = ["train", "classify", "--data", "train.jsonl", "--init-from", "lm", "--max-steps", "6", "--dropout", "0"]
    words += ["--unfreeze-every", "2", "--log-every", "1", "--warmup-steps", "0", "--device", "cpu", "--out"]
    assert main([*words, "one"]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "unrolled"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    completed([*torchrun, *words, "two"], env=environment, check=True)
    one, two = ([record["loss"] for record in open_run(run).metrics() if "loss" in record] for run in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-4)


def test_lower_layers_learn_more_slowly(tmp_path):
    _, task, _ = begun(tmp_path, {"layer_decay": 2.0, "optimizer": "sgd", "clip_norm": 0.0, "max_steps": 1})
    groups = task.layer_groups()
    assert [group.factor for group in groups] == [1 / 8, 1 / 4, 1 / 2, 1]
    assert [group.start for group in groups] == [0, 0, 0, 0]
    before = [layer[0].detach().clone() for layer in task.model.layers()]
    batch = task.epoch(0).batch(0)
    training = replace(task.config.training, weight_decay=0.0, lr_schedule="constant")
    task.model.train()
    torch.manual_seed(3)
    loss, _ = task.loss(batch)
    (loss / batch.count).backward()
    wanted = [layer[0].grad.clone() for layer in task.model.layers()]
    trainer = Trainer(task, training, task.run)
    torch.manual_seed(3)
    trainer.train()
    for old, layer, gradient, group in zip(before, task.model.layers(), wanted, groups, strict=True):
        step = training.learning_rate * group.factor * gradient
        torch.testing.assert_close(old - layer[0].detach(), step, rtol=1e-3, atol=1e-6)


def test_what_cannot_start_a_classifier(tmp_path):
    source = language_model(tmp_path, embedding_size=0)
    with pytest.raises(RunError, match="one-hot input has no embedding"):
        ClassifyingTask.settings_from(source.run)
    data = write(tmp_path / "train.jsonl", texts(60))
    settings = ClassifyingConfig(LabelledConfig(data, data), ClassifierConfig(**SMALL))
    with pytest.raises(RunError, match="the new model"):
        ClassifyingTask.create(tmp_path / "run", settings, start=Start(tmp_path / "lm"))
    assert not (tmp_path / "run").exists()
    (tmp_path / "a.conll").write_text("a O\n\nb O\n")
    tags = TaggingConfig(SentencesConfig(str(tmp_path / "a.conll"), str(tmp_path / "a.conll")))
    with pytest.raises(RunError, match="a language model run cannot start a tagger run"):
        TaggingTask.create(tmp_path / "tags", tags, start=Start(tmp_path / "lm"))


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    language_model(tmp_path)
    write(tmp_path / "train.jsonl", texts(60))
    words = ["train", "classify", "--data", "train.jsonl", "--init-from", "lm", "--max-steps", "2", "--device", "cpu"]
    assert main([*words, "--pooling", "concat", "--unfreeze-every", "1", "--layer-decay", "2.6", "--out", "run"]) == 0
    out = capsys.readouterr().out
    assert "start  lm" in out
    assert "tokens are known to lm" in out
    model = json.loads((tmp_path / "run" / "config.json").read_text())["config"]["model"]
    assert (model["cell"], model["hidden_size"], model["bidirectional"]) == ("gru", [7, 5], False)
    assert main(["classify", "run", "a fine film"]) == 0
    said = error_of([*words, "--hidden-size", "9", "--bidirectional"], capsys)
    assert "its weights need --hidden-size 7 5 (not --hidden-size 9)" in said
    assert "--no-bidirectional (not --bidirectional)" in said
    assert "--layer-decay must be from 1" in error_of([*words, "--layer-decay", "0.5"], capsys)
