"""`unrolled runs` and `unrolled sweep`, as a person uses them."""

import json
import os
import shutil
import signal
import stat
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

from tests.cli.shared import error_of
from tests.programs import PATIENCE, PRELOADED, completed, started, wait_until
from tests.training.killed import write_trees
from unrolled.cli import main
from unrolled.errors import RunError
from unrolled.experiments.exploration import arithmetic, xml
from unrolled.tasks.language import LanguageTask
from unrolled.tasks.language_settings import LanguageConfig
from unrolled.tasks.sweep import Search, settings_by_name
from unrolled.training import Run

STORED = Path(__file__).parents[1] / "training" / "runs"
SMALL = [
    *("--hidden-size", "8", "--num-layers", "1", "--embedding-size", "4", "--batch-size", "2", "--seq-length", "8"),
    *("--sample-every", "0", "--val-tokens", "100"),
]


@pytest.fixture
def folder(tmp_path):
    for name in ("b", "deep/a"):
        shutil.copytree(STORED / "format-2", tmp_path / "runs" / name)
    shutil.copytree(STORED / "format-1", tmp_path / "runs" / "old")
    future = shutil.copytree(STORED / "format-2", tmp_path / "runs" / "future")
    stored = json.loads((future / "config.json").read_text())
    (future / "config.json").write_text(json.dumps({**stored, "format": 99}))
    metrics = tmp_path / "runs" / "b" / "metrics.jsonl"
    metrics.write_text('{"step": 30, "epoch": 0.3, "seconds": 9, "validation_loss": 0.5}\n')
    return tmp_path / "runs"


