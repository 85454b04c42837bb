"""The commands as a person types them: what they print, and the one line they answer a mistake with."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unrolled.cells import CELLS
from unrolled.cli import COMMANDS, main
from unrolled.data import LEVELS
from unrolled.training.config import OPTIMIZERS, SCHEDULES

SMALL = [
    "--hidden-size",
    "8",
    "--num-layers",
    "1",
    "--embedding-size",
    "4",
    "--batch-size",
    "2",
    "--seq-length",
    "8",
    "--eval-every",
    "5",
    "--sample-every",
    "5",
]


@pytest.fixture
def train(text_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *words: main(["train", "lm", "--data", str(text_file), *SMALL, *words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    text = folder / "text.txt"
    text.write_text("Zoë said: grüß dich, naïve 世界!\n" * 120, encoding="utf-8")
    words = ["train", "lm", "--data", str(text), *SMALL, "--max-steps", "400", "--learning-rate", "0.03"]
    assert main([*words, "--hidden-size", "32", "--out", str(folder / "run"), "--test-fraction", "0.05"]) == 0
    return folder / "run"


def error_of(words, capsys):
    """The single line that a mistake is answered with."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    lines = said.err.strip().splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].startswith("unrolled: error: ")
    return lines[0]


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


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_trains_by_its_name(train, cell):
    assert train("--cell", cell, "--max-steps", "2", "--hidden-size", "8", "6", "--num-layers", "2") == 0


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
    assert "left out, being unknown to the vocabulary: 'x'" in said.err


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
    _write(here / "-x.txt", "some text to learn, and more of it\n" * 20)
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
    assert "too short" in error_of(["train", "min-char-rnn", _write(tmp_path / "s", "abc"), "--out", "s1"], capsys)


def _write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


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
    _write(tmp_path / "empty.txt", "")
    _write(tmp_path / "photo.png", b"PNG\0\0\0")
    _write(tmp_path / "latin1.txt", "grün".encode("latin-1"))
    _write(tmp_path / "short.txt", "To be, or not to be.")
    (tmp_path / "full").mkdir()
    _write(tmp_path / "full" / "thesis.tex", "years of work")
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
        (["train", "gpt"], "unknown command 'train gpt'"),
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

    monkeypatch.setattr("unrolled.tasks.language.ModelConfig.build", refuse)
    assert train("--out", "run") == 2
    assert "not enough memory" in capsys.readouterr().err
    assert not os.path.exists("run")


def test_a_run_killed_before_its_first_checkpoint_starts_anew(train, capsys):
    assert train("--max-steps", "3", "--out", "whole") == 0
    assert train("--max-steps", "3", "--out", "torn") == 0
    shutil.rmtree("torn/checkpoints")
    assert main(["train", "lm", "--resume", "torn"]) == 0
    assert "no checkpoint yet: from step 0" in capsys.readouterr().out
    weights = [next(Path(run).glob("checkpoints/*/model.safetensors")).read_bytes() for run in ("whole", "torn")]
    assert weights[0] == weights[1]


def test_settings_edited_by_hand_are_noticed(trained, tmp_path, capsys):
    run = tmp_path / "copy"
    shutil.copytree(trained, run)
    config = json.loads((run / "config.json").read_text())
    config["config"]["training"]["batch_size"] = 4
    _write(run / "config.json", json.dumps(config))
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


def test_a_pipe_is_read_once_and_a_path_keeps_its_bytes(text_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "unrolled", "train", "lm", *SMALL, "--max-steps", "1", "--out", "run", "--data"]
    read, write = os.pipe()
    text_file.rename(os.fsdecode(bytes(text_file) + b"\xff"))
    text_file = Path(os.fsdecode(bytes(text_file) + b"\xff"))
    with subprocess.Popen([*command, f"/dev/fd/{read}", bytes(text_file)], pass_fds=[read]) as training:
        os.close(read)
        with open(write, "wb") as pipe:
            pipe.write(text_file.read_bytes())
        assert training.wait(timeout=120) == 0
    info = subprocess.run([sys.executable, "-m", "unrolled", "info", "run"], capture_output=True, check=True)
    assert b"/dev/fd" in info.stdout
    bad = subprocess.run([*command, text_file, b"--out", b"r\xff"], capture_output=True, check=False)
    assert bad.returncode == 2
    assert b"not UTF-8; choose another --out" in bad.stderr


