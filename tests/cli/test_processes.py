"""The commands as processes: signals, pipes, standard input and the locale."""

import json
import os
import signal
import sys
from pathlib import Path

from tests.cli.shared import SMALL
from tests.programs import PATIENCE, PRELOADED, completed, started, wait_until
from unrolled.cli import main


def start_training(text_file, run, *words):
    command = [
        PRELOADED,
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
    return started(command)


def has_reached(run, step):
    path = run / "metrics.jsonl"
    return path.exists() and any(json.loads(line)["step"] >= step for line in path.read_text().splitlines()[:-1])


def test_ctrl_c_saves_everything_and_resuming_gives_the_same_weights(text_file, tmp_path):
    limit = ["--max-steps", "200", "--log-every", "1", "--eval-every", "100", "--sample-every", "0"]
    with start_training(text_file, tmp_path / "whole", *limit) as whole:
        whole.communicate(timeout=PATIENCE)
    assert whole.returncode == 0
    with start_training(text_file, tmp_path / "parts", *limit) as stopped:
        wait_until(lambda: has_reached(tmp_path / "parts", 20), stopped)
        stopped.send_signal(signal.SIGINT)
        out, err = stopped.communicate(timeout=60)
    assert (stopped.returncode, err) == (130, "")
    assert f"unrolled train lm --resume {tmp_path / 'parts'}" in out
    assert main(["train", "lm", "--resume", str(tmp_path / "parts")]) == 0
    files = [
        next((tmp_path / name / "checkpoints").glob("step-00000200/model.safetensors")) for name in ("whole", "parts")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_standard_input_and_a_reader_that_leaves(text_file, trained, tmp_path):
    command = [PRELOADED, "-m", "unrolled"]
    done = completed(
        [*command, "train", "lm", "--data", "-", *SMALL, "--max-steps", "2", "--out", str(tmp_path / "run")],
        input=text_file.read_bytes(),
        text=False,
    )
    assert done.returncode == 0, done.stderr
    with started([*command, "sample", str(trained), "--length", "100000"]) as sampler:
        sampler.stdout.read(200)
        sampler.stdout.close()
        assert (sampler.wait(timeout=60), sampler.stderr.read()) == (0, "")


def test_without_a_chosen_locale_unicode_still_works(trained):
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = ["sample", str(trained), "--prime", "Zoë", "--length", "40"]
    done = completed([sys.executable, "-m", "unrolled", *words], env=environment, text=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().startswith("Zoë")


def test_a_pipe_is_read_once_and_a_path_keeps_its_bytes(text_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [PRELOADED, "-m", "unrolled", "train", "lm", *SMALL, "--max-steps", "1", "--out", "run", "--data"]
    read, write = os.pipe()
    text_file.rename(os.fsdecode(bytes(text_file) + b"\xff"))
    text_file = Path(os.fsdecode(bytes(text_file) + b"\xff"))
    with started([*command, f"/dev/fd/{read}", bytes(text_file)], pass_fds=[read]) as training:
        os.close(read)
        with open(write, "wb") as pipe:
            pipe.write(text_file.read_bytes())
        training.communicate(timeout=PATIENCE)
        assert training.returncode == 0
    assert "/dev/fd" in completed([PRELOADED, "-m", "unrolled", "info", "run"], check=True).stdout
    bad = completed([*command, text_file, b"--out", b"r\xff"])
    assert bad.returncode == 2
    assert "not UTF-8; choose another --out" in bad.stderr
