"""A class for every recording: folders, lists and features, and what is wrong with them."""

import json

import numpy as np
import pytest
import torch

from tests.cli.shared import error_of
from tests.cli.test_translation import said
from tests.tasks.shared import assert_same_weights, whole_and_resumed
from tests.tones import tones
from unrolled.cli import main
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.tasks import load
from unrolled.tasks.classifying import ClassifyingTask, create_run
from unrolled.tasks.classifying_settings import (
    ClassifierConfig,
    ClassifyingConfig,
    ClassTraining,
    LabelledConfig,
    SoundConfig,
)
from unrolled.tasks.classifying_sounds import SoundClassifyingTask
from unrolled.tasks.start import Start
from unrolled.training import Trainer, open_run

soundfile = pytest.importorskip("soundfile")

SMALL = ["--hidden-size", "16", "--dropout", "0", "--learning-rate", "0.02", "--warmup-steps", "0", "--bins", "12"]


def write_sounds(folder, count=14, speakers=2):
    """A folder with a sub-folder per class: the class is the number of tones in a recording."""
    for number in range(count):
        for name, length in (("one", 1), ("two", 2), ("three", 3)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            text = "".join("abc"[(number + k) % 3] for k in range(length))
            path = folder / name / f"s{number % speakers}-{number:02}.wav"
            soundfile.write(path, tones(text, loudness=0.1 + 0.02 * number), 8000)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    write_sounds(folder / "data")
    words = ["train", "classify", "--data", folder / "data", "--level", "audio", *SMALL, "--no-augment"]
    words += ["--max-steps", "60", "--eval-every", "30", "--out", folder / "run", "--device", "cpu"]
    assert main([str(word) for word in words]) == 0
    return folder


def config(data, training=None, model=None, texts=None, **sounds):
    return ClassifyingConfig(
        LabelledConfig(**{"data": str(data), "level": "audio", **(texts or {})}),
        ClassifierConfig(**{"hidden_size": (16,), "dropout": 0.0, **(model or {})}),
        ClassTraining(**{"learning_rate": 0.02, "warmup_steps": 0, "max_steps": 6, **(training or {})}),
        SoundConfig(**{"bins": 12, **sounds}),
    )


def test_it_learns_and_is_used(folder, capsys):
    report = json.loads(said(capsys, "eval", folder / "run", "--json").out)
    assert report["accuracy"] > 0.9
    assert "12 mel energies at 8,000 Hz" in said(capsys, "info", folder / "run").out
    file = folder / "data" / "two" / "s0-00.wav"
    name, chance = said(capsys, "classify", folder / "run", file).out.split()
    assert name == "two"
    assert float(chance) > 0.5
    lines = said(capsys, "classify", folder / "run", file, folder / "data" / "one" / "s0-00.wav").out.splitlines()
    assert [line.split("\t")[1] for line in lines] == ["two", "one"]
    entry = json.loads(said(capsys, "classify", folder / "run", file, "--json", "--top", "2").out)
    assert entry["file"] == str(file)
    assert len(entry["probabilities"]) == 2
    opened = load(folder / "run")
    assert isinstance(opened, SoundClassifyingTask)
    assert opened.classify([file]) == [("two",)]
    assert "accuracy" in said(capsys, "eval", folder / "run", "--data", folder / "data").out


def test_lists_groups_and_copies(folder, tmp_path):
    rows = [
        f"{path}\t{path.parent.name}\n"
        for path in sorted((folder / "data").rglob("*.wav"))
        if path.parent.name != "one"
    ]
    (tmp_path / "list.tsv").write_text("audio\tclass\n" + "".join(rows))
    settings = config(tmp_path / "list.tsv", group="(s[01])-", speeds=(0.9,), texts={"label_column": "class"})
    task = create_run(tmp_path / "run", settings)
    assert len(task.dev) == 14
    assert len(task.train) == 28  # the other speaker, at two speeds
    assert len({name.split("-")[0][-2:] for name in [name for name, _ in task._stored["dev"]]}) == 1
    Trainer(task, task.config.training, task.run).train()
    assert task.score().json()["accuracy"] > 0.2


def test_features(folder, tmp_path):
    draw = np.random.default_rng(0)
    frames = draw.normal(size=(300, 5)) + np.repeat([[0], [3]], 150, 0) * [1, 0, 0, 0, -1]
    labels = ["low"] * 15 + ["high"] * 15
    np.savez(tmp_path / "a.npz", frames=frames, offsets=np.arange(0, 301, 10), text=labels)
    task = create_run(tmp_path / "run", config(tmp_path / "a.npz"))
    assert task.classes.kind == "features"
    assert task.classes.width == 5
    assert set(task.probabilities([frames[:10]])[0]) == {"low", "high"}
    with pytest.raises(DataError, match="frames of 3 values, those of training have 5"):
        task.probabilities([frames[:10, :3]])


def test_a_resumed_run_ends_with_the_same_weights(folder, tmp_path):
    settings = config(folder / "data", {"eval_every": 2, "lr_schedule": "constant"}, {"dropout": 0.2}, noise=0.1)
    whole, resumed = whole_and_resumed(tmp_path, ClassifyingTask, settings, 3)
    assert_same_weights(whole, resumed)


def test_a_run_starts_another_with_more_classes(folder, tmp_path):
    data = write_sounds(tmp_path / "data", 4)
    (data / "two").rename(data / "zwei")
    task = ClassifyingTask.create(tmp_path / "run", config(data), start=Start(folder / "run"))
    old, new = load(folder / "run").model.state_dict(), task.model.state_dict()
    assert torch.equal(new["readout.weight"][task.classes.names.index("one")], old["readout.weight"][0])


def test_what_is_wrong_is_counted_and_named(folder, tmp_path, capsys):
    data = write_sounds(tmp_path / "data", 6)
    (data / "one" / "s0-00.wav").write_text("rubbish")
    soundfile.write(data / "one" / "s1-01.wav", np.stack([tones("a")] * 2, 1), 8000)
    dev = write_sounds(tmp_path / "dev", 2)
    (dev / "two").rename(dev / "four")
    task = create_run(tmp_path / "run", config(data, texts={"dev": str(dev)}))
    notes = "\n".join(task.classes.notes)
    assert "1 recording left out, because they cannot be read: one/s0-00.wav" in notes
    assert "1 recording with several channels, whose mean is used: one/s1-01.wav" in notes
    assert "the dev part has 1 label that training lacks (four): 2 errors" in notes
    assert (
        main(["classify", str(folder / "run"), str(data / "one" / "s0-00.wav"), str(data / "two" / "s0-00.wav")]) == 2
    )
    found = capsys.readouterr()
    assert "cannot be read as a recording" in found.err
    assert len(found.out.splitlines()) == 1
    assert "name the recordings" in error_of(["classify", folder / "run"], capsys)
    assert "a FILE is empty: name a recording" in error_of(["classify", folder / "run", ""], capsys)
    assert "for texts, not recordings" in error_of(["classify", folder / "run", "a.wav", "--words"], capsys)
    said_ = error_of(["train", "classify", "--data", data], capsys)
    assert "holds recordings; add --level audio" in said_


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"texts": {"data": ""}}, ConfigurationError, "`data` is missing"),
        ({"group": "(x)"}, DataError, "does not match this name"),
        (
            {"group": "(.)", "texts": {"dev": "dev"}},
            ConfigurationError,
            "`group` chooses .* which `dev` names: leave one",
        ),
        ({"texts": {"text_column": "x"}}, ConfigurationError, "`text_column` names a column of a list"),
        ({"model": {"vectors": "v.txt"}}, ConfigurationError, "`vectors` are for words"),
    ],
)
def test_mistakes_in_settings(folder, tmp_path, change, error, reason):
    with pytest.raises(error, match=reason):
        create_run(tmp_path / "run", config(folder / "data", **change))
    assert not (tmp_path / "run").exists()


