"""`unrolled train tag` and `unrolled tag` as a user types them."""

import io
import json
import math
import sys

import pytest

from tests.cli.shared import error_of
from tests.cli.test_translation import said
from tests.tasks.test_tagging_task import sentences, write
from unrolled.cli import main
from unrolled.data.tagged import TaggedSentence

SMALL = [
    *("--hidden-size", "12", "--embedding-size", "6", "--character-size", "4", "--character-hidden-size", "5"),
    *("--dropout", "0", "--learning-rate", "0.02", "--warmup-steps", "0", "--eval-every", "30", "--device", "cpu"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tag")
    write(folder / "train.conll", sentences(120))
    write(folder / "dev.conll", sentences(30, 1))
    words = ["train", "tag", "--data", folder / "train.conll", "--dev", folder / "dev.conll", *SMALL]
    assert main([str(word) for word in [*words, "--max-steps", "90", "--out", folder / "run"]]) == 0
    return folder


def test_training_says_how_good_it_is(folder, capsys):
    words = ["train", "tag", "--data", folder / "train.conll", *SMALL, "--max-steps", "2", "--out", folder / "other"]
    out = said(capsys, *words).out
    assert "F1 of spans" in out
    assert "accuracy" in out
    assert f"unrolled tag {folder / 'other'} < TEXT" in out
    info = said(capsys, "info", folder / "run").out
    assert "120 to train on, 30 to validate" in info
    assert "5, scored by a CRF that enforces IOB2" in info
    report = json.loads(said(capsys, "eval", folder / "run", "--json").out)
    assert report["f1"] > 0.9
    assert "F1 of spans" in said(capsys, "runs", folder).out
    assert "LOC" in said(capsys, "eval", folder / "run", "--data", folder / "dev.conll", "--column", "2").out


def test_text_is_cut_into_words(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("so Kari, saw Kolox.\n\nso\n"))
    lines = said(capsys, "tag", folder / "run").out.split("\n")
    assert [line.split("\t")[0] for line in lines] == ["so", "Kari", ",", "saw", "Kolox", ".", "", "so", "", ""]
    assert {line.split("\t")[1] for line in lines if line} <= {"O", "B-PER", "I-PER", "B-LOC", "I-LOC"}


def test_forms_of_input_and_output(folder, capsys):
    tagged = said(capsys, "tag", folder / "run", folder / "dev.conll").out
    assert tagged.count("\n\n") == 30
    (folder / "text.txt").write_text("so Kari saw\n")
    assert said(capsys, "tag", folder / "run", folder / "text.txt", "--to", "inline").out.startswith("so/O Kari/B-LOC")
    (folder / "lines.jsonl").write_text('{"words": ["so", "Kari x"]}\n')
    entry = json.loads(said(capsys, "tag", folder / "run", folder / "lines.jsonl").out)
    assert entry["words"] == ["so", "Kari x"]
    assert len(entry["tags"]) == 2
    (folder / "empty.jsonl").write_text('{"words": []}\n{"words": ["so"]}\n')
    entries = said(capsys, "tag", folder / "run", folder / "empty.jsonl").out.splitlines()
    assert [len(json.loads(line)["tags"]) for line in entries] == [0, 1]
    (folder / "a.conllu").write_text("# x\n" + "\t".join(["1", "Kari", *"_" * 8]) + "\n\n")
    out = said(capsys, "tag", folder / "run", folder / "a.conllu").out
    assert out.startswith("# x\n1\tKari\t_\tB-LOC\t_")
    out = said(capsys, "tag", folder / "run", folder / "a.conllu", "--column", "misc").out
    assert out.split("\n")[1].endswith("\tB-LOC")
    rows = said(capsys, "tag", folder / "run", folder / "text.txt", "--marginals").out.split("\n")
    assert all(0 <= float(row.split("\t")[2]) <= 1 for row in rows if row)


def test_stdin_in_columns_and_words_with_spaces_between(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("so X\nKari X\n"))
    assert said(capsys, "tag", folder / "run", "--format", "conll").out.startswith("so\tO\nKari\tB-LOC\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("don't (x)\n"))
    assert said(capsys, "tag", folder / "run", "--format", "words", "--to", "inline").out.count("/") == 2


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ([], {"crf": None, "bidirectional": True}),
        (["--crf", "--bidirectional"], {"crf": True, "bidirectional": True}),
        (["--no-crf", "--no-bidirectional"], {"crf": False, "bidirectional": False}),
        (["--crf", "None"], {"crf": None}),
    ],
)
def test_flags_with_two_and_with_three_values(folder, capsys, words, settings):
    out = folder / "-".join(["flags", *words])
    command = ["train", "tag", "--data", folder / "dev.conll", *SMALL, "--max-steps", "1", "--out", out, *words]
    said(capsys, *command)
    stored = json.loads((out / "config.json").read_text())["config"]["model"]
    assert {name: stored[name] for name in settings} == settings


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "tag"], "--data is missing"),
        (["train", "tag", "--data", "none.conll"], "none.conll: No such file"),
        (["train", "tag", "--data", "{folder}/train.conll", "--column", "7"], "no column of tags"),
        (["train", "tag", "--data", "{folder}/train.conll", "--column", "x"], "--column 'x': there is no such column"),
        (["train", "tag", "--data", "{folder}/train.conll", "--format", "xml"], "--format"),
        (["train", "tag", "--data", "{folder}/train.conll", "--val-fraction", "1"], "--val-fraction"),
        (["tag", "{folder}/run", "none.txt"], "none.txt: No such file"),
        (
            ["tag", "{folder}/run", "{folder}/dev.conll", "--marginals", "--to", "inline"],
            "--marginals needs --to conll",
        ),
        (["tag", "{folder}"], "not a run directory"),
        (["tag", "{folder}/run", ""], "a FILE is empty: name a file or a folder"),
        (["tag", ""], "a RUN is empty"),
        (["info", ""], "a RUN is empty"),
        (["train", "tag", "--data", "{folder}/train.conll", "--vectors", ""], "--vectors: the path is empty"),
        (["eval", "{folder}/run", "--column", "2"], "--column and --format describe a file: name it with --data"),
        (["sample", "{folder}/run"], "a tagger run, not a language model run"),
    ],
)
def test_mistakes(folder, tmp_path, monkeypatch, capsys, words, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in error_of([word.format(folder=folder) for word in words], capsys)


def test_the_best_sequences(folder, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("so Kari saw Kolox\n\nso\n")
    lines = said(capsys, "tag", folder / "run", tmp_path / "text.txt", "--best", "3").out.splitlines()
    heads = [line for line in lines if line.startswith("#")]
    assert [head.split(",")[0] for head in heads[:3]] == ["# 1 of 3", "# 2 of 3", "# 3 of 3"]
    chances = [float(head.split()[-1]) for head in heads[:3]]
    assert chances == sorted(chances, reverse=True)
    assert sum(math.exp(chance) for chance in chances) <= 1.0001
    plain = said(capsys, "tag", folder / "run", tmp_path / "text.txt").out.splitlines()
    assert lines[1:5] == plain[:4]
    (tmp_path / "lines.jsonl").write_text('{"words": ["so", "Kari"], "id": 7}\n')
    entry = json.loads(said(capsys, "tag", folder / "run", tmp_path / "lines.jsonl", "--best", "2").out)
    assert entry["id"] == 7
    assert entry["best"][0]["tags"] == entry["tags"]
    assert len(entry["best"]) == 2
    (tmp_path / "lines.jsonl").write_text('{"words": []}\n{"words": ["so"]}\n')
    out = said(capsys, "tag", folder / "run", tmp_path / "lines.jsonl", "--best", "100").out
    empty, one = (json.loads(line) for line in out.splitlines())
    assert empty == {"words": [], "tags": [], "best": [{"tags": [], "log_prob": 0.0}]}
    assert len(one["best"]) == 3  # of 5 tags, a sentence cannot start with the two that continue a span
    assert sum(math.exp(each["log_prob"]) for each in one["best"]) == pytest.approx(1, abs=1e-4)
    for options, expected in (
        (["--best", "2", "--to", "inline"], "--best needs --to conll"),
        (["--best", "2", "--marginals"], "goes without --marginals"),
        (["--best", "-1"], "--best must be from 0 to 10,000, got -1"),
        (["--best", "10001"], "--best must be from 0 to 10,000, got 10001"),
    ):
        assert expected in error_of(["tag", folder / "run", tmp_path / "text.txt", *options], capsys)


def test_a_sentence_for_which_the_rules_allow_no_tags_does_not_stop_the_others(tmp_path, capsys):
    """It is tagged without the rules, counted and named."""
    write(tmp_path / "train.conll", [TaggedSentence(("a", "b"), ("B-X", "E-X"))] * 12)
    words = ["train", "tag", "--data", tmp_path / "train.conll", *SMALL, "--max-steps", "1", "--out", tmp_path / "run"]
    said(capsys, *words)
    (tmp_path / "some.txt").write_text("a b\na\n\nb a\nb\n")
    note = f"{tmp_path / 'some.txt'}: BIOES allows no tags for the length of 2 sentences, tagged without its rules"
    for options in ([], ["--best", "2"], ["--best", "2", "--to", "jsonl"], ["--marginals"], ["--to", "inline"]):
        found = said(capsys, "tag", tmp_path / "run", tmp_path / "some.txt", *options)
        assert found.err == f"unrolled: note: {note}: number 2, number 5\n"
        if "jsonl" in options:
            best = [json.loads(line)["best"] for line in found.out.splitlines()]
            assert [len(each) for each in best] == [1, 2, 1, 1, 2]
            assert best[3][0]["tags"] == ["B-X", "E-X"]
            for each in (best[1], best[4]):
                assert {one["tags"][0] for one in each} == {"B-X", "E-X"}
                assert sum(math.exp(one["log_prob"]) for one in each) == pytest.approx(1, abs=1e-4)
        elif options == ["--marginals"]:
            rows = [line.split("\t") for line in found.out.splitlines() if line]
            assert [row[0] for row in rows] == ["a", "b", "a", "b", "a", "b"]
            assert all(0.2 < float(row[2]) < 1 for row in (rows[2], rows[5]))
            assert [row[1:] for row in rows[3:5]] == [["B-X", "1.0000"], ["E-X", "1.0000"]]
        elif options == ["--to", "inline"]:
            assert [line.split("/")[0] for line in found.out.split("\n")] == ["a", "a", "", "b", "b", ""]
    write(tmp_path / "dev.conll", [TaggedSentence(("a", "b"), ("B-X", "E-X")), TaggedSentence(("a",), ("B-X",))])
    report = said(capsys, "eval", tmp_path / "run", "--data", tmp_path / "dev.conll")
    assert "of 3 words" in report.out
    assert "allows no tags for the length of 1 sentence, tagged without its rules: number 2" in report.err


def test_marginals_of_many_sentences_are_those_of_each(folder, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("so Kari saw Kolox\n\nso\nKolox and Mari saw Lari\n")
    lines = said(capsys, "tag", folder / "run", tmp_path / "text.txt", "--marginals").out.split("\n\n")
    for text, block in zip(["so Kari saw Kolox", "so", "Kolox and Mari saw Lari"], lines, strict=False):
        (tmp_path / "one.txt").write_text(text + "\n")
        assert said(capsys, "tag", folder / "run", tmp_path / "one.txt", "--marginals").out.strip() == block.strip()
