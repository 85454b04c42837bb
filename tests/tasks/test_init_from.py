"""A new run that starts from another run's weights: what is taken, what is fresh, and that it stands alone then."""

import hashlib
import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

import unrolled
from tests.cli.shared import error_of
from tests.programs import PRELOADED, completed, started, wait_until
from tests.training.killed import number_pairs, write_trees
from unrolled.cli import main
from unrolled.errors import ConfigurationError, RunError
from unrolled.tasks import Task, open_info, open_task
from unrolled.tasks.inherit import inherited
from unrolled.tasks.language import LanguageTask
from unrolled.tasks.language_settings import LanguageConfig, ModelConfig, StreamTraining, TextConfig
from unrolled.tasks.pairs import ModelConfig as PairModel
from unrolled.tasks.pairs import PairsConfig, SentenceTraining, TranslationConfig
from unrolled.tasks.segmenting import SegmentingTask
from unrolled.tasks.segmenting_settings import FramesConfig, SegmenterConfig, SegmentingConfig
from unrolled.tasks.sentiment import SentimentTask
from unrolled.tasks.sentiment_settings import SentimentConfig, TreeConfig, TreeModelConfig
from unrolled.tasks.start import Start
from unrolled.tasks.translation import TranslationTask
from unrolled.training import Trainer, TrainingConfig, open_run
from unrolled.training.checkpoint import Checkpoint, Checkpoints
from unrolled.training.processes import Processes

ONE = "Zoë said: grüß dich, naïve 世界!\n"
OTHER = "Zoë asked: was kostet die Welt, 世界?\n"


def shaken(task):
    """The task with other weights than it drew, and a checkpoint of them."""
    draw = torch.Generator().manual_seed(99)
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw))
    Trainer(task, task.config.training, task.run, Console(quiet=True)).save_beginning()
    return task


def begun(kind, folder, settings, other):
    """A run with `settings`, one with `other` that starts from it, and one with `other` that does not."""
    source = shaken(kind.create(folder / "source", settings))
    start = Start(folder / "source")
    return source, kind.create(folder / "new", other, start=start), kind.create(folder / "fresh", other), start


def check_rows(name, keys, weights, axis=0):
    """Of the weights of the source, the new run and a fresh one: rows of tokens known to the source are the source's.

    keys: the tokens of the source and of the new run.
    """
    before, new, fresh = (each[name].movedim(axis, 0) for each in weights)
    theirs, ours = keys
    assert len(theirs) == len(before)
    assert len(ours) == len(new)
    for number, key in enumerate(ours):
        assert torch.equal(new[number], before[theirs.index(key)] if key in theirs else fresh[number]), (name, key)


def language(path, text, level="char", **model):
    path.write_text(text * 60, encoding="utf-8")
    training = StreamTraining(batch_size=2, seq_length=8, max_steps=2, device="cpu")
    sizes = {"hidden_size": (6,), "num_layers": 1, "embedding_size": 5, **model}
    size = 300 if level == "bpe" else None
    return LanguageConfig(TextConfig((str(path),), level=level, vocab_size=size), ModelConfig(**sizes), training)


@pytest.mark.parametrize(
    ("level", "model"),
    [
        ("char", {}),
        ("word", {}),
        ("bpe", {}),
        ("char", {"embedding_size": 6, "tie_weights": True}),
        ("char", {"embedding_size": 0, "hidden_size": (20, 22)}),  # as many units as tokens, which must not be mixed up
        ("char", {"embedding_size": 0, "cell": "mut1"}),
    ],
)
def test_rows_of_known_tokens_are_taken_and_others_fresh(level, model, tmp_path):
    settings, other = (
        language(tmp_path / name, text, level, **{"num_layers": None, **model})
        for name, text in (("one", ONE), ("other", OTHER))
    )
    source, new, fresh, start = begun(LanguageTask, tmp_path, settings, other)
    keys = [[task.vocabulary.spelling(k) for k in range(len(task.vocabulary))] for task in (source, new)]
    known = len(set(keys[0]) & set(keys[1]))
    assert 0 < known < len(keys[1])
    said = f"{known} of {len(keys[1])} tokens are known to {tmp_path / 'source'}; {len(keys[1]) - known} new ones"
    assert start.notes == [f"vocabulary: {said} start fresh"]
    weights = [task.model.state_dict() for task in (source, new, fresh)]
    rows = {"readout.weight": 0, "readout.bias": 0, "embedding.weight": 0}
    if not model.get("embedding_size", 1):
        del rows["embedding.weight"]
        for name, weight in new.model.recurrent.named_parameters():
            if list(weight.shape)[-1] == len(keys[1]) and list(source.model.recurrent.get_parameter(name).shape)[
                -1
            ] == len(keys[0]):
                rows[f"recurrent.{name}"] = 1
        assert len(rows) > 2
    for name in weights[1]:
        if name in rows:
            check_rows(name, keys, weights, rows[name])
        else:
            assert torch.equal(weights[0][name], weights[1][name])
    assert (
        weights[1]["readout.weight"].data_ptr() == weights[1].get("embedding.weight", torch.empty(0)).data_ptr()
    ) == ("tie_weights" in model)


