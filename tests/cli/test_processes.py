"""The commands as processes: signals, pipes, standard input and the locale."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.shared import SMALL
from unrolled.cli import main


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
    limit = ["--max-steps", "600", "--log-every", "1", "--eval-every", "200", "--sample-every", "0"]
    whole = start_training(text_file, tmp_path / "whole", *limit)
    whole.communicate(timeout=240)
    assert whole.returncode == 0
    stopped = start_training(text_file, tmp_path / "parts", *limit)
    wait_for_step(stopped, tmp_path / "parts", 20)
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=60)
    assert (stopped.returncode, err) == (130, "")
    assert f"unrolled train lm --resume {tmp_path / 'parts'}" in out
    assert main(["train", "lm", "--resume", str(tmp_path / "parts")]) == 0
    files = [
        next((tmp_path / name / "checkpoints").glob("step-00000600/model.safetensors")) for name in ("whole", "parts")
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
