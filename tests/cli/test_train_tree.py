"""`unrolled train tree` on made-up trees, whose labels follow from their words."""

import json

import numpy as np
import pytest
import torch

from tests.cli.shared import error_of
from unrolled.cli import main
from unrolled.data.trees import batch_trees
from unrolled.tasks.sentiment import SentimentTask
from unrolled.training import open_run


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


@pytest.fixture
def trained(trees, capsys):
    assert main(["train", "tree", "--data", ".", *SMALL, "--epochs", "2", "--out", "run"]) == 0
    capsys.readouterr()
    return trees


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
    assert "unrolled eval run" in out
    task = SentimentTask(open_run("run")).load()
    score = task.score_trees()
    assert score.root.binary > 0.85
    assert f"{score.root.binary:.1%}" in out
    assert main(["train", "tree", "--resume", "run", "--epochs", "16"]) == 0
    assert "resumed at step 150" in capsys.readouterr().out
    assert json.loads((trees / "run" / "config.json").read_text())["config"]["training"]["epochs"] == 16


def test_scores_are_those_of_a_plain_count(trained, capsys):
    task = SentimentTask(open_run("run")).load()
    counts = {"root": [], "all_nodes": []}
    with torch.no_grad():
        for tree in task.dev:
            batch, labels = batch_trees([tree], [task.encode(tree)])
            for k, (row, label) in enumerate(zip(task.model(batch).softmax(-1), labels.tolist(), strict=True)):
                judged = (label, int(row.argmax()) == label, bool(row[3:].sum() > row[:2].sum()) == (label > 2))
                counts["all_nodes"].append(judged)
                if k == int(batch.roots[0]):
                    counts["root"].append(judged)
    assert main(["eval", "run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["trees"] == 60
    for name, judged in counts.items():
        polar = [right for label, _, right in judged if label != 2]
        assert (told[name]["nodes"], told[name]["polar"]) == (len(judged), len(polar))
        assert told[name]["fine"] == pytest.approx(sum(fine for _, fine, _ in judged) / len(judged))
        assert told[name]["binary"] == pytest.approx(sum(polar) / len(polar))


def test_eval_of_a_folder_of_a_file_and_of_a_test_part(trained, capsys):
    assert main(["eval", "run", "--data", "."]) == 0
    out = capsys.readouterr().out
    assert out.startswith("dev.txt: 60 trees")
    assert "all nodes" in out
    (trained / "test.txt").write_text("(4 good)\n(0 bad)\n")
    assert main(["eval", "run", "--data", "."]) == 0
    assert capsys.readouterr().out.startswith("test.txt: 2 trees, 2 nodes")
    assert main(["eval", "run", "--data", "test.txt", "dev.txt"]) == 0
    assert capsys.readouterr().out.startswith("test.txt, dev.txt: 62 trees")
    (trained / "six.txt").write_text("(6 good)")
    assert "is not from 0 to 4" in error_of(["eval", "run", "--data", "six.txt"], capsys)
    assert "--source does not apply to a sentiment run" in error_of(["eval", "run", "--source", "dev.txt"], capsys)
    assert "none: no such file" in error_of(["eval", "run", "--data", "none"], capsys)


def test_a_run_is_described_and_listed(trained, capsys):
    assert main(["info", "run"]) == 0
    out = capsys.readouterr().out
    for expected in ("200 to train on, 60 of dev", "20 trees", "unrolled eval run", "unrolled train tree --resume run"):
        assert expected in out
    assert main(["runs", ".", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["task"], row["cell"], row["units"]) == ("sentiment", "tree-lstm", "8")


def test_what_a_resumed_run_may_not_change_and_damage(trained, capsys):
    resume = ["train", "tree", "--resume", "run"]
    assert "--hidden-size cannot change" in error_of([*resume, "--hidden-size", "9"], capsys)
    path = trained / "run" / "trees.json"
    path.write_text(path.read_text().replace("[0,", "[7,", 1))
    assert "not a labelled tree" in error_of([*resume, "--epochs", "3"], capsys)


def test_vectors_to_start_from(trees, capsys):
    (trees / "glove.txt").write_text("good 1 0 0 1\nother 2 2 2 2\nbad -1 0 0 -1\n")
    words = ["train", "tree", "--data", ".", *SMALL, "--max-steps", "1", "--learning-rate", "1e-6"]
    assert main([*words, "--vectors", "glove.txt", "--out", "run"]) == 0
    assert "3 words, 2 of them started from glove.txt" in capsys.readouterr().out
    task = SentimentTask(open_run("run")).load()
    good, bad = (task.model.embedding.weight[task.words.index(word)].tolist() for word in ("good", "bad"))
    assert good == pytest.approx([-value for value in bad], abs=1e-4)
    assert good[0] == pytest.approx(good[3], abs=1e-4)
    assert "add --embedding-size 4" in error_of([*words, "--vectors", "glove.txt", "--embedding-size", "5"], capsys)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "name the folder"),
        (["--data", "none"], "train.txt: no such file"),
        (["--data", "bad"], "train.txt:1: a label"),
        (["--data", "six"], "label 6 is not from 0 to 4"),
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


def test_gradients_of_the_loss_at_every_height(trained, capsys):
    assert main(["inspect", "gradients", "run", "--state", "c"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("cell "))
    assert 2 <= int(row.split()[1]) <= 5  # trees have up to six leaves
    assert (trained / "gradients.png").exists()