@pytest.mark.parametrize("level", ["char", "byte"])
def test_the_same_vocabulary_keeps_all_weights(level, tmp_path):
    other = ONE if level == "char" else OTHER
    settings = [language(tmp_path / name, text, level) for name, text in (("one", ONE), ("other", other))]
    source, new, _, start = begun(LanguageTask, tmp_path, *settings)
    weights = source.model.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in new.model.state_dict().items())
    assert start.notes == [f"vocabulary: all {len(new.vocabulary)} tokens are known to {tmp_path / 'source'}"]


def test_new_words_start_from_vectors_and_known_ones_from_the_run(tmp_path):
    (tmp_path / "vectors").write_text("Zoë 1 1 1 1 1\nwas 2 2 2 2 2\nkostet 3 3 3 3 3\n", encoding="utf-8")
    settings = language(tmp_path / "one", ONE, "word", vectors=str(tmp_path / "vectors"), fix_vectors=True)
    before = inherited(LanguageTask, settings)
    assert (before.model.vectors, before.model.fix_vectors) == (None, False)
    other = language(tmp_path / "other", OTHER, "word", vectors=str(tmp_path / "vectors"))
    source, new, _, _ = begun(LanguageTask, tmp_path, settings, other)
    row = {word: new.model.embedding.weight[k].tolist() for k, word in enumerate(new.vocabulary.words)}
    assert row["kostet"] == [3.0] * 5
    place = source.vocabulary.words.index("Zoë")
    assert row["Zoë"] == source.model.embedding.weight[place].tolist() != [1.0] * 5
    assert new.model.embedding.weight.requires_grad


@pytest.mark.parametrize("separate", [False, True])
def test_translation(separate, tmp_path):
    english, german = number_pairs(40)
    for name, lines in (
        ("en", english),
        ("de", german),
        ("changed", [line.replace("two", "zwo too") for line in english]),
    ):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    model = PairModel(hidden_size=4, embedding_size=6)
    training = SentenceTraining(batch_size=8, max_steps=2, device="cpu")

    def settings(source):
        pairs = PairsConfig(str(tmp_path / source), str(tmp_path / "de"), level="word", separate=separate)
        return TranslationConfig(pairs, model, training)

    source, new, fresh, start = begun(TranslationTask, tmp_path, settings("en"), settings("changed"))
    weights = [task.model.state_dict() for task in (source, new, fresh)]
    sides = {"source_embedding.weight": "source", "readout.weight": "target", "readout.bias": "target"}
    for name, side in {**sides, "target_embedding.weight": "target"}.items():
        keys = [[*getattr(task, side).words, "\n\n"] for task in (source, new)]  # with the end of a sentence
        check_rows(name, keys, weights)
    others = [name for name in weights[1] if "embedding" not in name and name not in sides]
    assert len(others) > 10
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in others)
    assert len(start.notes) == 1 + separate
    assert "2 new ones start fresh" in start.notes[0]
    assert not separate or start.notes[1].startswith("target vocabulary: all ")


