"""A run that came from somebody else: links in it lead nowhere."""

import os
import shutil
from pathlib import Path

import pytest

from tests.cli.shared import error_of
from unrolled.cli import main
from unrolled.errors import RunError
from unrolled.tasks.language import LanguageTask
from unrolled.training import Run, open_run
from unrolled.training.run import next_free, write_atomically

STORED = Path(__file__).parent / "runs"
#: Everything that a run has or may have, and that some command writes, replaces, locks or appends to.
FILES = ["samples.txt", "loss.png", ".lock", "metrics.jsonl", "config.json", "vocabulary.json", "tokens.bin"]
FOLDERS = ["tensorboard", "checkpoints", "snapshots", "checkpoints/step-00000045"]


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(STORED / "format-2", tmp_path / "run")


@pytest.fixture
def secret(tmp_path):
    """A file of the user's own, outside of the run, and a folder with one."""
    (tmp_path / "own").mkdir()
    file = tmp_path / "own" / "file"
    file.write_text("precious")
    return file


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def resume(run):
    return ["train", "lm", "--resume", run, "--max-steps", "50"]


@pytest.mark.parametrize("name", [*FILES, "checkpoints/step-00000045/model.safetensors", ".metrics.jsonl.1.tmp"])
def test_a_symbolic_link_in_a_run_is_refused(name, run, secret, capsys):
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(secret)
    before = contents(secret.parent)
    for words in (resume(run), ["sample", run, "--length", "3"], ["info", run]):
        said = error_of(words, capsys)
        assert f"{run / name}: is a symbolic link" in said
    assert main(["runs", str(run.parent)]) == 0
    assert "is a symbolic link" in capsys.readouterr().out
    assert contents(secret.parent) == before


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_to_a_folder_in_a_run_is_refused(name, dangling, run, secret, capsys):
    shutil.rmtree(run / name, ignore_errors=True)
    target = secret.parent / "none" if dangling else secret.parent
    (run / name).symlink_to(target)
    before = contents(secret.parent)
    assert f"{run / name}: is a symbolic link" in error_of(resume(run), capsys)
    assert contents(secret.parent) == before
    assert not (secret.parent / "none").exists()


def test_a_dangling_link_makes_no_file(run, secret, capsys):
    (run / "samples.txt").unlink(missing_ok=True)
    (run / "samples.txt").symlink_to(secret.parent / "new")
    assert "is a symbolic link" in error_of(resume(run), capsys)
    assert not (secret.parent / "new").exists()


@pytest.mark.parametrize("name", [".lock", "samples.txt", "loss.png"])
def test_a_hard_link_in_a_run_is_read_but_not_written(name, run, secret, capsys):
    (run / name).unlink(missing_ok=True)
    (run / name).hardlink_to(secret)
    assert "has another name elsewhere" in error_of(resume(run), capsys)
    assert main(["info", str(run)]) == 0
    assert main(["runs", str(run.parent)]) == 0
    assert secret.read_text() == "precious"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["samples.txt", "config.json", ".lock", "tensorboard"])
def test_a_pipe_in_a_run_does_not_make_it_wait(name, run, capsys):
    (run / name).unlink(missing_ok=True) if (run / name).is_file() else shutil.rmtree(run / name, ignore_errors=True)
    os.mkfifo(run / name)
    for words in (resume(run), ["info", run]):
        assert f"{run / name}: is neither a file nor a folder" in error_of(words, capsys)


def test_a_run_of_an_older_format_is_not_brought_up_to_date_through_links(tmp_path, secret, capsys):
    run = shutil.copytree(STORED / "format-1", tmp_path / "old")
    index = run / "checkpoints" / "index.json"
    index.rename(secret.parent / "index.json")
    index.symlink_to(secret.parent / "index.json")
    before = contents(tmp_path)
    assert "is a symbolic link" in error_of(["info", run], capsys)
    assert contents(tmp_path) == before


def test_the_run_itself_may_be_a_link(run, tmp_path, capsys):
    (tmp_path / "best").symlink_to(run)
    assert main(list(map(str, resume(tmp_path / "best")))) == 0
    assert not list(run.rglob("*.tmp"))


def test_a_link_that_appears_later_is_not_written_through(run, secret):
    """What is replaced is written beside its target, under a name at which nothing may lie."""
    path = run / "metrics.jsonl"
    (run / f".metrics.jsonl.{os.getpid()}.tmp").symlink_to(secret)
    path.unlink()
    path.symlink_to(secret)
    write_atomically(path, "new")
    assert not path.is_symlink()
    assert path.read_text() == "new"
    assert secret.read_text() == "precious"
    with Run(run, "language", {}).locked():
        (run / "samples.txt").unlink(missing_ok=True)
        (run / "samples.txt").symlink_to(secret)
        again = Run(run, "language", {}).locked()
        with pytest.raises(RunError, match="is a symbolic link"):
            again.__enter__()


def test_preparations_of_somebody_else_are_not_taken_up_through_links(text_file, tmp_path, secret, capsys):
    folder = tmp_path / "runs" / "new-1"
    folder.mkdir(parents=True)
    (folder / ".preparing").touch()
    (folder / ".lock").symlink_to(secret)
    assert next_free(tmp_path / "runs", "new") == folder
    words = ["train", "lm", "--data", text_file, "--max-steps", "1", "--out", folder]
    assert "is a symbolic link" in error_of(words, capsys)
    assert secret.read_text() == "precious"


def test_a_sweep_writes_through_no_links(text_file, tmp_path, secret, capsys):
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / ".study").touch()
    for name in (".lock", "study.db"):
        (folder / name).symlink_to(secret)
        assert f"{folder / name}: is a symbolic link" in error_of(["sweep", folder, "--data", text_file], capsys)
        (folder / name).unlink()
    assert secret.read_text() == "precious"


def test_a_run_without_links_is_read_as_before(run):
    assert LanguageTask(open_run(run)).load("last") is not None
