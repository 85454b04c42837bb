"""Smart reply as a person types it, and what it is made of."""

import json

import pytest

from tests.cli.shared import error_of
from tests.cli.test_translation import QUICK, SMALL, said
from unrolled.cli import main
from unrolled.data.mails import overlap, read_mails, synthetic_mails
from unrolled.errors import DataError
from unrolled.tasks.pairs import ReplyConfig
from unrolled.tasks.reply import choose_diverse, create_reply_run, read_responses
from unrolled.training import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reply")
    pairs = [
        ("Lets do Monday.", "Monday works for me."),
        ("Thank you!", "You are welcome."),
        ("I am ill.", "Get well!"),
    ]
    rows = [json.dumps({"message": message, "reply": reply}) for message, reply in pairs * 30]
    (folder / "mails.jsonl").write_text("\n".join(rows) + "\n\n")
    words = ["train", "reply", "--pairs", str(folder / "mails.jsonl"), "--level", "word", *SMALL, *QUICK]
    assert main([*words, "--max-steps", "60", "--out", str(folder / "run")]) == 0
    return str(folder / "run")


def test_the_answer_that_fits_comes_first(run, capsys):
    for message, reply in (("Lets do Monday.", "Monday works for me."), ("Thank you!", "You are welcome.")):
        lines = said(capsys, "reply", run, message).out.splitlines()
        assert lines[0].split("  ", 1)[1].strip().endswith(reply)
        assert len(lines) == 3
        scores = [float(line.split()[0]) for line in lines]
        assert scores[0] > scores[1]
    assert "unrolled reply" in said(capsys, "info", run).out
    assert "BLEU" in said(capsys, "eval", run, "--resamples", "0").out


def test_responses_of_ones_own(run, tmp_path, capsys):
    (tmp_path / "mine").write_text("Monday is good.\nGet well!\n\nGet well!\n")
    out = said(capsys, "reply", run, "I am ill.", "--responses", tmp_path / "mine", "--count", "9").out
    assert [line.split("  ", 1)[1].strip() for line in out.splitlines()] == ["Get well!", "Monday is good."]


def test_more_of_a_mail_than_training_showed_is_not_read(run, capsys):
    done = said(capsys, "reply", run, "Thank you! " * 900)
    assert "You are welcome." in done.out
    assert done.err == "unrolled: note: read only the first 100 tokens of the mail, the longest in training\n"
    assert "'zzz'" in said(capsys, "reply", run, "Thank you zzz!").err


def test_a_run_is_complete_once_it_is_one(tmp_path, monkeypatch):
    """config.json makes a directory a run; a kill after it must not leave one without its responses."""
    there = []
    write = Run.write_config

    def note(run, config):
        there.extend(sorted(file.name for file in run.path.iterdir()))
        write(run, config)

    monkeypatch.setattr(Run, "write_config", note)
    task = create_reply_run(tmp_path / "run", ReplyConfig())
    assert {file.name for file in task.run.path.iterdir()} - set(there) == {"config.json"}
    assert "Monday works for me." in read_responses(task.run)


def test_synthetic_mails_are_the_same_every_time_and_tell_days_apart():
    messages, replies = synthetic_mails(500, 3)
    assert (messages, replies) == synthetic_mails(500, 3)
    assert len(messages) == len(replies) == 500
    assert not any("{" in text for text in (*messages, *replies))
    named = [(m, r) for m, r in zip(messages, replies, strict=True) if r == "Monday works for me."]
    assert named
    assert all("Monday" in message for message, _ in named)


def test_files_of_mails(tmp_path):
    path = tmp_path / "mails"
    path.write_text('a b\tc\n\n{"message": "d", "reply": "e"}\n')
    assert read_mails(str(path)) == (["a b", "d"], ["c", "e"])
    for bad, said_of_it in (
        ("a", "0 tabs"),
        ("a\tb\tc", "2 tabs"),
        ('{"message": "a"}', "reply"),
        ('{"message": 1, "reply": "b"}', "must be text"),
        ("{", "not JSON"),
        ('{"message": "\\ud800", "reply": "b"}', "surrogates"),
    ):
        path.write_text(f"x\ty\n{bad}\n")
        with pytest.raises(DataError, match=f"line 2.*{said_of_it}"):
            read_mails(str(path))


def test_shown_answers_differ():
    ranked = [("Monday works for me.", -0.1), ("monday works for us.", -0.2), ("Sorry, no.", -0.6), ("Yes.", -0.9)]
    assert choose_diverse(ranked, 3, 0.0) == ranked[:3]
    assert [text for text, _ in choose_diverse(ranked, 2, 1.0)] == ["Monday works for me.", "Sorry, no."]
    assert len(choose_diverse(ranked, 9, 1.0)) == 4
    assert overlap("Monday works.", "monday WORKS") == 1
    assert overlap("a b", "b c") == pytest.approx(1 / 3)
    assert overlap("", "") == 0


def test_mistakes(run, tmp_path, capsys):
    assert "message is empty" in error_of(["reply", run, " "], capsys)
    assert "--count" in error_of(["reply", run, "a", "--count", "0"], capsys)
    assert "not UTF-8" in error_of(["reply", run, "a\udcff"], capsys)
    assert "--length-penalty" in error_of(["reply", run, "a", "--length-penalty", "1e9"], capsys)
    (tmp_path / "none").write_text("\n")
    assert "no responses" in error_of(["reply", run, "a", "--responses", tmp_path / "none"], capsys)
    assert "nothing to learn from" in error_of(["train", "reply", "--pairs", tmp_path / "none"], capsys)


def test_synthetic_mails_are_printed_as_pairs(capsys):
    rows = said(capsys, "data", "mails", "--count", "5", "--seed", "2").out.splitlines()
    assert [tuple(row.split("\t")) for row in rows] == list(zip(*synthetic_mails(5, 2), strict=True))
    assert "--count must be at least 1" in error_of(["data", "mails", "--count", "0"], capsys)


def test_gradients_of_the_loss_at_every_step(run, tmp_path, capsys):
    out = said(capsys, "inspect", "gradients", run, "--out", str(tmp_path / "gradients")).out
    assert "last step" in out
    assert "encoder.cells.0.0" in out
    assert (tmp_path / "gradients.svg").exists()
