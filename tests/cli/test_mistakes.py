"""Mistakes at the terminal, and damaged runs: each is one line that says what to do."""

import json
import os
import shutil
import sys

import pytest

from tests.cli.shared import error_of, write
from unrolled.cli import main


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "none.txt"], "none.txt: no such file"),
        (["--data", "empty.txt"], "empty.txt: empty"),
        (["--data", "photo.png"], "photo.png: a binary file"),
        (["--data", "latin1.txt"], "latin1.txt: not UTF-8"),
        (["--data", "short.txt"], "shorter than one batch"),
        (["--cell", "lstmm"], "unknown cell 'lstmm' (did you mean 'lstm'?)"),
        (["--level", "chars"], "--level: unknown value 'chars', choose from char, word, byte, bpe"),
        (["--optimizer", "adamax"], "--optimizer: unknown value"),
        (["--lr-schedule", "up"], "--lr-schedule: unknown value"),
        (["--hidden-size", "big"], "--hidden-size: "),
        (["--hidden-size", "0"], "--hidden-size must be from 1 to 65,536, got 0"),
        (["--drop-out", "0.5"], "--drop-out"),
        (["--dropout", "1.5"], "--dropout must be"),
        (["--hidden-size"], "--hidden-size"),
        (["--vocab-size", "99"], "at level char it has no meaning"),
        (["--data", ""], "--data: the path is empty"),
        (["--out="], "--out: the path is empty"),
        (["--seed", str(1 << 64)], "--seed must be below 2^63"),
        (["--device", "meta"], "--device meta: unknown"),
        (["--learning-rate", "nan"], "--learning-rate must be above 0"),
        (["--seed", "-1"], "--seed must be 0 or above"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--max-time", "later"], "90s, 5m"),
        (["--val-fraction", "1"], "fractions must be"),
        (["--device", "cuda:7"], "--device cuda:7"),
        (["--out", "taken"], "holds another run"),
        (["--out", "full"], "not empty"),
        (["--out", "short.txt"], "not a directory"),
        (["--resume", "none"], "none: no such run"),
        (["--resume", "full"], "not a run directory"),
        (["--tie-weights", "--embedding-size", "3"], "set it to 256"),
        (["--data", "-"], "standard input"),
    ],
)
def test_mistakes_in_training(words, expected, trained, text_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "empty.txt", "")
    write(tmp_path / "photo.png", b"PNG\0\0\0")
    write(tmp_path / "latin1.txt", "grün".encode("latin-1"))
    write(tmp_path / "short.txt", "To be, or not to be.")
    (tmp_path / "full").mkdir()
    write(tmp_path / "full" / "thesis.tex", "years of work")
    shutil.copytree(trained, tmp_path / "taken")
    if words == ["--data", "-"]:
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    data = [] if "--data" in words or "--resume" in words else ["--data", str(text_file)]
    out = [] if "--out" in words or "--resume" in words else ["--out", "new"]
    assert expected in error_of(["train", "lm", *data, *words, *out, "--max-steps", "1"], capsys)
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "full" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sample", "none"], "none: no such run"),
        (["sample", "RUN", "--temperature", "-1"], "temperature"),
        (["sample", "RUN", "--top-p", "0"], "top-p"),
        (["sample", "RUN", "--length", "0"], "--length must be"),
        (["sample", "RUN", "--checkpoint", "first"], "--checkpoint cannot be 'first'"),
        (["sample", "RUN", "--device", "cuda:7"], "--device cuda:7"),
        (["sample"], "RUN"),
        (["eval", "RUN", "--data", "none.txt"], "none.txt: no such file"),
        (["info", "none"], "none: no such run"),
        (["train", "lm", "--resume", "RUN", "--hidden-size", "64"], "--hidden-size cannot change"),
        (["train", "lm", "--resume", "RUN", "--seed", "9"], "--seed cannot change"),
        (["train", "lm", "--resume", "RUN", "--out", "x"], "leave out --out"),
        (["train", "gpt"], "unknown task 'gpt': choose from lm, "),
        (["fly"], "unknown command 'fly'"),
    ],
)
def test_mistakes_with_a_run(words, expected, trained, capsys):
    words = [str(trained) if word == "RUN" else word for word in words]
    assert expected.lower() in error_of(words, capsys).lower()


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors"])
@pytest.mark.parametrize("content", [b"", b"GIF89a", None])
def test_a_corrupt_or_foreign_checkpoint(name, content, trained, tmp_path, capsys):
    run = tmp_path / "copy"
    shutil.copytree(trained, run)
    for path in run.glob(f"checkpoints/*/{name}"):
        path.write_bytes(path.read_bytes()[:-7] if content is None else content)
    if name == "model.safetensors":  # to sample it takes no more than the weights
        assert name in error_of(["sample", run], capsys)
    else:
        assert main(["sample", str(run), "--length", "3"]) == 0
    assert name in error_of(["train", "lm", "--resume", run, "--max-steps", "500"], capsys)


def test_too_little_memory_is_said_in_a_line(train, monkeypatch, capsys):
    def refuse(*arguments):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 68 GB")

    monkeypatch.setattr("unrolled.tasks.language_settings.ModelConfig.build", refuse)
    assert train("--out", "run") == 2
    assert "not enough memory" in capsys.readouterr().err
    assert not os.path.exists("run")


def test_settings_edited_by_hand_are_noticed(trained, tmp_path, capsys):
    run = tmp_path / "copy"
    shutil.copytree(trained, run)
    config = json.loads((run / "config.json").read_text())
    config["config"]["training"]["batch_size"] = 4
    write(run / "config.json", json.dumps(config))
    assert "batch_size changed since" in error_of(["train", "lm", "--resume", run, "--max-steps", "500"], capsys)


@pytest.mark.parametrize("line", ["[1]", '{"step": "a"}', "\udcff{}"])
def test_damaged_metrics(line, trained, tmp_path, capsys):
    run = tmp_path / "copy"
    shutil.copytree(trained, run)
    path = run / "metrics.jsonl"
    path.write_bytes(line.encode("utf-8", "surrogateescape") + b"\n" + path.read_bytes())
    assert "metrics.jsonl:1: not a line of metrics" in error_of(["info", run], capsys)


def test_damaged_tokens(trained, tmp_path, capsys):
    run = tmp_path / "copy"
    shutil.copytree(trained, run)
    path = run / "tokens.bin"
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert "token 255 of a vocabulary" in error_of(["eval", run], capsys)
    assert "tokens.bin: damaged" in error_of(["train", "lm", "--resume", run, "--max-steps", "500"], capsys)


def test_unknown_words_are_not_scored_by_the_character(train, tmp_path, capsys):
    assert train("--level", "word", "--max-steps", "3", "--out", "run") == 0
    write(tmp_path / "other.txt", "xyzzy plugh " * 30)
    capsys.readouterr()
    assert main(["eval", "run", "--data", "other.txt", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["unknown"] > 0
    assert report["bits_per_character"] is None
    assert main(["eval", "run", "--data", "other.txt"]) == 0
    assert "is not scored" in capsys.readouterr().out


def test_a_run_whose_vocabulary_is_of_another_text(trained, tmp_path, capsys):
    run = tmp_path / "copy"
    shutil.copytree(trained, run)
    write(run / "vocabulary.json", '{"level": "char", "characters": "abc"}')
    assert "not the vocabulary that the weights were trained with" in error_of(["sample", run], capsys)
