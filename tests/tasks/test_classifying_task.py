"""A classifier as a task: what it learns, how it is scored, and what is said of odd data."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.tasks.shared import assert_same_weights, whole_and_resumed
from tests.tasks.test_translation_task import gradients
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.tasks import load
from unrolled.tasks.classifying import ClassifyingTask, create_run
from unrolled.tasks.classifying_settings import (
    ClassEvaluation,
    ClassifierConfig,
    ClassifyingConfig,
    ClassTraining,
    LabelledConfig,
)
from unrolled.tasks.start import Start
from unrolled.training import Trainer, open_run

SMALL = {"hidden_size": (8,), "embedding_size": 6, "dropout": 0.0}


def texts(count, seed=0, multi=False):
    """Words in a class of its own, in random order among others."""
    draw = random.Random(seed)
    words = {"good": ["fine", "great", "lovely"], "bad": ["poor", "awful", "dull"], "odd": ["strange", "weird"]}
    found = []
    for _ in range(count):
        labels = [name for name in words if draw.random() < 0.5] if multi else [draw.choice(list(words))]
        body = [draw.choice(words[name]) for name in labels] + ["a film", "it is", "so", "I saw it"][
            : draw.randint(1, 4)
        ]
        draw.shuffle(body)
        found.append({"text": " ".join(body), "label": labels if multi else labels[0]})
    return found


def write(path, entries):
    path.write_text("".join(json.dumps(one) + "\n" for one in entries), encoding="utf-8")
    return str(path)


def config(tmp_path, steps=60, multi=False, dev=None, training=None, level="word", **model):
    options = {"learning_rate": 0.05, "warmup_steps": 0, "max_steps": steps, "eval_every": 30, "sample_every": 30}
    data = write(tmp_path / "train.jsonl", texts(150, 0, multi))
    dev = write(tmp_path / "dev.jsonl", texts(40, 1, multi) if dev is None else dev)
    return ClassifyingConfig(
        LabelledConfig(data, dev, level=level, vocab_size=300 if level == "bpe" else None),
        ClassifierConfig(**{**SMALL, **model}),
        ClassTraining(**{**options, **(training or {})}),
    )


def trained(tmp_path, **options):
    task = create_run(tmp_path / "run", config(tmp_path, **options))
    Trainer(task, task.config.training, task.run).train()
    return task


@pytest.mark.parametrize(
    ("options", "model"),
    [
        ({}, {}),
        ({"level": "bpe", "steps": 120}, {"cell": "gru", "pooling": "concat"}),
        ({}, {"cell": "gru", "pooling": "attention"}),
        (
            {"steps": 120, "training": {"word_dropout": 0.1, "class_weights": "balanced"}},
            {"pooling": "mean", "bidirectional": False},
        ),
    ],
)
def test_it_learns_classes_by_their_words(tmp_path, options, model):
    task = trained(tmp_path, **options, **model)
    report = task.load("best").score()
    values = report.json()
    assert values["accuracy"] > 0.9
    assert values["macro_f1"] > 0.9
    assert set(values["classes"]) == {"good", "bad", "odd"}
    assert sum(sum(row.values()) for row in values["confusion"].values()) == 40
    assert report.headline.startswith("accuracy")
    assert "label " in (tmp_path / "run" / "samples.txt").read_text()
    opened = load(tmp_path / "run")
    assert opened.classify(["an awful film", "so weird"]) == [("bad",), ("odd",)]
    first, second = opened.probabilities(["great", "what else"])
    assert next(iter(first)) == "good"
    assert sum(second.values()) == pytest.approx(1, rel=1e-4)
    assert list(second.values()) == sorted(second.values(), reverse=True)


def test_several_labels_per_text(tmp_path):
    task = trained(tmp_path, multi=True, steps=120, pooling="max")
    report = task.load("best").score()
    values = report.json()
    assert values["micro_f1"] > 0.9
    assert 0 < values["accuracy"] <= 1
    assert "confusion" not in values
    assert report.headline.startswith("micro F1")
    first, second = task.classify(["a fine dull film", "it is"])
    assert set(first) == {"bad", "good"}
    assert second == ()
    assert dict(task.facts())["classes"].startswith("3, any number per text: bad")


@pytest.mark.parametrize("multi", [False, True])
def test_parts_and_shares_of_a_batch_add_up_to_it(tmp_path, multi):
    task = create_run(tmp_path / "run", config(tmp_path, multi=multi, pooling="attention"))
    batch = task.epoch(0).batch(0)
    loss, whole = gradients(task, batch)
    for accumulate in (1, 2):
        shares = [gradients(task, batch, 3, rank, accumulate) for rank in range(3)]
        assert sum(part for part, _ in shares) == pytest.approx(loss, rel=1e-5)
        for expected, *parts in zip(whole, *(found for _, found in shares), strict=True):
            torch.testing.assert_close(sum(parts), expected, rtol=1e-3, atol=1e-5)


def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    """Also with tokens dropped at random, and a pass that was left in the middle."""
    settings = config(tmp_path, dropout=0.3)
    training = replace(settings.training, lr_schedule="constant", eval_every=2, max_steps=7, word_dropout=0.3)
    whole, resumed = whole_and_resumed(tmp_path, ClassifyingTask, replace(settings, training=training), 4)
    assert_same_weights(whole, resumed)


def test_a_tenth_of_every_class_is_held_out(tmp_path):
    data = write(tmp_path / "a.jsonl", [{"text": f"x {k}", "label": "ab"[k % 5 == 0]} for k in range(200)])
    task = create_run(tmp_path / "run", ClassifyingConfig(LabelledConfig(data), ClassifierConfig(**SMALL)))
    assert np.bincount(task.dev.targets).tolist() == [16, 4]
    assert task.classes.counts == (144, 36)


def test_labels_that_training_lacks_are_errors_and_named(tmp_path):
    dev = [*texts(5, 1), {"text": "a fine film", "label": "new"}, {"text": "so", "label": "newer"}]
    task = create_run(tmp_path / "run", config(tmp_path, dev=dev))
    assert any("2 labels that training lacks (new, newer): 2 errors" in note for note in task.classes.notes)
    with torch.no_grad():
        first = task.dev.batch(range(5))
        expected = float(task.loss(first)[0]) / 5
    task.model.eval()
    assert task.validate() == pytest.approx(expected, rel=1e-5)
    values = task.score().json()
    assert values["classes"]["new"]["recall"] == 0
    assert sum(values["confusion"]["new"].values()) == 1
    report = task.score(write(tmp_path / "other.jsonl", dev))
    assert report.json()["accuracy"] == values["accuracy"]
    assert any("2 labels that training lacks" in note for note in report.notes)


def test_several_labels_that_training_lacks(tmp_path):
    dev = [*texts(5, 1, True), {"text": "a fine film", "label": ["good", "new"]}]
    task = create_run(tmp_path / "run", config(tmp_path, multi=True, dev=dev))
    assert task.dev.targets.shape == (6, 4)
    assert task.validate() is not None
    assert task.score().json()["classes"]["new"] == {"f1": 0, "precision": 0, "recall": 0, "wanted": 1, "found": 0}


def test_balanced_weights_make_classes_count_the_same(tmp_path):
    data = [{"text": f"x {k}", "label": "ab"[k % 4 == 0]} for k in range(40)]
    path = write(tmp_path / "a.jsonl", data)
    training = ClassTraining(class_weights="balanced")
    settings = ClassifyingConfig(LabelledConfig(path, path), ClassifierConfig(**SMALL), training)
    task = create_run(tmp_path / "run", settings)
    assert task.model.class_weights.tolist() == pytest.approx([40 / 60, 40 / 20])
    data = [{"text": f"x {k}", "label": ["b"] if k % 4 == 0 else []} for k in range(40)]
    write(tmp_path / "a.jsonl", data)
    task = create_run(tmp_path / "several", settings)
    assert task.model.class_weights.tolist() == [3.0]


def test_what_is_cut_and_repeated_is_counted(tmp_path):
    data = write(tmp_path / "a.jsonl", [{"text": "a b c d", "label": "x"}, {"text": "a", "label": "y"}] * 2)
    config = LabelledConfig(data, data, max_length=3, keep="end", min_count=1)
    task = create_run(tmp_path / "run", ClassifyingConfig(config, ClassifierConfig(**SMALL)))
    assert (
        "2 texts of the train part are longer than 3 tokens and cut; 80% of all tokens are read" in task.classes.notes
    )
    assert any("4 texts of the dev part are also in training" in note for note in task.classes.notes)
    assert task.vocabulary.decode(task.train.tokens[0]) == "b c d" == task.vocabulary.decode(task.tokens_of("a b c d"))


def test_lower_case(tmp_path):
    data = write(tmp_path / "a.jsonl", [{"text": "So Dull", "label": "x"}, {"text": "SO fine", "label": "y"}] * 2)
    config = LabelledConfig(data, data, lowercase=True)
    task = create_run(tmp_path / "run", ClassifyingConfig(config, ClassifierConfig(**SMALL)))
    assert set(task.vocabulary.words) == {"<unk>", "so", "dull", "fine"}
    assert task.tokens_of("SO DULL").tolist() == task.train.tokens[0].tolist() == task.parts("So dulL")[0].tolist()
    assert [part.text for part in task.parts("So dulL")[1]] == ["so", " dull"]


def test_word_vectors(tmp_path):
    (tmp_path / "vectors.txt").write_text("fine 1 2\nunheard 3 4\n")
    model = {"embedding_size": 2, "vectors": str(tmp_path / "vectors.txt"), "fix_vectors": True}
    task = create_run(tmp_path / "run", config(tmp_path, **model))
    place = task.vocabulary.encode("fine")
    assert task.model.embedding.weight[place].tolist() == [[1.0, 2.0]]
    assert not task.model.embedding.weight.requires_grad
    before = task.model.embedding.weight.clone()
    Trainer(task, replace(task.config.training, max_steps=2), task.run).train()
    assert torch.equal(task.model.embedding.weight, before)
    assert not task.model.embedding.weight.requires_grad
    with pytest.raises(ConfigurationError, match="`vectors` need the level word"):
        create_run(tmp_path / "char", config(tmp_path, level="char", **model))


def test_a_run_that_starts_from_another(tmp_path):
    first = trained(tmp_path, steps=15)
    data = write(tmp_path / "other.jsonl", [*texts(40, 5), {"text": "zany zany", "label": "new"}])
    settings = ClassifyingConfig(LabelledConfig(data, data), ClassifierConfig(**SMALL))
    start = Start(tmp_path / "run")
    second = ClassifyingTask.create(tmp_path / "second", settings, start=start)
    ours, theirs = (task.vocabulary.encode("fine") for task in (second, first))
    assert torch.equal(second.model.embedding.weight[ours], start.task.model.embedding.weight[theirs])
    places = [second.classes.names.index(name) for name in first.classes.names]
    assert torch.equal(second.model.readout.weight[places], start.task.model.readout.weight)
    assert second.classes.names == ("bad", "good", "new", "odd")


def test_what_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="`data` is missing"):
        create_run(tmp_path / "a", ClassifyingConfig())
    same = write(tmp_path / "same.jsonl", [{"text": "a", "label": "x"}] * 5)
    with pytest.raises(DataError, match="all texts of training have the same label, 'x'"):
        create_run(tmp_path / "a", ClassifyingConfig(LabelledConfig(same)))
    none = write(tmp_path / "none.jsonl", [{"text": "a", "label": []}] * 5)
    with pytest.raises(DataError, match="no text of training has a label"):
        create_run(tmp_path / "a", ClassifyingConfig(LabelledConfig(none)))
    with pytest.raises(DataError, match=r"have one label each, those of .* have lists"):
        create_run(tmp_path / "a", ClassifyingConfig(LabelledConfig(same, none)))
    assert not (tmp_path / "a").exists()
    task = create_run(tmp_path / "run", config(tmp_path))
    with pytest.raises(ConfigurationError, match="a list of strings, not one string"):
        task.classify("so")
    with pytest.raises(ConfigurationError, match="a text must be a string"):
        task.probabilities([None])
    with pytest.raises(DataError, match="have lists of labels, those of training have one"):
        task.score(none)
    with pytest.raises(ConfigurationError, match="describe a file"):
        ClassEvaluation(label_column="2")
    assert task.classify([]) == []


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("classes.json", "["),
        ("classes.json", "{}"),
        ("classes.json", '{"names": ["a"], "counts": ["x"]}'),
        ("texts.safetensors", "x"),
        ("vocabulary.json", "{}"),
    ],
)
def test_a_damaged_run(tmp_path, file, content):
    create_run(tmp_path / "run", config(tmp_path))
    (tmp_path / "run" / file).write_text(content)
    (tmp_path / "run" / "facts.json").unlink()
    with pytest.raises(RunError, match=file):
        ClassifyingTask(open_run(tmp_path / "run")).verify()


def test_texts_of_another_run(tmp_path):
    """Whole, but with tokens or classes that this run does not have."""
    create_run(tmp_path / "run", config(tmp_path))
    create_run(tmp_path / "several", config(tmp_path, multi=True))
    create_run(tmp_path / "bpe", config(tmp_path, level="bpe"))
    for other, said in (("several", "does not fit the classes"), ("bpe", "a token is not in the vocabulary")):
        (tmp_path / "run" / "texts.safetensors").write_bytes((tmp_path / other / "texts.safetensors").read_bytes())
        with pytest.raises(RunError, match=said):
            ClassifyingTask(open_run(tmp_path / "run")).verify()
