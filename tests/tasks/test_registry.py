"""A task of somebody else's, as docs/new-task.md shows it, in a file of its own: every command works on it."""

import importlib
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.cli.shared import error_of
from tests.programs import PRELOADED, as_torchrun, completed, started, wait_until
from unrolled.cli import main
from unrolled.errors import ConfigurationError, RunError
from unrolled.tasks import find_task, names, open_task, register
from unrolled.tasks.language import LanguageTask

PAGE = (Path(__file__).parents[2] / "docs" / "new-task.md").read_text(encoding="utf-8")
SOURCE = re.findall(r"```python\n(.*?)```", PAGE, re.S)[0]
LONG = [
    "train",
    "parity",
    "--out",
    "run",
    "--epochs",
    "10",
    "--eval-every",
    "20",
    "--log-every",
    "1",
    "--device",
    "cpu",
]

TWO_TRIALS = ["--task", "parity", "--cells", "gru", "elman", "--trials", "2", "--max-steps", "9"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that holds the file, and is the current one."""
    (tmp_path / "parity.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parity(*words, **options):
    return completed([PRELOADED, "-m", "parity", *words], **options)


def weights(run):
    return load_file(max((run / "checkpoints").glob("step-*")) / "model.safetensors")


def test_it_takes_sixty_lines():
    assert len(SOURCE.splitlines()) <= 60


@pytest.fixture
def registered(folder, monkeypatch):
    """The task, known to this process for a while."""
    monkeypatch.setattr("unrolled.tasks._registered", {})
    monkeypatch.syspath_prepend(folder)
    importlib.import_module("parity")
    yield folder
    del sys.modules["parity"]


def test_every_command_works_on_it(registered, capsys):
    def said(*words):
        assert main([*words]) == 0
        return capsys.readouterr().out

    assert "finished after 200 steps" in said(*LONG)
    assert said("runs", ".").splitlines()[1].split()[:3] == ["run", "parity", "gru"]
    found = json.loads(said("eval", "run", "--json"))
    assert set(found) == {"run", "checkpoint", "text", "loss"}
    shown = f"{found['loss']:.4f}"
    assert f"loss  {shown}" in said("eval", "run")
    assert f"loss {shown}" in said("runs", ".")
    info = said("info", "run")
    assert re.search(r"task +parity, format 2", info)
    assert re.search(rf"report +loss {shown} on held-out data, of the best weights", info)
    assert "unrolled train parity --resume run" in info
    gradients = said("inspect", "gradients", "run")
    assert re.search(r"layers\.cells\.0\.0 +6 ", gradients)  # six bits
    assert Path("gradients.png").exists()
    swept = said("sweep", "study", *TWO_TRIALS)
    assert {line.split()[0] for line in swept.splitlines()[-2:]} == {"gru", "elman"}
    assert "unrolled train parity         learn whether the number of ones among six bits is odd" in said("train", "-h")
    with pytest.raises(SystemExit) as ending:
        main(["train", "parity", "--help"])
    assert not ending.value.code
    assert "Units of the cell." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    {
        "eval run --beam 3": "run: --beam does not apply to a parity run: it has no flags for its task",
        "eval run --bream 3": "Unrecognized options: --bream",
        "sample run": "run: a parity run, not a language model run",
        "inspect run": "run: a parity run, not a language model run",
        "train lm --resume run": "a parity run cannot be resumed by train lm",
        "train parity --resume run --hidden-size 8": "--hidden-size cannot change",
        "train parity --resume run --seq-length 8": "Unrecognized options: --seq-length",
        "train party": "unknown task 'party' (did you mean 'parity'?)",
        "train parity --cell grue": "unknown cell 'grue' (did you mean 'gru'?)",
        "sweep study --task parity --search bits=1:2": "a setting of the model or of training",
    }.items(),
)
def test_mistakes(registered, words, expected, capsys):
    assert main([*LONG, "--max-steps", "1"]) == 0
    capsys.readouterr()
    assert expected in error_of(words.split(), capsys)


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("def build(self):", "raise ValueError('no idea')"),
        ("def epoch(self, number):", "raise ValueError('no idea')"),
        ("def loss(self, batch, state=None):", "return {}['no idea']"),
        ("def loss(self, batch, state=None):", "raise SystemExit('no idea')"),
        ("def validate(self, step=None):", "return 'no idea' + 1"),
    ],
)
def test_an_error_in_a_task_is_one_line_with_its_place(folder, monkeypatch, capsys, method, body):
    source = SOURCE.replace(method, f"{method}\n        {body}")
    number = next(k for k, line in enumerate(source.splitlines(), 1) if body in line)
    (folder / "parity.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr("unrolled.tasks._registered", {})
    monkeypatch.syspath_prepend(folder)
    importlib.import_module("parity")
    try:
        assert main([*LONG, "--max-steps", "1"]) == 2
        assert f"parity.py, line {number}: " in capsys.readouterr().err.strip().splitlines()[-1]
        monkeypatch.setenv("UNROLLED_TRACEBACK", "1")
        assert main([*LONG[:3], "other", *LONG[4:], "--max-steps", "1"]) == 2
        assert "Traceback" in capsys.readouterr().err
    finally:
        del sys.modules["parity"]


def test_a_pass_without_batches(folder, monkeypatch, capsys):
    source = SOURCE.replace("return BatchList(", "return BatchList() if number == 1 else BatchList(")
    (folder / "parity.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr("unrolled.tasks._registered", {})
    monkeypatch.syspath_prepend(folder)
    importlib.import_module("parity")
    try:
        assert main(LONG) == 2
        assert "run: pass 1 over the training data has no batches" in capsys.readouterr().err
    finally:
        del sys.modules["parity"]


@pytest.mark.parametrize("members", [{}, {"name": 3}, {"name": "x"}, {"name": "x", "Settings": int}])
def test_a_task_without_a_name_or_settings_is_not_registered(members, monkeypatch):
    monkeypatch.setattr("unrolled.tasks._registered", {})
    with pytest.raises(ConfigurationError, match="Half must set `name`, a string, and `Settings`, a dataclass"):
        register(type("Half", (LanguageTask,), {"name": None, "Settings": None, "__doc__": "", **members}))


def test_a_program_that_does_not_know_the_task_says_so(registered, monkeypatch, capsys):
    assert main([*LONG, "--max-steps", "1"]) == 0
    monkeypatch.setattr("unrolled.tasks._registered", {})
    capsys.readouterr()
    for words in (["info", "run"], ["eval", "run"]):
        assert "run: a run of the task 'parity', which is not installed here" in error_of(words, capsys)
    assert main(["runs", "."]) == 0
    assert " parity " in capsys.readouterr().out


def test_killed_and_resumed_it_is_as_never_stopped(folder):
    parity(*LONG, check=True)
    os.rename("run", "whole")
    with started([PRELOADED, "-m", "parity", *LONG]) as process:
        metrics = folder / "run" / "metrics.jsonl"
        wait_until(lambda: metrics.exists() and metrics.read_bytes().count(b"\n") > 50, process)
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    killed = max(int(path.name[5:]) for path in (folder / "run" / "checkpoints").glob("step-*"))
    assert killed < 200
    assert "finished after 200 steps" in parity("train", "parity", "--resume", "run", check=True).stdout
    whole, resumed = weights(folder / "whole"), weights(folder / "run")
    assert all((whole[name] == resumed[name]).all() for name in whole)


def test_two_processes_train_it_as_one(folder):
    parity(*LONG, check=True)
    os.rename("run", "one")
    assert "2 processes" in as_torchrun(["-m", "parity", *LONG])[0].stdout
    one, two = (
        [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "run")
    )
    for name in ("loss", "validation_loss"):
        expected, found = ([record[name] for record in records if name in record] for records in (one, two))
        assert len(expected) == len(found) >= 10
        assert found == pytest.approx(expected, rel=1e-3)


def test_a_package_brings_its_task_by_an_entry_point(folder):
    described = folder / "parity_task-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: parity-task\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(
        "[unrolled.tasks]\nparity = parity:Parity\nlost = nowhere:Lost\nother = parity:Parity\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[2])])}

    def unrolled(*words):
        return completed([PRELOADED, "-m", "unrolled", *words], env=environment)

    assert re.search(r"train parity +from the package parity-task", unrolled("train").stdout)
    assert unrolled(*LONG).returncode == 0
    assert "no checkpoint" not in unrolled("info", "run").stdout
    assert json.loads(unrolled("eval", "run", "--json").stdout)["loss"] > 0
    assert "from nowhere:Lost: No module named 'nowhere'" in unrolled("train", "lost").stderr
    assert "not a task of that name" in unrolled("train", "other").stderr


def test_a_name_that_is_taken_is_refused():
    class Language(LanguageTask):
        name = "lm"

    class Model(LanguageTask):
        name, kind = "model", "language model"

    for task in (Language, Model):
        with pytest.raises(ConfigurationError, match="choose another name or kind"):
            register(task)
    assert find_task("lm") is LanguageTask
    assert list(names())[:2] == ["lm", "min-char-rnn"]
    with pytest.raises(ConfigurationError, match=r"unknown task 'translat' \(did you mean 'translate'\?\)"):
        find_task("translat")
    with pytest.raises(RunError):
        open_task("/nowhere/at/all")
