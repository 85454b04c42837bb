"""A run that is killed again and again ends as one that never was, and leaves nothing behind."""

import os
import random
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from tests.training.killed import die_at_operation
from unrolled.errors import RunError
from unrolled.training import Run


def numbers(run):
    """All that was logged but for the time it took."""
    return [{name: value for name, value in record.items() if name != "seconds"} for record in run.metrics()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_thirty_kills_change_nothing(tmp_path, text_file):
    seed = 1 if "CI" in os.environ else random.randrange(1_000_000)  # printed with the command where it fails
    memory = Path("/dev/shm")  # where it is there, so that hundreds of checkpoints need not reach a disk
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        script = str(Path(__file__).with_name("killed.py"))
        command = [sys.executable, script, folder, str(text_file), str(seed), "30"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), command
        for parts in Path(folder).glob("parts*"):
            compare(Run.open(Path(folder, "whole")), Run.open(parts))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_preparations_killed_anywhere_leave_the_directory_free(tmp_path):
    def prepare(path):
        with Run.create(path, "test", {}) as run:
            (run.path / "some").mkdir()
            (run.path / "some" / "tokens.bin").write_bytes(b"123")

    def killed_at(number, path):
        child = os.fork()
        if not child:
            die_at_operation(number, path)
            with suppress(RunError):  # where the first had got to the end
                prepare(path)
            os._exit(0)
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])

    number = 1
    while killed_at(number, path := tmp_path / f"run-{number}"):
        killed_at(number, path)  # once more: in the midst of clearing away what the first left
        if not (path / "config.json").exists():
            prepare(path)
        run = Run.open(path)
        run.remove_temporaries()
        assert {child.name for child in path.iterdir()} <= {"config.json", ".lock", "some"}
        number += 1
    assert number > 8


def compare(whole, parts):
    files = [
        {str(file.relative_to(run.path)): file for file in run.path.rglob("*") if "events.out" not in file.name}
        for run in (whole, parts)
    ]
    assert sorted(files[0]) == sorted(files[1])  # no temporary files, no other checkpoints
    for name in files[0]:
        if name.endswith("model.safetensors") or name in ("samples.txt", "tokens.bin", "vocabulary.json"):
            assert files[0][name].read_bytes() == files[1][name].read_bytes(), name
    assert len([name for name in files[0] if name.endswith("model.safetensors")]) >= 2
    assert numbers(whole) == numbers(parts)