def test_trees(tmp_path):
    write_trees(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    for name in ("train.txt", "dev.txt"):
        (other / name).write_text((tmp_path / name).read_text().replace("bad", "poor"))
    model = TreeModelConfig(hidden_size=4, embedding_size=3)
    settings = [SentimentConfig(TreeConfig(str(folder)), model) for folder in (tmp_path, other)]
    source, new, fresh, start = begun(SentimentTask, tmp_path, *settings)
    weights = [task.model.state_dict() for task in (source, new, fresh)]
    check_rows("embedding.weight", [source.words, new.words], weights)
    assert torch.equal(weights[0]["readout.weight"], weights[1]["readout.weight"])
    assert start.notes == [f"vocabulary: 2 of 3 tokens are known to {tmp_path / 'source'}; 1 new one starts fresh"]


def test_labels_of_which_the_other_run_has_none_start_fresh(tmp_path):
    frames = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    settings = []
    for names in (["cut", "mix", "pour"], ["run", "walk", "sit", "lie"]):
        labels = np.resize(names, 12)
        np.savez(tmp_path / f"{names[0]}.npz", a_frames=frames, a_labels=labels, b_frames=frames, b_labels=labels)
        model = SegmenterConfig(hidden_size=5, crf=True)
        settings.append(SegmentingConfig(FramesConfig(str(tmp_path / f"{names[0]}.npz"), val_fraction=0.0), model))
    source, new, fresh, start = begun(SegmentingTask, tmp_path, *settings)
    assert start.notes == [f"labels: none of the 4 tokens is known to {tmp_path / 'source'}; all start fresh"]
    weights = [task.model.state_dict() for task in (source, new, fresh)]
    of_labels = {"readout.weight", "readout.bias", "crf.starts", "crf.ends", "crf.transitions"}
    assert of_labels < weights[1].keys()
    for name, weight in weights[1].items():
        assert torch.equal(weight, weights[2 if name in of_labels else 0][name]), name


@pytest.mark.parametrize("name", ["tag", "classify"])
def test_commands_say_that_no_label_is_known(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for file, labels in (("one", ("X", "Y")), ("two", ("V", "W"))):
        if name == "tag":
            text = f"Anna {labels[0]}\nsleeps {labels[1]}\n\n" * 10
        else:
            text = "text,label\n" + "".join(f"so {word},{word}\n" for word in labels) * 10
        Path(f"{file}.csv").write_text(text)
    few = ["--hidden-size", "4", "--max-steps", "1", "--device", "cpu"]
    assert main(["train", name, "--data", "one.csv", *few, "--out", "a"]) == 0
    assert main(["train", name, "--data", "two.csv", *few[2:], "--init-from", "a", "--out", "b"]) == 0
    said = capsys.readouterr().out
    assert f"{'tags' if name == 'tag' else 'classes'}: none of the 2 tokens is known to a; all start fresh" in said


@dataclass(frozen=True)
class Size:
    size: int = 3


@dataclass(frozen=True)
class Settings:
    model: Size = Size()
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(device="cpu"))


class Plain(Task):
    """A task of somebody else's, with what it must define alone."""

    name, Settings = "plain", Settings

    def build(self):
        return nn.Linear(self.config.model.size, 1)

    def epoch(self, number):
        return [None]

    def loss(self, batch, state):
        raise AssertionError("nothing is trained here")


@pytest.fixture
def plain(monkeypatch, tmp_path):
    monkeypatch.setattr("unrolled.tasks._registered", {"plain": Plain})
    return tmp_path


def test_a_task_of_somebody_elses_takes_weights_of_the_same_shapes(plain):
    source, new, _, start = begun(Plain, plain, Settings(), Settings())
    assert torch.equal(source.model.weight, new.model.weight)
    assert start.notes == []


def test_it_is_opened_from_python_too(plain):
    shaken(Plain.create(plain / "source", Settings()))
    task = unrolled.load(plain / "source")
    with pytest.raises(RunError, match="nothing was held out"):
        task.score()
    task.validate = lambda step=None: 0.5
    assert task.score().json() == {"loss": 0.5}
    with pytest.raises(ConfigurationError, match="a plain run has no use for `data`: it is scored on what it held out"):
        task.score("text.txt")


def test_weights_of_other_shapes_are_refused_and_nothing_is_left(plain):
    shaken(Plain.create(plain / "source", Settings()))
    with pytest.raises(RunError, match=r"source: its weight weight is \[1, 3\], the new model's \[1, 4\]") as caught:
        Plain.create(plain / "new", Settings(Size(4)), start=Start(plain / "source"))
    assert caught.value.setting == "init_from"
    assert not (plain / "new").exists()
    with pytest.raises(RunError, match="a plain run cannot start a language model run"):
        LanguageTask.create(plain / "new", language(plain / "one", ONE), start=Start(plain / "source"))
    assert not (plain / "new").exists()


# -- the command -----------------------------------------------------------------------------------------------------

FEW = ["--batch-size", "2", "--seq-length", "8", "--sample-every", "0", "--log-every", "1", "--device", "cpu"]
MODEL = ["--hidden-size", "6", "--num-layers", "1", "--embedding-size", "5", "--cell", "gru"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run `a`, whose best checkpoint is not its last, and another text."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "one.txt").write_text(ONE * 60, encoding="utf-8")
    (folder / "other.txt").write_text(OTHER * 60, encoding="utf-8")
    words = ["--data", str(folder / "one.txt"), "--out", str(folder / "a"), "--max-steps", "3", "--eval-every", "2"]
    assert main(["train", "lm", *words, *MODEL, *FEW]) == 0
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A copy of it, which is the current folder."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


NEW = ["train", "lm", "--data", "other.txt", "--init-from", "a", *FEW]


def weights(run, step):
    return (Path(run) / "checkpoints" / f"step-{step:08d}" / "model.safetensors").read_bytes()


def test_what_is_said_and_recorded(folder, capsys):
    assert main([*NEW, "--max-steps", "2", "--dropout", "0.3", "--out", "b"]) == 0
    said = capsys.readouterr().out
    origin = open_run("b").origin
    assert (origin.run, origin.checkpoint, origin.step) == ("a", "best", 3)
    assert origin.weights == hashlib.sha256(weights("a", 3)).hexdigest()
    assert f"start  a, best checkpoint at step 3 (SHA-256 {origin.weights[:12]})" in said
    assert "vocabulary: 14 of 20 tokens are known to a; 6 new ones start fresh" in said
    config = open_info("b").config
    assert config.model == replace(open_info("a").config.model, dropout=0.3)
    assert config.training.max_steps == 2
    assert main(["info", "b"]) == 0
    assert f"started from a, best checkpoint at step 3 (SHA-256 {origin.weights[:12]})" in capsys.readouterr().out
    start = load_file("b/checkpoints/step-00000000/model.safetensors")
    before = load_file("a/checkpoints/step-00000003/model.safetensors")
    assert {name for name in before if torch.equal(start.get(name, torch.empty(0)), before[name])} == {
        name for name in before if name.startswith("recurrent.")
    }


def test_the_checkpoint_may_be_chosen(folder):
    described = json.loads(Path("a/checkpoints/step-00000003/checkpoint.json").read_text())
    one = Checkpoint(folder, **{name: value for name, value in described.items() if name != "digest"} | {"best": False})
    Path("a/checkpoints/step-00000003/checkpoint.json").write_text(json.dumps({**one.stored(), "digest": one.digest()}))
    for which, step in (("best", 2), ("last", 3)):
        assert main([*NEW, "--max-steps", "1", "--out", which, "--init-checkpoint", which]) == 0
        assert open_run(which).origin.step == step


def test_killed_before_its_first_checkpoint_it_goes_on_alone(folder):
    limit = ["--eval-every", "1000", "--max-steps"]
    assert main([*NEW, *limit, "8", "--out", "whole"]) == 0
    with started([PRELOADED, "-m", "unrolled", *NEW, *limit, "100000", "--out", "parts"]) as process:
        wait_until(lambda: Path("parts/metrics.jsonl").exists() and Path("parts/metrics.jsonl").stat().st_size, process)
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    assert [path.name for path in Path("parts/checkpoints").glob("step-*")] == ["step-00000000"]
    shutil.rmtree("a")
    assert main(["train", "lm", "--resume", "parts", "--max-steps", "8"]) == 0
    assert weights("parts", 0) == weights("whole", 0)
    assert weights("parts", 8) == weights("whole", 8)
    assert open_run("parts").origin == open_run("whole").origin
    shown = [[record["loss"] for record in open_run(run).metrics() if "loss" in record] for run in ("parts", "whole")]
    assert shown[0] == shown[1]
    assert len(shown[0]) == 8


def test_weights_of_the_other_run_are_not_the_best_of_this_one(folder):
    """Where training was interrupted before it validated anything."""
    new = LanguageTask.create(folder / "b", language(folder / "other", OTHER, cell="gru"), start=Start("a"))
    checkpoints = Checkpoints(new.run)
    assert checkpoints.find("best").step == 0
    checkpoints.save(new.model, {"step": 2}, best=False)
    assert checkpoints.find("best").step == 2


@pytest.mark.parametrize("name", ["lm", "translate", "reply", "tree", "tag"])
def test_the_help_of_every_task_shows_it(name, capsys):
    with pytest.raises(SystemExit) as ending:
        main(["train", name, "--init-from", "nowhere", "--help"])
    assert not ending.value.code
    assert "--init-from RUN" in capsys.readouterr().out


def test_without_its_first_weights_it_does_not_go_on(folder, capsys):
    assert main([*NEW, "--max-steps", "1", "--out", "b"]) == 0
    shutil.rmtree("b/checkpoints")
    assert "b: no checkpoint yet" in error_of(["train", "lm", "--resume", "b", "--max-steps", "2"], capsys)


def test_a_process_that_did_not_create_the_run_reads_its_first_weights(folder):
    assert main([*NEW, "--max-steps", "1", "--out", "b"]) == 0
    shutil.rmtree("b/checkpoints/step-00000001")
    task, start = open_task("b", "cpu"), load_file("b/checkpoints/step-00000000/model.safetensors")
    assert not torch.equal(task.model.readout.weight, start["readout.weight"])
    processes = Processes()
    processes.rank, processes.size = 1, 2
    Trainer(task, task.config.training, task.run, Console(quiet=True), resume=True, processes=processes)
    assert all(torch.equal(weight, start[name]) for name, weight in task.model.state_dict().items())


@pytest.mark.slow
def test_two_processes_start_from_the_same_weights(folder):
    limit = ["--max-steps", "3", "--dropout", "0", "--out"]
    assert main([*NEW, *limit, "one"]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "unrolled"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert "2 processes" in completed([*torchrun, *NEW, *limit, "two"], env=environment, check=True).stdout
    assert weights("two", 0) == weights("one", 0)
    one, two = ([record["loss"] for record in open_run(run).metrics() if "loss" in record] for run in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize(
    ("words", "expected"),
    {
        "--hidden-size 7": "--init-from a: its weights need --hidden-size 6 (not --hidden-size 7); leave out what differs",
        "--level word --cell lstm": "need --level char (not --level word), --cell gru (not --cell lstm); leave",
        "--tie-weights": "need --no-tie-weights (not --tie-weights); leave out",
        "--num-layers 2": "need --num-layers 1 (not --num-layers 2)",
        "--resume a": "--init-from starts a new run and --resume goes on with one; give one of them",
        "--init-from=nowhere": "nowhere: no such run directory",
        "--init-from=": "--init-from: the path is empty",
        "--init-from": "--init-from",
        "--init-checkpoint first": "--init-checkpoint cannot be 'first'",
    }.items(),
)
def test_mistakes(words, expected, folder, capsys):
    assert expected in error_of([*NEW, *words.split()], capsys)
    assert not Path("runs").exists()


def test_more_mistakes(folder, capsys):
    assert "a: a language model run cannot start a run of train reply" in error_of(
        ["train", "reply", "--init-from", "a"], capsys
    )
    assert "--init-checkpoint chooses weights of --init-from" in error_of(
        ["train", "lm", "--init-checkpoint", "last"], capsys
    )
    shutil.rmtree("a/checkpoints")
    assert "a: no checkpoint yet" in error_of([*NEW, "--out", "b"], capsys)
    assert not Path("b").exists()


def test_a_level_that_takes_a_size_is_known_before_the_flags_are_read(folder, capsys):
    words = ["train", "lm", "--data", "one.txt", "--level", "bpe", "--vocab-size", "270", *MODEL, *FEW]
    assert main([*words, "--max-steps", "1", "--out", "pieces"]) == 0
    new = ["train", "lm", "--data", "other.txt", "--init-from", "pieces", *FEW, "--max-steps", "1"]
    for size, flags in ((270, []), (280, ["--vocab-size", "280"])):
        assert main([*new, *flags, "--out", f"new-{size}"]) == 0
        assert open_info(f"new-{size}").counts["vocabulary"] == size


def test_a_damaged_origin_is_an_error_of_one_line(folder, capsys):
    assert main([*NEW, "--max-steps", "1", "--out", "b"]) == 0
    stored = json.loads(Path("b/config.json").read_text())
    for origin in ([], {}, {**stored["origin"], "step": "3"}, {**stored["origin"], "more": 1}):
        Path("b/config.json").write_text(json.dumps({**stored, "origin": origin}))
        assert "b/config.json" in error_of(["info", "b"], capsys)
