"""Checkpoints that are torn, foreign or malicious are named and never run; run directories are never overwritten."""

import json
import math
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_model
from torch import nn

from tests.training.fuzz import fuzz
from unrolled.errors import ConfigurationError, RecoveryWarning, RunError
from unrolled.settings import from_json, parse_duration, to_json
from unrolled.tasks.language_settings import LanguageConfig, StreamTraining, TextConfig
from unrolled.training import Checkpoints, Run, open_run
from unrolled.training.checkpoint import Checkpoint, digest_of
from unrolled.training.optimisation import find_device
from unrolled.training.run import next_free
from unrolled.training.state import read_state, write_state, write_weights


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


def names(checkpoints):
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_the_best_and_the_last_few_stay_and_others_go(saved):
    run, model = saved
    checkpoints = Checkpoints(run, keep=2)
    for step in (6, 7, 8):
        checkpoints.save(model, {"step": step}, best=False)
    assert names(checkpoints) == ["step-00000005", "step-00000007", "step-00000008"]
    assert checkpoints.load("best", model)["step"] == 5
    assert checkpoints.load("last", model)["step"] == 8
    checkpoints.save(model, {"step": 9}, best=True)
    assert names(checkpoints) == ["step-00000008", "step-00000009"]


def test_a_state_of_every_kind_comes_back(tmp_path):
    pair = torch.arange(6.0).view(2, 3)
    state = {
        "numbers": [1, 1.5, True, None, math.inf, 1e-300, "tensor"],
        "nested": {0: {"exp_avg": pair[:, 1:]}, 1: (pair[0], ())},
        "same memory": [pair, pair.view(-1)],
        "odd": torch.tensor(True),
        "scalar": torch.tensor(3.25, dtype=torch.float64),
        "empty": {},
    }
    write_state(state, tmp_path / "s")
    back = read_state(tmp_path / "s")
    assert str(back) == str(state)
    assert type(back["nested"][1]) is tuple
    assert back["scalar"].dtype == torch.float64
    with pytest.raises(TypeError, match="set cannot be part"):
        write_state({"x": {1}}, tmp_path / "s")


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


def test_the_same_weights_are_the_same_bytes(tmp_path):
    """With several names for one tensor too: safetensors writes what it is told of each in an order drawn again."""
    torch.manual_seed(1)
    model = nn.ModuleDict({name: nn.Linear(3, 3) for name in "abcdef"})
    for name in "bcdef":
        model[name].weight = model["a"].weight
    write_weights(model, tmp_path / "first")
    written = (tmp_path / "first").read_bytes()
    for _ in range(20):
        write_weights(model, tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == written
    other = nn.ModuleDict({name: nn.Linear(3, 3) for name in "abcdef"})
    for name in "abcde":
        other[name].weight = other["f"].weight
    load_model(other, tmp_path / "first")
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    with safe_open(tmp_path / "first", "pt") as file:
        assert "a.weight" in file.keys()  # noqa: SIM118 - it has no __contains__
        assert json.loads(file.metadata()["shared"]) == {f"{name}.weight": "a.weight" for name in "bcdef"}


def damage(path, how):
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": content[:middle], "flipped": flipped, "foreign": b"GIF89a", "empty": b""}[how])


FILES = ["model.safetensors", "training.safetensors", "checkpoint.json"]
DAMAGE = ["truncated", "flipped", "foreign", "empty", "missing"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_named_and_the_checkpoint_before_is_used(saved, name, how):
    run, model = saved
    before = model.weight.detach().clone()
    nn.init.ones_(model.weight)
    checkpoints = Checkpoints(run)
    checkpoints.save(model, {"step": 6}, best=True)
    damage(checkpoints.folder / "step-00000006" / name, how)
    for which in ("last", "best"):
        with pytest.warns(RecoveryWarning, match=rf"step-00000006/{name}: .*; using the checkpoint of step 5"):
            assert checkpoints.load(which, model)["step"] == 5
        assert torch.equal(model.weight, before)
    with pytest.warns(RecoveryWarning, match="kept as damaged-step-00000006"):
        checkpoints.set_aside_damaged()
    assert names(checkpoints) == ["damaged-step-00000006", "step-00000005"]
    assert checkpoints.load("last", model)["step"] == 5
    damage(checkpoints.folder / "step-00000005" / name, how)
    for refuse in (checkpoints.set_aside_damaged, lambda: checkpoints.load("last", model)):
        with pytest.raises(RunError, match=rf"step-00000005/{name}: .*; no other checkpoint of this run is intact"):
            refuse()
    assert torch.equal(model.weight, before)
    assert names(checkpoints) == ["damaged-step-00000006", "step-00000005"]


def test_damage_of_an_older_checkpoint_is_nobodys_concern(saved, recwarn):
    run, model = saved
    checkpoints = Checkpoints(run)
    checkpoints.save(model, {"step": 6}, best=True)
    damage(checkpoints.folder / "step-00000005" / "checkpoint.json", "flipped")
    assert checkpoints.load("last", model)["step"] == 6
    checkpoints.set_aside_damaged()
    assert not recwarn


class Malicious:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize("name", FILES[:2])
@pytest.mark.parametrize("disguise", ["pickle", "torch"])
def test_a_malicious_pickle_is_not_executed(saved, name, disguise):
    """Even where its author has made the digests fit."""
    run, model = saved
    folder = run.path / "checkpoints" / "step-00000005"
    if disguise == "pickle":
        (folder / name).write_bytes(pickle.dumps(Malicious()))
    else:
        torch.save({"step": Malicious()}, folder / name)
    files = {file: digest_of(folder / file) for file in FILES[:2]}
    Checkpoint(folder, 5, True, files).write()
    with pytest.raises(RunError, match=r"cannot be read|does not fit"):
        Checkpoints(run).load("last", model)


def test_weights_belong_to_their_vocabulary(saved):
    run, model = saved
    (run.path / "vocabulary.json").write_text('{"level": "char", "characters": "abc"}')
    Checkpoints(run).save(model, {"step": 6}, best=True)
    (run.path / "vocabulary.json").write_text('{"level": "char", "characters": "abd"}')
    with pytest.raises(RunError, match=r"vocabulary\.json: not the vocabulary that the weights were trained with"):
        Checkpoints(run).load_weights("best", model)
    (run.path / "vocabulary.json").unlink()
    with pytest.raises(RunError, match=r"vocabulary\.json: missing"):
        Checkpoints(run).load("last", model)


def test_weights_of_another_model(saved):
    with pytest.raises(RunError, match="does not fit this run's model"):
        Checkpoints(saved[0]).load("last", nn.Linear(4, 2))


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
        open_run(run.path)


def test_folders_that_are_no_run(tmp_path):
    with pytest.raises(RunError, match="no such run directory"):
        open_run(tmp_path / "none")
    with pytest.raises(RunError, match="not a run directory"):
        open_run(tmp_path)


def test_settings_go_to_json_and_back():
    config = LanguageConfig(
        TextConfig(data=("a", "b"), level="bpe", vocab_size=300), training=StreamTraining(max_time="5m", epochs=2)
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
    with pytest.raises(ConfigurationError, match="`device="):
        find_device(name)


def test_free_names(tmp_path):
    assert next_free(tmp_path, "a") == tmp_path / "a-1"
    (tmp_path / "a-1").mkdir()
    assert next_free(tmp_path, "a") == tmp_path / "a-2"


def test_damage_of_every_kind_is_an_error_of_ours():
    """A moment of what `make fuzz` does for minutes."""
    made, refused = fuzz(range(15))
    assert made == 15
    assert 0 < refused < 15
