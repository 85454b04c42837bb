"""The commands as a person types them: what they print."""

import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.cli.shared import SMALL, error_of, write
from tests.forms import by_form
from unrolled.cells import CELLS
from unrolled.cli import main
from unrolled.cli.commands import summaries
from unrolled.data import LEVELS
from unrolled.training import open_run
from unrolled.training.config import OPTIMIZERS, SCHEDULES


def test_training_shows_what_it_does(train, capsys):
    assert train("--max-steps", "10") == 0
    out = capsys.readouterr().out
    for expected in (
        "to train on",
        "parameters",
        "sample at step 10",
        "bits/char",
        "best so far",
        "unrolled sample runs/text-lstm-1",
    ):
        assert expected in out
    assert train("--max-steps", "2") == 0
    assert "unrolled sample runs/text-lstm-2" in capsys.readouterr().out


@pytest.mark.parametrize("cell", by_form())
def test_every_cell_trains_by_its_name(train, cell):
    # What a cell reads and writes in native code, the tests of the language model show.
    assert train("--cell", cell, "--max-steps", "2", "--sample-every", "0", "--val-fraction", "0", "--out", "run") == 0
    assert {"loss", "gradient_norm"} <= open_run("run").metrics()[0].keys()


@pytest.mark.parametrize("level", LEVELS)
def test_every_level(train, level, capsys):
    size = ["--vocab-size", "300"] if level in ("word", "bpe") else []
    assert train("--level", level, *size, "--max-steps", "3", "--out", "run") == 0
    assert main(["sample", "run", "--prime", "Zoë said", "--length", "5", "--seed", "1"]) == 0
    assert "Zoë said" in capsys.readouterr().out
    assert main(["eval", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nats"] > 0


def test_a_sample_learned_from_the_text(trained, capsys):
    assert main(["sample", str(trained), "--prime", "Zoë said: ", "--length", "18", "--temperature", "0"]) == 0
    assert capsys.readouterr().out == "Zoë said: grüß dich, naïve 世\n"
    assert main(["sample", str(trained), "--prime", "Zoë", "--temperature", "0", "--stop", "dich"]) == 0
    assert capsys.readouterr().out == "Zoë said: grüß \n"


def test_samples_follow_their_seed(trained, capsys):
    texts = []
    for seed in (1, 1, 2):
        assert main(["sample", str(trained), "--length", "80", "--temperature", "1.5", "--seed", str(seed)]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_several_samples_at_once(trained, capsys):
    assert main(["sample", str(trained), "--count", "3", "--length", "20", "--top-k", "5", "--top-p", "0.9"]) == 0
    out = capsys.readouterr().out
    assert [f"--- {k} of 3 ---" in out for k in (1, 2, 3)] == [True] * 3


def test_unknown_characters_of_a_prompt_are_named(trained, capsys):
    assert main(["sample", str(trained), "--prime", "Ж Zoë", "--length", "3"]) == 0
    said = capsys.readouterr()
    assert "'Ж'" in said.err
    assert said.out.startswith("Ж Zoë")


def test_scores_of_held_out_and_of_other_text(trained, tmp_path, capsys):
    assert main(["eval", str(trained), "--json"]) == 0
    held_out = json.loads(capsys.readouterr().out)
    assert held_out["text"] == "test part"
    assert held_out["nats"] < 0.5
    assert held_out["bits_per_character"] == pytest.approx(held_out["nats"] / 0.6931472, rel=1e-6)
    other = tmp_path / "other.txt"
    other.write_text("xn" * 50)
    assert main(["eval", str(trained), "--data", str(other)]) == 0
    said = capsys.readouterr()
    assert "perplexity" in said.out
    assert "left out because not in the vocabulary: 'x'" in said.err


def test_info_tells_how_to_go_on(trained, capsys):
    assert main(["info", str(trained)]) == 0
    out = capsys.readouterr().out
    for expected in (
        "lstm",
        "32 units",
        "parameters",
        "400 steps",
        "bits/char",
        f"unrolled sample {trained}",
        "--resume",
    ):
        assert expected in out


def test_resuming_extends_a_run(trained, tmp_path, capsys):
    run = tmp_path / "copy"
    shutil.copytree(trained, run)
    assert main(["train", "lm", "--resume", str(run), "--max-steps", "410"]) == 0
    out = capsys.readouterr().out
    assert "resumed at step 400" in out
    assert "finished after 410 steps" in out
    assert main(["train", "lm", "--resume", str(run)]) == 0
    assert "finished after 410 steps" in capsys.readouterr().out


def test_commands_that_are_offered_can_be_pasted(train, tmp_path, capsys):
    assert train("--max-steps", "5", "--out", "my run") == 0
    assert "unrolled sample 'my run'" in capsys.readouterr().out
    assert main(["info", "my run"]) == 0
    assert "unrolled train lm --resume 'my run'" in capsys.readouterr().out
    assert "or continue that one with --resume 'my run'" in error_of(["train", "lm", "--out", "my run"], capsys)


def test_a_limit_given_anew_replaces_the_old_one(trained, tmp_path, capsys):
    run = tmp_path / "copy"
    shutil.copytree(trained, run)
    epochs = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["epoch"] + 0.1
    assert main(["train", "lm", "--resume", str(run), "--epochs", str(epochs)]) == 0
    assert main(["info", str(run)]) == 0
    steps, passes = re.search(r"([\d,]+) steps, ([\d.]+) epochs", capsys.readouterr().out).groups()
    assert int(steps.replace(",", "")) > 400
    assert float(passes) == pytest.approx(epochs, abs=0.02)


def test_a_refused_resume_changes_nothing(trained, tmp_path, capsys):
    run = tmp_path / "copy"
    shutil.copytree(trained, run)
    before = (run / "config.json").read_bytes()
    error_of(["train", "lm", "--resume", run, "--device", "cuda:7"], capsys)
    assert (run / "config.json").read_bytes() == before


@pytest.mark.parametrize(("data", "name"), [("..", "outer"), ("-x.txt", "-x"), (".", "inner")])
def test_runs_are_named_after_their_text(data, name, tmp_path, monkeypatch, capsys):
    here = tmp_path / "outer" / "inner"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    write(here / "-x.txt", "some text to learn, and more of it\n" * 20)
    assert main(["train", "lm", f"--data={data}", *SMALL, "--max-steps", "1"]) == 0
    assert f"unrolled sample runs/{name}-lstm-1" in capsys.readouterr().out


def test_min_char_rnn(text_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "min-char-rnn", str(text_file), "--iterations", "150", "--sample-every", "100"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^iter \d+, loss: [\d.]+$", out, re.M)) == 3
    assert out.count("----\n") == 4
    assert main(["sample", "runs/text-min-char-rnn-1", "--length", "10"]) == 0
    assert main(["eval", "runs/text-min-char-rnn-1", "--data", str(text_file)]) == 0
    capsys.readouterr()
    assert main(["info", "runs/text-min-char-rnn-1"]) == 0
    assert "--resume" not in capsys.readouterr().out
    assert "cannot be resumed" in error_of(["train", "lm", "--resume", "runs/text-min-char-rnn-1"], capsys)
    assert "too short" in error_of(["train", "min-char-rnn", write(tmp_path / "s", "abc"), "--out", "s1"], capsys)


def test_a_run_killed_before_its_first_checkpoint_starts_anew(train, capsys):
    assert train("--max-steps", "3", "--out", "whole") == 0
    assert train("--max-steps", "3", "--out", "torn") == 0
    shutil.rmtree("torn/checkpoints")
    assert main(["train", "lm", "--resume", "torn"]) == 0
    assert "no checkpoint yet: from step 0" in capsys.readouterr().out
    weights = [next(Path(run).glob("checkpoints/*/model.safetensors")).read_bytes() for run in ("whole", "torn")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["train"], ["train", "--help"], *([*name.split(), "--help"] for name in summaries())]
)
def test_help(words, capsys):
    try:
        code = main(words)
    except SystemExit as ending:
        code = ending.code
    assert code == (2 if words == ["train"] else 0)
    assert "usage: unrolled" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [60, 90, 121])
@pytest.mark.parametrize("command", ["train lm", "translate", "inspect words"])
def test_the_help_leaves_out_empty_defaults(command, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    out = stdout.buffer.getvalue().decode("utf-8")
    assert "(default: " in out
    assert not re.search(r"default:[\s│]*(?:None|'')?\)", out)
    rows = [line for line in out.splitlines() if line.startswith(("╭", "│", "╰"))]
    assert len({len(row) for row in rows}) == 1  # the boxes are straight
    assert not any(re.fullmatch(r"│\s*│", row) for row in rows)


def test_the_help_names_every_choice(capsys):
    with pytest.raises(SystemExit):
        main(["train", "lm", "--help"])
    out = capsys.readouterr().out
    words = set(re.findall(r"[\w-]+", out))
    assert {*CELLS, *LEVELS, *OPTIMIZERS, *SCHEDULES} <= words


def test_version(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"unrolled \d+\.\d+\.\d+\n", capsys.readouterr().out)
