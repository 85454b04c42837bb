"""`unrolled train tree` on made-up trees, whose labels follow from their words."""

import numpy as np
import pytest

from tests.cli.shared import error_of
from unrolled.cli import main
from unrolled.tasks.sentiment import SentimentTask
from unrolled.training import Run


def tree(generator, words):
    """A random bracketing; a node is positive (4) or negative (0) as most of its words are, else neutral."""
    nodes = [(f"({4 if word == 'good' else 0} {word})", 1 if word == "good" else -1) for word in words]
    while len(nodes) > 1:
        k = int(generator.integers(len(nodes) - 1))
        (left, a), (right, b) = nodes[k : k + 2]
        label = 2 + 2 * int(np.sign(a + b))
        nodes[k : k + 2] = [(f"({label} {left} {right})", a + b)]
    return nodes[0][0]


@pytest.fixture
def trees(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for name, count in (("train", 200), ("dev", 60)):
        made = [tree(generator, generator.choice(["good", "bad"], generator.integers(1, 7))) for _ in range(count)]
        (tmp_path / f"{name}.txt").write_text("\n".join(made) + "\n")
    return tmp_path


SMALL = ["--hidden-size", "8", "--embedding-size", "4", "--batch-size", "20", "--dropout", "0", "--eval-every", "20"]


@pytest.mark.parametrize("cell", ["composed", "tree-lstm"])
def test_it_learns(cell, trees, capsys):
    words = [
        "train",
        "tree",
        "--data",
        ".",
        "--cell",
        cell,
        *SMALL,
        "--epochs",
        "15",
        "--warmup-steps",
        "5",
        "--learning-rate",
        "0.02",
    ]
    assert main([*words, "--out", "run", "--sample-every", "20"]) == 0
    out = capsys.readouterr().out
    assert "of five labels" in out
    assert "label " in out
    task = SentimentTask(Run.open("run")).load()
    score = task.score()
    assert score.binary > 0.85
    assert f"{score.binary:.1%}" in out
    assert main(["train", "tree", "--resume", "run"]) == 0


def test_vectors_to_start_from(trees, capsys):
    (trees / "glove.txt").write_text("good 1 0 0 1\nother 2 2 2 2\nbad -1 0 0 -1\n")
    words = ["train", "tree", "--data", ".", *SMALL, "--max-steps", "1", "--learning-rate", "1e-6"]
    assert main([*words, "--vectors", "glove.txt", "--out", "run"]) == 0
    assert "vectors of 2 of 3 words" in capsys.readouterr().out
    task = SentimentTask(Run.open("run")).load()
    good, bad = (task.model.embedding.weight[task.words.index(word)].tolist() for word in ("good", "bad"))
    assert good == pytest.approx([-value for value in bad], abs=1e-4)
    assert good[0] == pytest.approx(good[3], abs=1e-4)
    assert "--embedding-size is 5" in error_of([*words, "--vectors", "glove.txt", "--embedding-size", "5"], capsys)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "name the folder"),
        (["--data", "none"], "train.txt: no such file"),
        (["--data", "bad"], "train.txt:1: a label"),
        (["--data", "six"], "labels go from 0 to 4"),
        (["--data", ".", "--cell", "tree"], "--cell: unknown value"),
        (["--data", ".", "--vectors", "none.txt"], "none.txt: no such file"),
        (["--resume", "none"], "no such run"),
    ],
)
def test_mistakes(words, expected, trees, capsys):
    for name, text in (("bad", "(x y)"), ("six", "(6 y)")):
        (trees / name).mkdir()
        for part in ("train", "dev"):
            (trees / name / f"{part}.txt").write_text(text)
    assert expected in error_of(["train", "tree", *words], capsys)
    assert not (trees / "runs").exists() or not list((trees / "runs").iterdir())