def rows(capsys, *words):
    capsys.readouterr()
    assert main(["runs", *map(str, words), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_table_of_runs(folder, capsys):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(["runs", str(folder)]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == ["name", "b", "deep/a", "future", "old"]
    assert "run format 99 of a newer unrolled" in out
    assert [row["name"] for row in rows(capsys, folder, "--sort", "loss")] == ["b", "deep/a", "old", "future"]
    assert [row["name"] for row in rows(capsys, folder, "--sort", "loss", "--reverse")][-1] == "future"
    row = rows(capsys, folder, "--sort", "steps")[0]
    assert (row["cell"], row["units"], row["steps"], row["loss"], row["state"]) == ("lstm", "6", 30, 0.5, "at step 45")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    with FileLock(folder / "b" / ".lock"):
        assert rows(capsys, folder / "b")[0]["state"] == "training"


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        (("task",), ["x"], "its task must be a word"),
        (("config",), 3, "its config an object"),
        (("config", "model"), "small", "at step 45"),
        (("config", "model", "cell"), ["x"], "['x']"),
        (("config", "model", "hidden_size"), {"a": None}, "at step 45"),
        (("config", "model", "num_layers"), "two", "at step 45"),
    ],
)
def test_settings_that_make_no_sense_leave_the_other_runs_their_rows(path, value, shown, folder, capsys):
    file = folder / "b" / "config.json"
    stored = json.loads(file.read_text())
    part = stored
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    file.write_text(json.dumps(stored))
    for sort in ("task", "cell", "units"):
        assert main(["runs", str(folder), "--sort", sort]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 5
        assert any(line.startswith("b ") and shown in line for line in lines)
    assert error_of(["info", folder / "b"], capsys)
    assert error_of(["eval", folder / "b"], capsys)


def replace(path, content):
    """A file with this content in its place; a folder where that is None."""
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)


LINE = b'{"step": 5, "epoch": 0.1, "seconds": %b, "validation_loss": %b}\n'
DEEP = b'{"step": 5, "epoch": 0.1, "seconds": 1, "validation_loss": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"


@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("config.json", None, "Is a directory"),
        ("config.json", b"\0" * 100, "damaged"),
        ("config.json", b"[" * 100_000, "damaged"),
        ("metrics.jsonl", None, "cannot be read (Is a directory)"),
        ("metrics.jsonl", b"\0\0\n\0\0\n", "not a line of metrics"),
        ("metrics.jsonl", LINE % (b"1", b'"low"'), "cannot be read"),
        ("metrics.jsonl", LINE % (b"Infinity", b"1"), "cannot be read"),
        ("metrics.jsonl", LINE % (b"1", b"1" + b"0" * 400), "cannot be read"),
        ("metrics.jsonl", DEEP, ""),
        ("checkpoints/step-00000045/checkpoint.json", None, ""),
    ],
)
def test_a_run_that_cannot_be_read_leaves_the_other_runs_their_rows(name, content, shown, folder, capsys):
    replace(folder / "b" / name, content)
    for sort in ("name", "steps", "changed", "loss"):
        found = {row["name"]: row for row in rows(capsys, folder, "--sort", sort)}
        assert set(found) == {"b", "deep/a", "future", "old"}
        assert shown in found["b"]["state"]
        assert found["deep/a"]["state"] == "at step 45"
    assert main(["runs", str(folder)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


@pytest.mark.parametrize("name", ["samples.txt", "checkpoints", "config.json", "metrics.jsonl", "", "tensorboard"])
def test_a_file_that_vanishes_while_it_is_looked_at(name, folder, capsys, monkeypatch):
    """Listed, and gone when it is asked for: as by a process that trains, or somebody who clears up."""
    real = Path.iterdir

    def vanishing(path):
        for child in list(real(path)):
            if path == folder / "b":
                gone = path / name
                shutil.rmtree(gone) if gone.is_dir() else gone.unlink(missing_ok=True)
            yield child

    (folder / "b" / "samples.txt").write_text("--- step 5 ---")
    monkeypatch.setattr(Path, "iterdir", vanishing)
    assert {row["name"] for row in rows(capsys, folder)} == {"b", "deep/a", "future", "old"}


def test_a_folder_that_vanishes_while_it_is_looked_at(folder, capsys, monkeypatch):
    real = Run.read
    monkeypatch.setattr(Run, "read", lambda path: (path == folder / "b" and shutil.rmtree(path)) or real(path))
    found = {row["name"]: row["state"] for row in rows(capsys, folder)}
    assert set(found) == {"b", "deep/a", "future", "old"}
    assert found["b"] == "no such run directory"
    assert found["deep/a"] == "at step 45"


def test_what_others_may_not_read_is_a_row(folder, tmp_path):
    if not hasattr(os, "getuid") or os.getuid() != 0:
        pytest.skip("only root can become another user")
    shutil.copytree(folder / "b", folder / "closed" / "c")
    for path in (
        tmp_path,
        *tmp_path.parents[: -len(Path(tempfile.gettempdir()).parts)],
    ):  # which pytest keeps to itself
        path.chmod(path.stat().st_mode | stat.S_IXOTH)
    (folder / "b" / "metrics.jsonl").chmod(0o600)
    (folder / "closed").chmod(0o700)
    (folder / "old" / "config.json").chmod(0o600)
    (folder / "deep" / "a").chmod(0o711)
    program = (  # what it needs is imported while this may still read the package
        "import os, sys, unrolled.cli.runs; from unrolled.cli import main; os.setgid(65534); os.setuid(65534); "
        f"sys.exit(main(['runs', {str(folder)!r}, '--json']))"
    )
    result = completed([PRELOADED, "-c", program])
    assert result.returncode == 0, result.stderr
    found = {row["name"]: row["state"] for row in map(json.loads, result.stdout.splitlines())}
    assert set(found) == {"b", "deep/a", "future", "old", "closed"}
    assert "newer" in found["future"]
    for name in ("b", "deep/a", "old", "closed"):
        assert "Permission denied" in found[name], name


def test_names_of_others_do_nothing_to_the_table(folder, capsys):
    file = folder / "b" / "config.json"
    stored = json.loads(file.read_text())
    stored["config"]["model"]["cell"] = "\x1b[31m\nlstm\ud800"
    file.write_text(json.dumps(stored))
    shutil.copytree(folder / "b", folder / "two\nlines")
    assert main(["runs", str(folder)]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 6
    assert "\x1b" not in out
    assert len(rows(capsys, folder)) == 5


def test_mistakes_with_runs(folder, capsys):
    assert "none: no such folder" in error_of(["runs", folder / "none"], capsys)
    assert "--sort cannot be 'beauty'" in error_of(["runs", folder, "--sort", "beauty"], capsys)
    (folder / "empty").mkdir()
    assert main(["runs", str(folder / "empty")]) == 0
    assert "no runs in" in capsys.readouterr().out


def test_a_sweep_goes_on_and_its_trials_are_runs(text_file, tmp_path, capsys):
    study = tmp_path / "study"
    words = ["sweep", str(study), "--data", str(text_file), *SMALL, "--max-steps", "3", "--cells", "gru", "mut1"]
    words += ["--search", "learning_rate=0.001:0.1:log", "dropout=0,0.5"]
    assert main([*words, "--trials", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("trial ") == 2
    assert main([*words, "--trials", "4"]) == 0
    out = capsys.readouterr().out
    assert out.count("trial ") == 2
    table = out.splitlines()[-2:]
    assert {line.split()[0] for line in table} == {"gru", "mut1"}
    assert all(line.split()[1] == "2" for line in table)
    best = rows(capsys, study, "--sort", "loss")
    assert len(best) == 4
    assert f"{best[0]['loss']:.4f}" == table[0].split()[2]
    assert main(["sample", str(study / best[0]["name"]), "--length", "3"]) == 0
    changed = [*words[:-1], "dropout=0", "--trials", "4"]
    assert "a study with other settings (search)" in error_of(changed, capsys)


@pytest.mark.slow
def test_processes_share_a_study_and_a_stopped_trial_goes_on(text_file, tmp_path):
    study = tmp_path / "study"
    words = ["sweep", str(study), "--data", str(text_file), *SMALL, "--max-steps", "150", "--trials", "4"]
    command = [PRELOADED, "-m", "unrolled", *words]
    with started(command) as first, started(command) as second:
        several = first, second
        wait_until(lambda: any(file.stat().st_size for file in study.glob("*/metrics.jsonl")), *several)
        first.send_signal(signal.SIGINT)
        said = [process.communicate(timeout=PATIENCE) for process in several]
    assert [err for _, err in said] == ["", ""]
    assert several[1].returncode == 0
    assert several[0].returncode in (0, 130)
    assert sum(out.count("\ntrial ") + out.startswith("trial ") for out, _ in said) == 4
    assert len([path for path in study.iterdir() if path.is_dir()]) == 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--cells", "lstmm"], "unknown cell"),
        (["--cells", "gru", "gru"], "a cell is given twice"),
        (["--search", "speed=1:2"], "a setting of the model or of training"),
        (["--search", "learning_rate"], "write NAME=LOW:HIGH"),
        (["--search", "learning_rate=3:1"], "the range is empty"),
        (["--search", "learning_rate=0:1:log"], "logarithmic"),
        (["--search", "seed=1,2"], "an option of its own"),
        (["--search", "num_layers=1:3"], "write num_layers=A,B,C"),
        (["--search", "dropout=2,3"], "--dropout must be from 0"),
        (["--search", "dropout=0.5:1.5"], "--dropout must be from 0"),
        (["--search", "hidden_size=8,abc"], "--search: hidden_size cannot be abc"),
        (["--trials", "0"], "--trials must be at least 1"),
        (["--storage", "oracle-of-delphi://x"], "--storage oracle-of-delphi://x: cannot be opened"),
        (["--task", "xml"], "makes its own text; leave out --data"),
    ],
)
def test_mistakes_with_sweeps(words, expected, text_file, tmp_path, capsys):
    data = ["--data", str(text_file)]
    assert expected in error_of(["sweep", tmp_path / "s", *data, *SMALL, "--max-steps", "1", *words], capsys)


def test_a_folder_of_something_else_is_left_alone(text_file, tmp_path, capsys):
    assert "not a study" in error_of(["sweep", tmp_path, "--data", text_file, *SMALL], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_settings_to_search():
    kinds = settings_by_name(LanguageConfig)
    assert Search.parse("--learning-rate=1e-4:1e-2:log", kinds) == Search("learning_rate", (), 1e-4, 1e-2, True)
    assert Search.parse("hidden_size=64,128", kinds) == Search("hidden_size", (64, 128))
    assert Search.parse("optimizer=adam,sgd", kinds) == Search("optimizer", ("adam", "sgd"))


def test_made_texts_are_right_and_their_seeds_matter():
    for line in arithmetic(200, 1).splitlines():
        problem, answer = line.removesuffix(".").split("=")
        digits = "".join(character for character in problem if not character.isalpha())
        assert eval(digits.lstrip("0") if digits.lstrip("0")[:1].isdigit() else digits) == int(answer)
    for line in xml(200, 1).splitlines():
        left: list[str] = []
        for tag in line.removeprefix("<").removesuffix(">").split("><"):
            assert tag == f"/{left.pop()}" if tag.startswith("/") else left.append(tag) is None
            assert len(left) <= 4
        assert not left
    assert xml(5, 1) == xml(5, 1) != xml(5, 2)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--task", "min-char-rnn"], "--task min-char-rnn: it has its own training loop"),
        (["--cell", "gru"], "--cell: a sweep compares cells; give them with --cells"),
        (["--cells", "gru", "gru"], "--cells: a cell is given twice"),
    ],
)
def test_what_a_sweep_cannot_do(words, expected, tmp_path, capsys):
    assert expected in error_of(["sweep", tmp_path / "study", *words], capsys)
    assert not (tmp_path / "study").exists()


def test_a_sweep_of_trees_has_the_cell_of_trees(tmp_path, capsys):
    write_trees(tmp_path)
    small = ["--hidden-size", "4", "--embedding-size", "4", "--max-steps", "2", "--trials", "1", "--device", "cpu"]
    words = ["sweep", str(tmp_path / "study"), "--task", "tree", "--data", str(tmp_path), *small]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == "tree-lstm"


def test_a_name_that_another_process_takes_meanwhile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("some text\n" * 100)
    prepare = LanguageTask.prepare.__func__

    def late(cls, run, settings, progress):
        """Another process was faster: its run is complete when this one writes its own."""
        prepare(cls, run, settings, progress)
        if run.path.name.endswith("-1"):
            raise RunError(f"{run.path}: another process is training this run")

    def taken(folder, stem):
        names.append(f"{stem}-{len(names) + 1}")
        return folder / names[-1]

    names = []
    monkeypatch.setattr(LanguageTask, "prepare", classmethod(late))
    monkeypatch.setattr("unrolled.cli.train.next_free", taken)
    assert main(["train", "lm", "--data", "text.txt", *SMALL, "--max-steps", "1", "--device", "cpu"]) == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["text-lstm-2"]
