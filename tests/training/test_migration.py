"""Runs that older versions wrote are read, scored and gone on with. `runs/format-N` was written by the version of then."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from unrolled.cli import main
from unrolled.errors import RecoveryWarning, RunError
from unrolled.tasks.language import LanguageTask
from unrolled.training import Checkpoints, Run, Trainer, open_run
from unrolled.training.run import FORMAT

STORED = sorted((Path(__file__).parent / "runs").iterdir())


@pytest.fixture
def old(tmp_path):
    return Path(shutil.copytree(STORED[0], tmp_path / "run"))


def content(path):
    return {
        file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != ".lock"
    }


def test_there_is_a_run_of_every_format():
    assert [path.name for path in STORED] == [f"format-{number}" for number in range(1, FORMAT + 1)]


@pytest.mark.parametrize("stored", STORED, ids=lambda path: path.name)
def test_a_stored_run_is_what_it_was(stored, tmp_path, capsys):
    path = tmp_path / "run"
    shutil.copytree(stored, path)
    scores = {}
    for which in ("last", "best"):
        assert main(["eval", str(path), "--json", "--checkpoint", which]) == 0
        scores[which] = json.loads(capsys.readouterr().out)["nats"]
    assert scores == pytest.approx({"last": 2.444079, "best": 1.540684}, rel=1e-4)  # as the version of then said
    assert json.loads((path / "config.json").read_text())["format"] == FORMAT
    assert main(["info", str(path)]) == 0
    assert "last at step 45, best at step 40" in capsys.readouterr().out
    assert main(["sample", str(path), "--length", "5"]) == 0
    capsys.readouterr()
    assert main(["train", "lm", "--resume", str(path), "--max-steps", "60"]) == 0
    said = capsys.readouterr().out
    assert "resumed at step 45" in said
    assert "finished after 60 steps" in said


def test_nothing_of_a_checkpoint_is_lost(old):
    state = torch.load(old / "checkpoints/step-00000045/training.pt", weights_only=True)
    task = LanguageTask(open_run(old))
    trainer = Trainer(task, task.config.training, task.run, resume=True)
    assert torch.equal(torch.get_rng_state(), state["random"])
    assert vars(trainer.position) == state["position"]
    for now, then in zip(trainer.carried, state["carried"], strict=True):
        assert torch.equal(now, then)
    moments = trainer.optimizer.state_dict()["state"]
    assert moments.keys() == state["optimizer"]["state"].keys()
    assert all(
        torch.equal(moments[k][name], v) for k, m in state["optimizer"]["state"].items() for name, v in m.items()
    )
    assert not list(old.rglob("training.pt"))
    assert not (old / "checkpoints" / "index.json").exists()


def test_a_migration_that_was_interrupted_is_done_again(old, monkeypatch):
    def full(*_):
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_config", full)
        with pytest.raises(RunError, match=r"cannot be migrated \(no space\)"):
            open_run(old)
    assert json.loads((old / "config.json").read_text())["format"] == 1
    Checkpoints(open_run(old)).set_aside_damaged()


def test_what_is_damaged_is_left_out_and_told(old):
    path = old / "checkpoints/step-00000045/training.pt"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(RecoveryWarning, match=r"step-00000045/training\.pt: damaged, .*; it is left out"):
        run = open_run(old)
    assert path.exists()
    with pytest.warns(RecoveryWarning, match="using the checkpoint of step 40"):
        LanguageTask(run).load("last")


@pytest.mark.parametrize("damage", ["all", "index"])
def test_a_run_that_cannot_be_migrated_stays_as_it_is(old, damage):
    for file in old.glob("checkpoints/*/training.pt" if damage == "all" else "checkpoints/index.json"):
        file.write_bytes(b"GIF89a")
    before = content(old)
    with pytest.raises(RunError, match="cannot be migrated"):
        open_run(old)
    assert content(old) == before


@pytest.mark.parametrize("version", [0, FORMAT + 1, "2", None, 1.5])
def test_formats_that_this_version_does_not_know(old, version):
    stored = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps({**stored, "format": version}))
    before = content(old)
    with pytest.raises(RunError, match=f"run format {version}"):
        open_run(old)
    assert content(old) == before
