"""`unrolled train transcribe` and `unrolled transcribe` as a user types them."""

import io
import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tests.cli.shared import error_of
from tests.cli.test_translation import said
from tests.tones import texts, tones, write_tones
from unrolled.cli import main

soundfile = pytest.importorskip("soundfile")

SMALL = [
    *("--bins", "12", "--cell", "gru", "--hidden-size", "24", "--num-layers", "1", "--dropout", "0", "--stride", "2"),
    *("--learning-rate", "0.02", "--warmup-steps", "0", "--batch-size", "10", "--no-augment", "--device", "cpu"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transcribe")
    write_tones(folder / "data", texts(60))
    write_tones(folder / "new", ["abcab", "c"])
    words = ["train", "transcribe", "--data", folder / "data", "--no-bidirectional", *SMALL]
    assert (
        main([str(word) for word in [*words, "--max-steps", "140", "--eval-every", "70", "--out", folder / "run"]]) == 0
    )
    return folder


def test_training_says_how_good_it_is(folder, capsys):
    words = ["train", "transcribe", "--data", folder / "data", *SMALL, "--max-steps", "12", "--out", folder / "other"]
    out = said(capsys, *words, "--log-every", "1").out
    assert "54 recordings to train on, 6 to validate" in out
    assert "12 mel energies of sound at 8,000 Hz" in out
    assert "validation character error rate" in out
    assert "word error rate" in out
    assert f"unrolled transcribe {folder / 'other'} FILE" in out
    assert "character error rate" in said(capsys, "info", folder / "run").out
    report = json.loads(said(capsys, "eval", folder / "run", "--json").out)
    assert report["cer"] < 0.1
    assert "character error rate" in said(capsys, "runs", folder).out
    beam = json.loads(said(capsys, "eval", folder / "run", "--data", folder / "new", "--beam", "4", "--json").out)
    assert beam["wer"] == 0


def test_files_and_folders(folder, capsys):
    one = folder / "new" / "000.wav"
    assert said(capsys, "transcribe", folder / "run", one).out == "abcab\n"
    lines = said(capsys, "transcribe", folder / "run", folder / "new").out.splitlines()
    assert lines == [f"{one}\tabcab", f"{folder / 'new' / '001.wav'}\tc"]
    entry = json.loads(said(capsys, "transcribe", folder / "run", one, "--json").out)
    assert entry["text"] == "abcab"
    assert [each["text"] for each in entry["characters"]] == list("abcab")
    assert entry["unit"] == "seconds"


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_transcribed(folder, tmp_path, capsys):
    (tmp_path / "bad.wav").write_text("rubbish")
    words = ["transcribe", folder / "run", tmp_path / "bad.wav", tmp_path / "none.wav", folder / "new" / "001.wav"]
    assert main([str(word) for word in words]) == 2
    found = capsys.readouterr()
    assert found.out == f"{folder / 'new' / '001.wav'}\tc\n"
    assert "bad.wav: cannot be read as a recording" in found.err
    assert "none.wav: No such file" in found.err
    assert len(found.err.splitlines()) == 2


def test_sound_that_is_too_loud_to_be_sound_is_named(folder, tmp_path, capsys):
    """Its features become infinite in 16 bits; they must not spoil those that are transcribed with it."""
    loud, new = tmp_path / "loud.wav", folder / "new" / "001.wav"
    soundfile.write(loud, tones("ab") * 1e30, 8000, subtype="FLOAT")
    assert main([str(word) for word in ["transcribe", folder / "run", loud, new, new]]) == 2
    found = capsys.readouterr()
    assert found.out == f"{new}\tc\n" * 2
    assert "loud.wav: some features are above 65,504" in found.err
    for words in (["transcribe", folder / "run", loud, "--stream"], ["inspect", "transcript", folder / "run", loud]):
        assert "some features are above 65,504" in error_of(words, capsys)


def test_sound_as_it_comes(folder, capsys, monkeypatch):
    lines = said(capsys, "transcribe", folder / "run", folder / "new" / "000.wav", "--stream").out.splitlines()
    assert lines[-1] == "abcab"
    assert [line.split("\t")[1] for line in lines[:-1]][:2] == ["a", "ab"]
    raw = (np.clip(tones("cab"), -1, 1) * 32767).astype("<i2").tobytes()
    source = SimpleNamespace(closed=False, buffer=io.BufferedReader(io.BytesIO(raw)))
    monkeypatch.setattr(sys, "stdin", source)
    lines = said(capsys, "transcribe", folder / "run", "-", "--stream", "--json").out.splitlines()
    assert json.loads(lines[-1])["text"] == "cab"
    assert json.loads(lines[0])["seconds"] > 0


def test_a_figure_of_where_characters_are_written(folder, tmp_path, capsys):
    words = ["inspect", "transcript", folder / "run", folder / "new" / "000.wav", "--out", tmp_path / "figure"]
    assert "000.wav: abcab" in said(capsys, *words, "--character", "2").out
    svg = (tmp_path / "figure.svg").read_text()
    assert "log P('b')" in svg
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "exists; choose another --out" in error_of(words, capsys)
    assert "--character must be from 1 to 5" in error_of([*words, "--overwrite", "--character", "6"], capsys)
    assert "(its transcript)" in said(capsys, "inspect", "transcript", folder / "run", "--out", tmp_path / "other").out


def test_no_matrix_if_nothing_is_confused(folder, tmp_path, capsys):
    words = ["inspect", "confusions", folder / "run", "--data", folder / "new", "--out", tmp_path / "matrix"]
    assert "nothing is confused" in said(capsys, *words).out
    assert not (tmp_path / "matrix.png").exists()


def test_the_matrix_holds_what_was_right(folder, tmp_path, capsys):
    write_tones(tmp_path / "data", ["ab", "ba", "aab"])
    (tmp_path / "data" / "000.txt").write_text("cb")  # its first tone is that of an a
    words = ["inspect", "confusions", folder / "run", "--data", tmp_path / "data", "--out", tmp_path / "matrix"]
    assert re.search(r"1 +'c' +'a'", said(capsys, *words).out)
    assert (tmp_path / "matrix.png").exists()
    report = json.loads(said(capsys, "eval", folder / "run", "--data", tmp_path / "data", "--json").out)
    assert report["confusion"] == {"a": {"a": 3}, "b": {"b": 3}, "c": {"a": 1}}


def test_no_matrix_if_there_is_no_label(folder, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    soundfile.write(tmp_path / "data" / "000.wav", tones("  "), 8000)
    (tmp_path / "data" / "000.txt").write_text("")
    words = ["inspect", "confusions", folder / "run", "--data", tmp_path / "data", "--out", tmp_path / "matrix"]
    assert "there is no label in it, so there is no matrix to draw" in said(capsys, *words).out
    assert not (tmp_path / "matrix.png").exists()


def test_transcripts_for_a_language_model(folder, capsys):
    lines = said(capsys, "data", "transcripts", folder / "run").out.splitlines()
    assert len(lines) == 54
    assert set("".join(lines)) == set("abc")


def test_mistakes(folder, capsys):
    both = folder / "both"
    words = ["train", "transcribe", "--data", folder / "data", *SMALL, "--max-steps", "1", "--out", both]
    said(capsys, *words)
    new = folder / "new" / "000.wav"
    for given, reason in [
        (["transcribe", both, new, "--stream"], "its model reads both ways, so it cannot"),
        (["transcribe", folder / "run"], "FILE"),
        (["transcribe", folder / "run", ""], "a FILE is empty"),
        (["transcribe", folder / "run", new, ""], "a FILE is empty"),
        (["inspect", "transcript", folder / "run", ""], "a FILE is empty"),
        (["transcribe", "", new], "a RUN is empty"),
        (["transcribe", folder / "run", new, "--lm-weight", "0.2"], "--lm-weight is about a language model: name one"),
        (["transcribe", folder / "run", new, "--beam", "4", "--length-bonus", "0"], "--length-bonus is about a lang"),
        (["eval", folder / "run", "--length-bonus", "2"], "error: --length-bonus is about a language model: name one"),
        (
            ["train", "transcribe", "--data", folder / "data", "--dev", folder / "new", "--group", "(.)"],
            "--group chooses what is held out for validation, which --dev names: leave one of the two out",
        ),
        (["train", "transcribe", "--data", folder / "data", "--file-column", "x"], "--file-column names a column of a"),
        (["train", "transcribe", "--data", folder / "data", "--text-column", "x"], "--text-column names a column of a"),
        (["train", "transcribe", "--data", folder / "data", "--copies", "2"], "--copies is about lines that are drawn"),
        (["transcribe", folder / "run", new, "--lm", ""], "--lm: the path is empty"),
        (["train", "transcribe", "--data", folder / "data", "--dev="], "--dev: the path is empty"),
        (["train", "transcribe", "--render", folder / "run", "--fonts", ""], "--fonts: the path is empty"),
        (["transcribe", folder / "run", new, "-"], "only --stream reads standard input"),
        (["train", "transcribe", "--data", new], "a single file has no transcript"),
        (
            ["train", "transcribe", "--data", folder / "data", "--bins", "2"],
            "--bins 2 does not fit recordings at 8,000",
        ),
        (["transcribe", folder / "run", folder / "new", new, "--stream"], "--stream takes one recording"),
        (["transcribe", folder / "run", new, "--beam", "-1"], "--beam must be from 0"),
        (["transcribe", folder / "run", new, "--lm", folder / "run"], "not a language model run"),
        (["transcribe", folder / "run", folder], "there are no audio"),
        (["train", "transcribe"], "--data is missing: recordings or pictures with transcripts; or give --render"),
        (["train", "transcribe", "--data", folder / "nothing"], "nothing"),
    ]:
        if given[-1] == folder:
            (folder / "empty").mkdir(exist_ok=True)
            given = [*given[:-1], folder / "empty"]
        assert reason in error_of(given, capsys)