def test_unknown_words_are_not_scored_by_the_character(train, tmp_path, capsys):
    assert train("--level", "word", "--max-steps", "3", "--out", "run") == 0
    _write(tmp_path / "other.txt", "xyzzy plugh " * 30)
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
    _write(run / "vocabulary.json", '{"level": "char", "characters": "abc"}')
    assert "not the one that its weights were trained with" in error_of(["sample", run], capsys)


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["train"], ["train", "--help"], *([*name.split(), "--help"] for name in COMMANDS)]
)
def test_help(words, capsys):
    try:
        code = main(words)
    except SystemExit as ending:
        code = ending.code
    assert code == (2 if words == ["train"] else 0)
    assert "usage: unrolled" in capsys.readouterr().out


def test_the_help_names_every_choice(capsys):
    with pytest.raises(SystemExit):
        main(["train", "lm", "--help"])
    out = capsys.readouterr().out
    words = set(re.findall(r"[\w-]+", out))
    assert {*CELLS, *LEVELS, *OPTIMIZERS, *SCHEDULES} <= words


def test_version(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"unrolled \d+\.\d+\.\d+\n", capsys.readouterr().out)


def start_training(text_file, run, *words):
    command = [
        sys.executable,
        "-m",
        "unrolled",
        "train",
        "lm",
        "--data",
        str(text_file),
        *SMALL,
        "--out",
        str(run),
        *words,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_step(process, run, step):
    deadline = time.monotonic() + 60
    path = run / "metrics.jsonl"
    while process.poll() is None and time.monotonic() < deadline:
        if path.exists() and any(json.loads(line)["step"] >= step for line in path.read_text().splitlines()[:-1]):
            return
        time.sleep(0.02)
    pytest.fail(f"step {step} was not reached: {process.communicate()}")


def test_ctrl_c_saves_everything_and_resuming_gives_the_same_weights(text_file, tmp_path):
    limit = ["--max-steps", "1500", "--log-every", "1", "--eval-every", "500", "--sample-every", "0"]
    whole = start_training(text_file, tmp_path / "whole", *limit)
    whole.communicate(timeout=120)
    assert whole.returncode == 0
    stopped = start_training(text_file, tmp_path / "parts", *limit)
    wait_for_step(stopped, tmp_path / "parts", 20)
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=60)
    assert (stopped.returncode, err) == (130, "")
    assert f"unrolled train lm --resume {tmp_path / 'parts'}" in out
    assert main(["train", "lm", "--resume", str(tmp_path / "parts")]) == 0
    files = [
        next((tmp_path / name / "checkpoints").glob("step-00001500/model.safetensors")) for name in ("whole", "parts")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_standard_input_and_a_reader_that_leaves(text_file, trained, tmp_path):
    command = [sys.executable, "-m", "unrolled"]
    done = subprocess.run(
        [*command, "train", "lm", "--data", "-", *SMALL, "--max-steps", "2", "--out", str(tmp_path / "run")],
        input=text_file.read_bytes(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sampler = subprocess.Popen(
        [*command, "sample", str(trained), "--length", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    sampler.stdout.read(200)
    sampler.stdout.close()
    assert (sampler.wait(timeout=60), sampler.stderr.read()) == (0, b"")
    sampler.stderr.close()


def test_without_a_chosen_locale_unicode_still_works(trained):
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "unrolled", "sample", str(trained), "--prime", "Zoë", "--length", "40"],
        capture_output=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().startswith("Zoë")
