"""A disk that is full or cannot be written: one line that says so, and nothing lost that was there before."""

import gc
import os

import pytest

from tests.programs import completed
from unrolled.cli import main
from unrolled.training import Checkpoints, open_run

WORDS = [
    *("--hidden-size", "64", "--num-layers", "1", "--embedding-size", "4", "--batch-size", "2", "--seq-length", "8"),
    *("--eval-every", "10", "--sample-every", "20", "--log-every", "1", "--keep-checkpoints", "1"),
]


@pytest.fixture
def volume(tmp_path):
    """A file system of two megabytes of its own."""
    path = tmp_path / "volume"
    path.mkdir()
    mounted = completed(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", path])
    if mounted.returncode:
        pytest.skip("mounting a file system takes a privilege that this process lacks")
    yield path
    gc.collect()  # of what a test that has ended still holds open there
    completed(["umount", path], check=True)


def fill(path, leave):
    """A file of all the space that is left, but for `leave` bytes."""
    with (path / "ballast").open("wb") as file:
        status = os.statvfs(path)
        file.write(b"\0" * max(0, status.f_bavail * status.f_frsize - leave))


def error_of(words, capsys):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if not line.startswith("unrolled: note:")]
    assert len(lines) == 1, said
    assert lines[0].startswith("unrolled: error: ")
    return lines[0]


@pytest.mark.parametrize("leave", [0, 4096, 3 * 4096])
def test_no_space_for_a_new_run(volume, text_file, capsys, leave):
    fill(volume, leave)
    words = ["train", "lm", "--data", text_file, *WORDS, "--max-steps", "30", "--out", volume / "run"]
    assert "No space left on device" in error_of(words, capsys)
    assert [path.name for path in volume.iterdir()] in (["ballast"], ["ballast", "run"], ["run", "ballast"])
    (volume / "ballast").unlink()
    resume = ["train", "lm", "--resume", str(volume / "run")] if (volume / "run").exists() else None
    assert main(resume or [str(word) for word in words]) == 0


@pytest.mark.parametrize(
    "leave", [0, pytest.param(4096, marks=pytest.mark.slow), 8 * 4096, pytest.param(60 * 4096, marks=pytest.mark.slow)]
)
def test_a_disk_that_becomes_full(volume, text_file, tmp_path, capsys, leave):
    words = ["train", "lm", "--data", str(text_file), *WORDS]
    assert main([*words, "--max-steps", "60", "--lr-schedule", "constant", "--out", str(tmp_path / "whole")]) == 0
    assert main([*words, "--max-steps", "20", "--lr-schedule", "constant", "--out", str(volume / "run")]) == 0
    run = open_run(volume / "run")
    before = {path: path.read_bytes() for path in Checkpoints(run).find("last").folder.iterdir()}
    fill(volume, leave)
    resume = ["train", "lm", "--resume", str(volume / "run"), "--max-steps", "60"]
    assert "No space left on device" in error_of(resume, capsys)
    last = Checkpoints(run).find("last")
    if last.step == 20:
        assert {path: path.read_bytes() for path in last.folder.iterdir()} == before
    assert not list(run.path.rglob("*.tmp"))
    (volume / "ballast").unlink()
    assert main(resume) == 0
    weights = [
        (Checkpoints(open_run(path)).find("last").folder / "model.safetensors").read_bytes()
        for path in (tmp_path / "whole", run.path)
    ]
    assert weights[0] == weights[1]
    steps = [record["step"] for record in run.metrics() if "loss" in record]
    assert steps == list(range(1, 61))


def test_a_disk_that_cannot_be_written(volume, text_file, tmp_path, capsys):
    words = ["train", "lm", "--data", str(text_file), *WORDS, "--max-steps", "20"]
    assert main([*words, "--out", str(volume / "run")]) == 0
    completed(["mount", "-o", "remount,ro", volume], check=True)
    run = str(volume / "run")
    for reads in (["sample", run, "--length", "5"], ["eval", run], ["info", run]):
        assert main(reads) == 0
    for writes in (["--resume", run, "--max-steps", "30"], ["--data", str(text_file), "--out", str(volume / "new")]):
        assert "Read-only file system" in error_of(["train", "lm", *writes], capsys)
