"""A segmenter as a task, and its commands: a label for every frame."""

import io
import json
import sys

import numpy as np
import pytest

from tests.cli.shared import error_of
from tests.cli.test_translation import said
from tests.tasks.shared import assert_same_weights, whole_and_resumed
from unrolled.cli import main
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.tasks import load
from unrolled.tasks.segmenting import SegmentingTask, create_run
from unrolled.tasks.segmenting_settings import FramesConfig, SegmenterConfig, SegmentingConfig, SegmentTraining
from unrolled.tasks.segmenting_stream import SegmentStream
from unrolled.training import open_run

SMALL = ["--hidden-size", "16", "--dropout", "0", "--learning-rate", "0.02", "--warmup-steps", "0", "--device", "cpu"]


def sequences(count, seed=0):
    """A label is told by the last of three lamps that shone, so the net must remember it."""
    draw = np.random.default_rng(seed)
    arrays = {}
    for number in range(count):
        labels = np.repeat(draw.permutation(4)[:3], draw.integers(4, 8, 3))
        frames = draw.normal(0, 0.1, (len(labels), 4))
        starts = np.flatnonzero(np.diff(labels, prepend=-1))
        frames[starts, labels[starts]] += 3
        arrays |= {f"s{number:02}_frames": frames, f"s{number:02}_labels": labels}
    return arrays


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segment")
    np.savez(folder / "data.npz", **sequences(40), classes=["cut", "mix", "pour", "serve"])
    np.savez(folder / "new.npz", **sequences(3, 9))
    words = ["train", "segment", "--data", folder / "data.npz", "--no-bidirectional", *SMALL]
    words += ["--max-steps", "150", "--eval-every", "75", "--out", folder / "run"]
    assert main([str(word) for word in words]) == 0
    return folder


def config(folder, training=None, model=None, **frames):
    return SegmentingConfig(
        FramesConfig(**{"data": str(folder / "data.npz"), **frames}),
        SegmenterConfig(**{"hidden_size": 16, "dropout": 0.0, **(model or {})}),
        SegmentTraining(**{"learning_rate": 0.02, "warmup_steps": 0, "eval_every": 50, **(training or {})}),
    )


def test_it_learns_to_remember(folder, capsys):
    report = json.loads(said(capsys, "eval", folder / "run", "--json").out)
    assert report["accuracy"] > 0.95
    assert report["edit"] > 0.8
    assert report["f1_50"] > 0.8
    assert "36 sequences to train on, 4 to validate" in said(capsys, "info", folder / "run").out
    assert "accuracy" in said(capsys, "runs", folder).out
    assert "accuracy" in said(capsys, "eval", folder / "run", "--data", folder / "data.npz").out


def test_frames_as_they_come(folder, capsys, monkeypatch):
    whole = load(folder / "run")
    frames = sequences(1, 5)["s00_frames"]
    wanted = whole.segment([frames])[0]
    text = "\n".join(" ".join(map(repr, row)) for row in frames.tolist())
    monkeypatch.setattr(sys, "stdin", io.StringIO(text + "\n\n"))
    lines = said(capsys, "segment", folder / "run", "-", "--online").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == wanted
    stream = SegmentStream(whole)
    found = [pair for piece in np.array_split(frames, 3) for pair in stream.feed(piece)]
    assert [label for label, _ in found] == wanted
    probabilities = whole.probabilities(frames)
    assert [sure for _, sure in found] == pytest.approx(probabilities.max(1).tolist())


def test_forms_of_output(folder, capsys):
    new = folder / "new.npz"
    segments = [line.split("\t") for line in said(capsys, "segment", folder / "run", new).out.splitlines()]
    frames = [
        line.split("\t") for line in said(capsys, "segment", folder / "run", new, "--to", "frames").out.splitlines()
    ]
    entries = [
        json.loads(line) for line in said(capsys, "segment", folder / "run", new, "--to", "jsonl").out.splitlines()
    ]
    assert [entry["name"] for entry in entries] == ["s00", "s01", "s02"]
    assert [label for entry in entries for label in entry["labels"]] == [row[2] for row in frames]
    assert [[row[0], int(row[1]), int(row[2]), row[3]] for row in segments] == [
        [entry["name"], *segment] for entry in entries for segment in entry["segments"]
    ]
    assert {row[3] for row in segments} <= {"cut", "mix", "pour", "serve"}


def test_a_matrix_of_confusions(folder, tmp_path, capsys):
    words = ["inspect", "confusions", folder / "run", "--data", folder / "data.npz", "--out", tmp_path / "matrix"]
    out = said(capsys, *words).out
    assert "40 sequences" in out
    assert "serve" in (tmp_path / "matrix.svg").read_text()
    assert "exists; choose another --out" in error_of(words, capsys)
    counts = json.loads(said(capsys, "eval", folder / "run", "--data", folder / "data.npz", "--json").out)["confusion"]
    assert sum(sum(row.values()) for row in counts.values()) == sum(len(one) for one in sequences(40).values()) / 2


@pytest.mark.parametrize("model", [{"crf": True}, {"cell": "lstm", "num_layers": 2}])
def test_other_models_learn_and_resume(folder, tmp_path, model):
    settings = config(folder, {"noise": 0.1, "max_steps": 60, "lr_schedule": "constant"}, model)
    whole, resumed = whole_and_resumed(tmp_path, SegmentingTask, settings, 25)
    assert_same_weights(whole, resumed)
    assert whole.score().json()["accuracy"] > 0.8
    with pytest.raises(ConfigurationError, match="cannot label frames as they come") as caught:
        SegmentStream(whole)
    assert set(caught.value.settings) == {"no_bidirectional", *(["no_crf"] if model.get("crf") else [])}


