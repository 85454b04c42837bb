"""Neighbours, analogies and maps of vectors that were made up so that the answers are known."""

import re

import numpy as np
import pytest

from tests.cli.shared import SMALL, error_of
from unrolled.analysis.words import AnalogyScore, Neighbours, flatten, score_analogies
from unrolled.cli import main
from unrolled.data import LEVELS
from unrolled.data.vectors import WordVectors, read_vectors
from unrolled.errors import ConfigurationError, DataError
from unrolled.tasks.language import LanguageTask
from unrolled.training import open_run

WORDS = ("king", "queen", "man", "woman", "apple", "pear")
#: Royal, female, fruit, and a bit of its own.
VALUES = np.array(
    [[3, 0, 0, 0], [3, 2, 0, 0], [0.5, 0, 0, 1], [0.5, 2, 0, 1], [0, 0, 3, 0], [0, 0, 3, 0.3]], dtype=float
)


@pytest.fixture
def made():
    return Neighbours(WordVectors(WORDS, VALUES.astype(np.float32)))


def test_neighbours_and_analogies(made):
    assert made.nearest(made.vector("apple"), 1, ["apple"])[0][0] == "pear"
    assert made.analogy("king", "man", "woman")[0][0] == "queen"
    assert len(made.analogy("king", "man", "woman", 10)) == 3
    with pytest.raises(ConfigurationError, match="did you mean 'queen'"):
        made.vector("quen")


def test_questions(made, tmp_path):
    path = tmp_path / "questions.txt"
    family = ": family\nman king woman queen\nMan King woman queen\nman king woman duchess\n"
    path.write_text(f"man king woman pear\n{family}: of tea and cake\ntea cake woman man\n")
    assert score_analogies(made, path) == {
        "": AnalogyScore(0, 1, 0),
        "family": AnalogyScore(2, 2, 1),
        "of tea and cake": AnalogyScore(0, 0, 1),
    }
    path.write_text("one two\n")
    with pytest.raises(DataError, match=r"questions.txt:1: four words"):
        score_analogies(made, path)


def test_the_map_keeps_distances_that_lie_in_a_plane():
    places = np.random.default_rng(0).standard_normal((6, 2)) @ np.random.default_rng(1).standard_normal((2, 5))
    flat = flatten(places)
    between = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (places, flat)]
    assert np.allclose(*between)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [f"{word} {' '.join(map(str, row))}" for word, row in zip(WORDS, VALUES, strict=True)]
    (tmp_path / "glove.txt").write_text("\n".join(lines) + "\n")
    words = ["inspect", "words", "glove.txt", "--nearest", "apple", "--analogy", "king", "man", "woman"]
    (tmp_path / "questions.txt").write_text(": family\nman king woman queen\nman king woman apple\n")
    words += ["--questions", "questions.txt"]
    assert main([*words, "--map", *WORDS, "--export", "copy.txt", "--count", "2"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"family +1 +2 +50.0% +0\nall +1 +2 +50.0% +0", out)
    assert "pear" in out
    assert "queen" in out
    assert (tmp_path / "words.png").exists()
    assert read_vectors("copy.txt").words == WORDS
    assert "--overwrite" in error_of(["inspect", "words", "glove.txt", "--export", "copy.txt"], capsys)
    assert "three words" in error_of(["inspect", "words", "glove.txt", "--analogy", "king"], capsys)
    assert "no such file" in error_of(["inspect", "words", "none.txt"], capsys)


@pytest.mark.parametrize("level", LEVELS)
def test_all_tokens_of_a_model_are_exported_and_read_back(level, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("my_name, my name;\n\t(the king), grüß 世界 ...\n" * 60, encoding="utf-8")
    words = ["train", "lm", "--data", "text.txt", "--level", level, *SMALL, "--max-steps", "1", "--sample-every", "0"]
    assert main([*words, "--out", "run", *(["--vocab-size", "300"] if level == "bpe" else [])]) == 0
    capsys.readouterr()
    assert main(["inspect", "words", "run", "--export", "v.txt"]) == 0
    count = int(capsys.readouterr().out.split()[0])
    task = LanguageTask(open_run("run")).load()
    found = read_vectors("v.txt")
    assert len(found.words) == count == len(task.vocabulary)
    assert found.words == tuple(task.vocabulary.names())
    assert np.array_equal(found.values, task.model.embedding.weight.detach().numpy())
    if level == "word":
        assert main([*words, "--vectors", "v.txt", "--fix-vectors", "--out", "again"]) == 0
        again = LanguageTask(open_run("again")).model.embedding.weight.detach().numpy()
        assert np.array_equal(again, found.values)


def test_a_models_embedding_starts_from_a_file_fixed_or_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("the king and the queen\n" * 100)
    (tmp_path / "glove.txt").write_text("king 1 0 0 2\nqueen 0 1 0 2\nzebra 0 0 0 1\n")
    words = [
        "train",
        "lm",
        "--data",
        "text.txt",
        "--level",
        "word",
        *SMALL,
        "--max-steps",
        "5",
        "--vectors",
        "glove.txt",
    ]
    assert main([*words, "--out", "fixed", "--fix-vectors"]) == 0
    assert main([*words, "--out", "trained"]) == 0
    for run in ("fixed", "trained"):
        assert main(["inspect", "words", run, "--export", f"{run}.txt"]) == 0
    fixed, trained = read_vectors("fixed.txt"), read_vectors("trained.txt")
    king = fixed.values[fixed.words.index("king")]
    assert king / king[0] == pytest.approx([1, 0, 0, 2])
    moved = trained.values[trained.words.index("king")]
    assert not np.allclose(moved, king)
    assert np.abs(moved - king).max() < 0.1
    assert main(["train", "lm", "--resume", "fixed", "--max-steps", "8"]) == 0
    assert "of 4 numbers" in error_of([*words, "--embedding-size", "8", "--out", "other"], capsys)
