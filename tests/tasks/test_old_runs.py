"""Runs of every task that older versions wrote are opened, scored and gone on with.

`runs/*` were written by the version of November 2026, whose settings of training still held those of streams of text;
what that version said of them stands here. Runs of language models are in `tests/training/runs`.
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.shared import error_of
from unrolled.cli import main
from unrolled.tasks import open_task
from unrolled.tasks.language import MinCharRNN
from unrolled.tasks.reply import ReplyTask
from unrolled.tasks.sentiment import SentimentTask
from unrolled.tasks.translation import TranslationTask

#: Of each run: its task, how it is trained, what it scored, and how far it came.
RUNS = {
    "unscaled-embeddings": (TranslationTask, "translate", {"perplexity": 10.779949, "bleu": 15.973578}, 40),
    "reply": (ReplyTask, "reply", {"perplexity": 27.636822, "chrf": 1.157407, "lines": 1}, 30),
    "tree": (
        SentimentTask,
        "tree",
        {
            "loss": 1.6283043,
            "root": {"fine": 0.15, "binary": 0.8235294, "nodes": 20, "polar": 17},
            "all_nodes": {"fine": 0.2647059, "binary": 0.6966292, "nodes": 102, "polar": 89},
        },
        20,
    ),
    "min-char-rnn": (MinCharRNN, "min-char-rnn", {"nats": 2.4732008, "characters": 619}, 60),
}


@pytest.fixture(params=RUNS)
def old(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(Path(__file__).parent / "runs" / request.param, tmp_path / "old")
    (tmp_path / "text.txt").write_text("the old run is read as it was. " * 20)
    return RUNS[request.param]


def test_it_is_what_it_was(old, capsys):
    kind, name, expected, step = old
    before = Path("old/config.json").read_bytes()
    assert type(open_task("old", which="last")) is kind
    assert main(["eval", "old", "--json", *(["--data", "text.txt"] if name == "min-char-rnn" else [])]) == 0
    found = json.loads(capsys.readouterr().out)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-4), key
    assert main(["info", "old"]) == 0
    said = capsys.readouterr().out
    assert f"last at step {step}" in said
    assert "report " in said
    assert main(["runs", "."]) == 0
    assert kind.kind in capsys.readouterr().out
    assert Path("old/config.json").read_bytes() == before


def test_it_goes_on(old, capsys):
    _, name, _, step = old
    if name == "min-char-rnn":
        assert "Unrecognized options: --resume" in error_of(["train", name, "text.txt", "--resume", "old"], capsys)
        return
    assert main(["train", name, "--resume", "old", "--max-steps", str(step + 4)]) == 0
    said = capsys.readouterr().out
    assert f"resumed at step {step}" in said
    assert f"finished after {step + 4} steps" in said
    training = json.loads(Path("old/config.json").read_text())["config"]["training"]
    assert not {"seq_length", "backward_length", "carry_state"} & set(training)


def test_replies_are_those_of_then(tmp_path, capsys):
    run = shutil.copytree(Path(__file__).parent / "runs" / "reply", tmp_path / "old")
    assert main(["reply", str(run), "shall we meet on monday"]) == 0
    assert capsys.readouterr().out.split("\n") == [
        " -3.133  you are welcome",
        " -3.157  here it is",
        " -3.185  yes fine",
        "",
    ]