def test_one_class_and_damage(folder, tmp_path):
    data = write_sounds(tmp_path / "data", 3)
    for name in ("two", "three"):
        for path in (data / name).iterdir():
            path.unlink()
    with pytest.raises(DataError, match="there is only the class 'one' to train on"):
        create_run(tmp_path / "run", config(data, texts={"val_fraction": 0.0}))
    task = create_run(tmp_path / "other", config(folder / "data", normalise="training"))
    stored = json.loads((task.run.path / "sounds.json").read_text())
    (task.run.path / "sounds.json").write_text(json.dumps({**stored, "train": []}))
    with pytest.raises(RunError, match="missing or damaged"):
        ClassifyingTask(open_run(task.run.path)).verify()
    (task.run.path / "sounds.json").write_text(json.dumps({**stored, "mean": [1]}))
    with pytest.raises(RunError, match="mean and deviation do not fit"):
        ClassifyingTask(open_run(task.run.path))


@pytest.mark.parametrize("normalise", ["training", "sequence"])
def test_normalisation(folder, tmp_path, normalise):
    task = create_run(tmp_path / "run", config(folder / "data", normalise=normalise))
    frames = [task.train.tokens[k] for k in range(len(task.train))]
    joined = np.concatenate(frames)
    assert np.allclose(joined.mean(0), 0, atol=1e-2)
    assert np.allclose(joined.std(0), 1, atol=1e-2)
    alone = max(float(np.abs(one.mean(0)).max()) for one in frames)
    assert (alone > 0.1) == (normalise == "training")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rate": 1}, "`rate` must be 0, or from 1,000 to 192,000, got 1"),
        ({"multi": True}, "does not describe recordings"),
        ({"width": 0}, "does not describe recordings"),
        ({"names": ["one", "one", "two"]}, "a class is in it twice"),
        ({"names": [1, 2, 3]}, "names cannot be"),
        ({"counts": [1, 0, 1]}, "`counts` must be at least 1 each"),
    ],
)
def test_damaged_classes_are_errors_that_name_the_file(folder, tmp_path, change, reason):
    task = create_run(tmp_path / "run", config(folder / "data"))
    path = task.run.path / "classes.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RunError, match=f"classes.json: .*{reason}") as caught:
        ClassifyingTask(open_run(task.run.path)).verify()
    assert not caught.value.settings
