"""A run that is killed again and again ends as one that never was, and leaves nothing behind."""

import json
import os
import random
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from torch import Tensor

from tests.programs import PRELOADED, completed
from tests.training.killed import TASKS, die_at_operation
from unrolled.errors import RunError
from unrolled.training import Run, open_run
from unrolled.training.state import read_state

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

KILLS = 2  # a task; tests/slow/test_killed_commands.py has many more


@pytest.fixture(scope="module")
def killed():
    """Of every task: runs of two processes that were not disturbed, and those of the second that were killed.

    The processes hash strings differently, so that nothing can depend on the order of a set: one as it happens.
    """
    seed = 1 if "CI" in os.environ else random.randrange(1_000_000)  # printed with the command where it fails
    memory = Path("/dev/shm")  # where it is there, so that hundreds of checkpoints need not reach a disk
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        for hashes, kills, python in ((1, 0, PRELOADED), (2, KILLS, sys.executable)):
            words = ["-m", "tests.training.killed", f"{folder}/{hashes}", str(seed), str(kills), *TASKS]
            environment = {**os.environ, "PYTHONHASHSEED": str(hashes)}
            done = completed([python, *words], env=environment)
            assert (done.returncode, done.stderr) == (0, ""), words
        yield Path(folder)


@pytest.mark.parametrize("task", TASKS)
def test_kills_change_nothing(killed, task):
    whole, *others = sorted(killed.glob(f"[12]/{task}/whole")) + sorted(killed.glob(f"2/{task}/parts*"))
    assert len(others) >= 2
    for parts in others:
        compare(open_run(whole), open_run(parts))


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
        run = open_run(path)
        run.remove_temporaries()
        assert {child.name for child in path.iterdir()} <= {"config.json", ".lock", "some"}
        number += 1
    assert number > 8


def compare(whole, parts):
    """Every file of two runs: the same bytes, but for the seconds that it took, the run's name and its data's place."""
    files = [{str(file.relative_to(run.path)): file for file in files_of(run)} for run in (whole, parts)]
    assert sorted(files[0]) == sorted(files[1])  # no temporary files, no other checkpoints
    assert any(name.endswith("model.safetensors") for name in files[0])
    for name, file in files[0].items():
        read = READ.get(file.name, Path.read_bytes)
        assert read(file) == read(files[1][name]), f"{parts.path / name}"


def files_of(run):
    apart = ("config.json", "loss.png", "checkpoint.json")  # the last holds digests of files with seconds
    return [
        file
        for file in run.path.rglob("*")
        if file.is_file() and not file.match("*.tfevents.*") and file.name not in apart
    ]


def training_state(path):
    state = read_state(path)
    if "position" in state:
        del state["position"]["seconds"], state["config"]
    return json.dumps(state, default=Tensor.tolist)


#: What is compared of a file, where it is not its bytes.
READ = {
    "metrics.jsonl": lambda path: [
        {name: value for name, value in record.items() if name != "seconds"}
        for record in open_run(path.parent).metrics()
    ],
    "training.safetensors": training_state,
    # Of the settings it holds a digest, and they name the data's place.
    "facts.json": lambda path: {
        name: value for name, value in json.loads(path.read_text()).items() if name != "settings"
    },
}
