"""`unrolled train classify` and `unrolled classify` as a user types them."""

import io
import json
import re
import sys

import pytest

from tests.cli.shared import error_of
from tests.cli.test_translation import said
from tests.tasks.test_classifying_task import texts, write
from unrolled.cli import main

SMALL = [
    *("--hidden-size", "8", "--embedding-size", "6", "--dropout", "0", "--learning-rate", "0.05"),
    *("--warmup-steps", "0", "--eval-every", "30", "--device", "cpu"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classify")
    write(folder / "train.jsonl", texts(150))
    write(folder / "dev.jsonl", texts(30, 1))
    rows = ["review,class", *(f'"{one["text"]}",{one["label"]}' for one in texts(20, 2))]
    (folder / "other.csv").write_text("\n".join(rows) + "\n")
    words = ["train", "classify", "--data", folder / "train.jsonl", "--dev", folder / "dev.jsonl", *SMALL]
    assert main([str(word) for word in [*words, "--max-steps", "60", "--out", folder / "run"]]) == 0
    return folder


def test_training_says_how_good_it_is(folder, capsys):
    columns = ["--text-column", "review", "--label-column", "class"]
    words = ["train", "classify", "--data", folder / "other.csv", *columns, *SMALL, "--max-steps", "2"]
    out = said(capsys, *words, "--out", folder / "other").out
    assert "macro F1" in out
    assert f"unrolled classify {folder / 'other'} < TEXT" in out
    info = said(capsys, "info", folder / "run").out
    assert "150 to train on" in info
    assert "pooled by max" in info
    report = json.loads(said(capsys, "eval", folder / "run", "--json").out)
    assert report["accuracy"] > 0.9
    assert "accuracy" in said(capsys, "runs", folder).out
    assert "of 20" not in said(capsys, "eval", folder / "run", "--data", folder / "other.csv", *columns).err


def test_texts_as_arguments(folder, capsys):
    lines = said(capsys, "classify", folder / "run", "an awful film", "weird").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["bad", "odd"]
    (line,) = said(capsys, "classify", folder / "run", "great", "--top", "2").out.splitlines()
    name, chance, _, other = line.split("\t")
    assert name == "good"
    assert float(chance) > float(other)
    entry = json.loads(said(capsys, "classify", folder / "run", "great", "--json").out)
    assert (entry["text"], entry["label"]) == ("great", "good")
    assert sum(entry["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_texts_of_files(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("an awful film\n\nweird\n"))
    lines = said(capsys, "classify", folder / "run").out.splitlines()
    assert [line.split("\t")[0] for line in lines][::2] == ["bad", "odd"]
    assert len(lines) == 3
    (folder / "a.jsonl").write_text('{"id": 7, "text": "so weird"}\n')
    entry = json.loads(said(capsys, "classify", folder / "run", "--file", folder / "a.jsonl", "--json").out)
    assert (entry["id"], entry["label"]) == (7, "odd")
    out = said(capsys, "classify", folder / "run", "--file", folder / "other.csv", "--text-column", "review").out
    assert out.count("\n") == 20


def test_several_labels(folder, capsys):
    write(folder / "several.jsonl", texts(100, 3, multi=True))
    words = ["train", "classify", "--data", folder / "several.jsonl", *SMALL, "--max-steps", "5"]
    assert "micro F1" in said(capsys, *words, "--out", folder / "several").out
    entry = json.loads(said(capsys, "classify", folder / "several", "great", "--json").out)
    assert set(entry["labels"]) <= {"good", "bad", "odd"}


def test_columns_of_another_run_do_not_keep_a_folder_from_being_read(folder, tmp_path, capsys):
    columns = ["--text-column", "review", "--label-column", "class"]
    words = ["train", "classify", "--data", folder / "other.csv", *columns, *SMALL, "--max-steps", "1"]
    said(capsys, *words, "--out", tmp_path / "run")
    for name, text in (("good", "great"), ("bad", "awful")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "data" / name / str(number)).write_text(f"{text} {number}")
    words = ["train", "classify", "--data", tmp_path / "data", "--init-from", tmp_path / "run", "--max-steps", "1"]
    assert "texts" in said(capsys, *words, "--device", "cpu", "--out", tmp_path / "new").out


def test_what_each_word_adds(folder, capsys, monkeypatch):
    lines = said(capsys, "classify", folder / "run", "an awful film", "--words").out.splitlines()
    found = {line.split("\t")[0]: float(line.split("\t")[1]) for line in lines[1:]}
    assert list(found) == ["an", "awful", "film"]
    assert max(found, key=found.get) == "awful"
    entry = json.loads(said(capsys, "classify", folder / "run", "an awful film", "--words", "--json").out)
    assert [word for word, _ in entry["words"]] == ["an", " awful", " film"]
    reading = said(capsys, "classify", folder / "run", "an awful film", "--words", "--way", "reading").out
    assert reading.splitlines()[1:] != lines[1:]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    coloured = said(capsys, "classify", folder / "run", "an awful film", "--words").out
    assert "\x1b[" in coloured
    assert "awful" in coloured


def test_a_page_of_words_in_colours(folder, capsys, tmp_path):
    words = ["inspect", "classes", folder / "run", "--data", folder / "dev.jsonl", "--count", "5"]
    assert "page" in said(capsys, *words, "--out", tmp_path / "page.html").out
    page = (tmp_path / "page.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    assert len(data["texts"]) == 5
    assert data["classes"] == ["bad", "good", "odd"]
    worst = [text["probabilities"][data["classes"].index(text["given"][0])] for text in data["texts"][:2]]
    assert worst == sorted(worst)
    assert "exists; choose another --out" in error_of([*words, "--out", tmp_path / "page.html"], capsys)
    assert "must end in .html" in error_of([*words, "--out", "page.txt"], capsys)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "classify"], "--data is missing"),
        (["train", "classify", "--data", "none.csv"], "none.csv: No such file"),
        (["train", "classify", "--data", "none"], "none: no such file or folder"),
        (["train", "classify", "--data", "{folder}/other.csv"], "but 'review', 'class'; name it with --text-column"),
        (["train", "classify", "--data", "{folder}/train.jsonl", "--format", "xml"], "--format"),
        (["train", "classify", "--data", "{folder}/train.jsonl", "--pooling", "sum"], "choose from last, mean, max"),
        (["train", "classify", "--data", "{folder}/train.jsonl", "--val-fraction", "1"], "--val-fraction"),
        (
            ["train", "classify", "--data", "{folder}/train.jsonl", "--group", "(.)"],
            "--group is for recordings: add --l",
        ),
        (["train", "classify", "--data", "{folder}/train.jsonl", "--no-augment"], "--no-augment is for recordings"),
        (
            ["train", "classify", "--data", "{folder}", "--label-column", "x"],
            "--label-column names a column of a table",
        ),
        (["classify", "{folder}/run", "--file", ""], "--file: the path is empty"),
        (["classify", "{folder}/run", "--file="], "--file: the path is empty"),
        (["classify", "{folder}/run", "--file", "none.txt"], "none.txt: No such file"),
        (["classify", "{folder}/run", "text", "--file", "none.txt"], "give either TEXT or them"),
        (["classify", "{folder}/run", "text", "--top", "-1"], "--top must be 0 or above"),
        (["classify", "{folder}/run", "text", "--way", "reading"], "--way is about --words"),
        (["inspect", "classes", "{folder}/run"], "--data is missing"),
        (["classify", "{folder}"], "not a run directory"),
        (["eval", "{folder}/run", "--label-column", "2"], "describe a file: name it with --data"),
        (["tag", "{folder}/run"], "a classifier run, not a tagger run"),
    ],
)
def test_mistakes(folder, tmp_path, monkeypatch, capsys, words, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in error_of([word.format(folder=folder) for word in words], capsys)