def test_parts_and_what_training_lacks(folder, tmp_path):
    task = create_run(tmp_path / "named", config(folder, held_out="s0*", background="cut"))
    assert [task.names[k] for k in task.dev] == [f"s0{k}" for k in range(10)]
    assert task.score().json()["edit"] >= 0
    arrays = {**sequences(2, 3), "s00_labels": np.full(len(sequences(2, 3)["s00_labels"]), 7)}
    np.savez(tmp_path / "dev.npz", **arrays)
    task = create_run(tmp_path / "dev", config(folder, dev=str(tmp_path / "dev.npz"), data=str(folder / "new.npz")))
    assert any("1 label that training lacks (7)" in note for note in task.noticed.notes)
    assert task.validate() is not None
    assert task.score().json()["accuracy"] < 1


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"data": ""}, ConfigurationError, "`data` is missing"),
        ({"held_out": "nothing*"}, DataError, r"no sequence \(the first is s00\)"),
        ({"held_out": "*"}, DataError, "all sequences"),
        ({"held_out": "s0*", "dev": "x.npz"}, ConfigurationError, "`held_out` chooses .* which `dev` names: leave one"),
        ({"background": "sleep"}, ConfigurationError, "no frame has this label"),
    ],
)
def test_mistakes_in_settings(folder, tmp_path, change, error, reason):
    with pytest.raises(error, match=reason):
        create_run(tmp_path / "run", config(folder, **change))
    assert not (tmp_path / "run").exists()


def test_mistakes_in_use(folder, tmp_path, capsys, monkeypatch):
    np.savez(tmp_path / "wide.npz", frames=np.zeros((3, 9)))
    assert "must be [T, 4], as in training" in error_of(["segment", folder / "run", tmp_path / "wide.npz"], capsys)
    words = ["segment", folder / "run", "-", "--online", "--to", "jsonl"]
    assert "--to is about whole sequences" in error_of(words, capsys)
    assert "only --online reads standard input" in error_of(["segment", folder / "run"], capsys)
    for text, reason in (
        ("1 2 3 x\n", "line 1: could not convert"),
        ("1 2 3 nan\n", "not finite"),
        ("1 2 3 1e39\n", "standard input: line 1 holds a number that is not finite, or too large"),
        ("1 2 3 4\n\n5 6 7 x\n", "standard input: line 3: could not convert string to float: 'x'"),
        ("1 2 3 4\n\n1 2\n", "line 3 must hold 4 numbers, as each frame of training, and holds 2"),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        assert reason in error_of(["segment", folder / "run", "-", "--online"], capsys)
    (tmp_path / "latin").write_bytes(b"1 2 3 4\n\xe9 2 3 4\n")
    words = ["segment", folder / "run", tmp_path / "latin", "--online"]
    assert "latin: line 2 is not UTF-8 text" in error_of(words, capsys)
    monkeypatch.chdir(folder)  # which holds archives
    for words in (["segment", folder / "run", ""], ["segment", folder / "run", "", "--online"]):
        assert "a FILE is empty: name a file or a folder" in error_of(words, capsys)
    np.savez(tmp_path / "large.npz", a_frames=np.full((3, 4), 1e39), a_labels=["cut"] * 3)
    assert "a: some features are above 3.40282e+38" in error_of(
        ["segment", folder / "run", tmp_path / "large.npz"], capsys
    )
    with pytest.raises(DataError, match=r"a: some features are above 3.40282e\+38; scale them"):
        create_run(tmp_path / "large", config(folder, data=str(tmp_path / "large.npz")))
    task = create_run(tmp_path / "run", config(folder))
    stored = json.loads((task.run.path / "sequences.json").read_text())
    (task.run.path / "sequences.json").write_text(json.dumps({**stored, "mean": [0]}))
    with pytest.raises(RunError, match="missing or damaged"):
        SegmentingTask(open_run(task.run.path))


@pytest.mark.parametrize(
    ("file", "name", "change"),
    [
        ("sequences.json", "labels", lambda found: [None, *found[1:]]),
        ("sequences.json", "labels", lambda found: [7, *found[1:]]),
        ("sequences.json", "labels", lambda found: [[1, *found[0][1:]], *found[1:]]),
        ("sequences.json", "labels", lambda found: [*found[:-1], [None, *found[-1][1:]]]),
        ("sequences.json", "labels", lambda found: [*found[:-1], [["cut"], *found[-1][1:]]]),
        ("sequences.json", "labels", lambda found: [found[0][1:], *found[1:]]),
        ("sequences.json", "names", lambda found: [*found[:-1], None]),
        ("noticed.json", "width", lambda found: -1),
        ("vocabulary-labels.json", None, lambda found: []),
    ],
)
def test_damaged_runs_are_errors_that_name_the_file(folder, tmp_path, file, name, change):
    task = create_run(tmp_path / "run", config(folder))
    stored = json.loads((task.run.path / file).read_text())
    changed = change(stored) if name is None else {**stored, name: change(stored[name])}
    (task.run.path / file).write_text(json.dumps(changed))
    with pytest.raises(RunError, match=file) as caught:
        SegmentingTask(open_run(task.run.path)).validate()
    assert not caught.value.settings
    assert "\n" not in str(caught.value)
