"""Checkpoints that are torn, foreign or malicious are named and never run; run directories are never overwritten."""

import json
import pickle

import pytest
import torch
from torch import nn

from unrolled.errors import ConfigurationError, RunError
from unrolled.tasks.language import LanguageConfig, TextConfig
from unrolled.training import Checkpoints, Run, TrainingConfig
from unrolled.training.checkpoint import _digest
from unrolled.training.config import from_json, parse_duration, to_json
from unrolled.training.optimisation import find_device
from unrolled.training.run import next_free


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "run", "test", {}) as made:
        pass
    return made


@pytest.fixture
def saved(run):
    model = nn.Linear(3, 2)
    Checkpoints(run).save(model, {"step": 5, "x": torch.ones(2)}, best=True)
    return run, model


def test_what_was_saved_is_loaded(saved):
    run, model = saved
    other = nn.Linear(3, 2)
    state = Checkpoints(run).load("best", other)
    assert torch.equal(other.weight, model.weight)
    assert state["step"] == 5
    assert torch.equal(state["x"], torch.ones(2))


def test_best_and_last_stay_and_others_go(saved):
    run, model = saved
    checkpoints = Checkpoints(run)
    for step in (6, 7):
        checkpoints.save(model, {"step": step}, best=False)
    folders = sorted(p.name for p in checkpoints.folder.iterdir() if p.is_dir())
    assert folders == ["step-00000005", "step-00000007"]
    assert checkpoints.load("best", model)["step"] == 5
    assert checkpoints.load("last", model)["step"] == 7


def test_saving_the_best_step_again_leaves_it_readable(saved):
    run, model = saved
    Checkpoints(run).save(model, {"step": 5, "other": "bytes"}, best=False)
    assert "other" not in Checkpoints(run).load("best", model)
    assert "other" in Checkpoints(run).load("last", model)


def test_tied_weights_are_saved_once_and_stay_tied(run):
    model = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
    model["b"].weight = model["a"].weight
    Checkpoints(run).save(model, {"step": 1}, best=True)
    before = model["a"].weight.detach().clone()
    nn.init.zeros_(model["a"].weight)
    Checkpoints(run).load("last", model)
    assert torch.equal(model["b"].weight, before)


@pytest.mark.parametrize("name", ["model.safetensors", "training.pt"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "missing"])
def test_damage_is_named(saved, name, damage):
    run, model = saved
    path = run.path / "checkpoints" / "step-00000005" / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        path.write_bytes(b"GIF89a not a checkpoint")
    else:
        middle = len(content) // 2
        path.write_bytes(
            content[:middle]
            if damage == "truncated"
            else content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        )
    before = model.weight.detach().clone()
    with pytest.raises(RunError, match=name):
        Checkpoints(run).load("last", model)
    assert torch.equal(model.weight, before)


class Malicious:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def test_a_malicious_pickle_is_not_executed(saved):
    run, model = saved
    path = run.path / "checkpoints" / "step-00000005" / "training.pt"
    path.write_bytes(pickle.dumps(Malicious()))
    index_path = run.path / "checkpoints" / "index.json"
    index = json.loads(index_path.read_text())
    index["last"]["digests"]["training.pt"] = _digest(path)
    index_path.write_text(json.dumps(index))
    with pytest.raises(RunError, match="cannot be read"):
        Checkpoints(run).load("last", model)


def test_weights_of_another_model(saved):
    with pytest.raises(RunError, match="does not fit this run's model"):
        Checkpoints(saved[0]).load("last", nn.Linear(4, 2))


@pytest.mark.parametrize("content", ["{", "[]", '{"last": 3}', '{"last": {"name": "x"}}'])
def test_a_damaged_index(saved, content):
    (saved[0].path / "checkpoints" / "index.json").write_text(content)
    with pytest.raises(RunError, match="index"):
        Checkpoints(saved[0]).load("last", saved[1])


def test_no_checkpoint_yet(run):
    with pytest.raises(RunError, match="no checkpoint yet"):
        Checkpoints(run).load("best", nn.Linear(1, 1))


def test_a_directory_with_anything_in_it_is_not_taken(run, tmp_path):
    with pytest.raises(RunError, match="holds another run"), Run.create(run.path, "test", {}):
        pass
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="not empty"), Run.create(other, "test", {}):
        pass
    with pytest.raises(RunError, match="not a directory"), Run.create(other / "thesis.tex", "test", {}):
        pass
    assert (other / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("existed", [True, False])
def test_failed_preparations_leave_nothing(tmp_path, existed):
    path = tmp_path / "run"
    if existed:
        path.mkdir()

    def prepare():
        with Run.create(path, "test", {}) as run:
            (run.path / "half.bin").write_text("half")
            (run.path / "folder").mkdir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        prepare()
    assert path.exists() == existed
    assert not existed or not list(path.iterdir())


@pytest.mark.parametrize("content", ["", "{}", '{"format": 99, "task": "x", "config": {}}', "[1]", '{"format": 1}'])
def test_a_damaged_or_newer_config(run, content):
    (run.path / "config.json").write_text(content)
    with pytest.raises(RunError):
        Run.open(run.path)


def test_folders_that_are_no_run(tmp_path):
    with pytest.raises(RunError, match="no such run directory"):
        Run.open(tmp_path / "none")
    with pytest.raises(RunError, match="not a run directory"):
        Run.open(tmp_path)


def test_settings_go_to_json_and_back():
    config = LanguageConfig(
        TextConfig(data=("a", "b"), level="bpe", vocab_size=300), training=TrainingConfig(max_time="5m", epochs=2)
    )
    assert from_json(LanguageConfig, json.loads(json.dumps(to_json(config))), "here") == config


@pytest.mark.parametrize(
    "stored",
    [
        {"text": 3},
        {"texts": {}},
        {"text": {"data": [1]}},
        {"model": {"hidden_size": "wide"}},
        {"training": {"batch_size": True}},
        {"training": {"optimizer": "magic"}},
        {"training": {"new_option_of_2031": 1}},
    ],
)
def test_settings_of_something_else_are_refused(stored):
    with pytest.raises(RunError, match="here"):
        from_json(LanguageConfig, stored, "here")


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400), (" 2 M ", 120)])
def test_lengths_of_time(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 days", "-5m", "0s", "1e3"])
def test_no_lengths_of_time(text):
    with pytest.raises(ConfigurationError, match="90s, 5m"):
        parse_duration(text)


@pytest.mark.parametrize("name", ["cuda:99", "abacus", "xpu"])
def test_devices_that_are_not_there(name):
    with pytest.raises(ConfigurationError, match="--device"):
        find_device(name)


def test_free_names(tmp_path):
    assert next_free(tmp_path, "a") == tmp_path / "a-1"
    (tmp_path / "a-1").mkdir()
    assert next_free(tmp_path, "a") == tmp_path / "a-2"
