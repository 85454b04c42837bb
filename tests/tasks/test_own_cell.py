"""A run with a cell of the user's own: its source is kept there, and is run for those alone who trust it."""

import json
import os
import shutil
import sys
from hashlib import sha256

import pytest
import torch

from tests.cli.shared import error_of
from tests.cli.test_startup import imported_by
from unrolled.cells.own import Source
from unrolled.cli import main
from unrolled.errors import RecoveryWarning, RunError
from unrolled.tasks import open_info, open_task, trust
from unrolled.tasks.language import LanguageTask
from unrolled.tasks.language_settings import LanguageConfig, LanguageInfo, ModelConfig
from unrolled.tasks.own_cells import CELLS_FILE, names_in
from unrolled.training import open_run

SMALL = [
    *("--hidden-size", "8", "--num-layers", "1", "--embedding-size", "4", "--batch-size", "2", "--seq-length", "8"),
    *("--eval-every", "2", "--sample-every", "2", "--val-tokens", "200", "--max-steps", "2", "--device", "cpu"),
]

#: The keyword says which of several classes of one name it is, the mark when the file is run.
CELL = """
from pathlib import Path

import torch
from unrolled import Cell

with Path({mark!r}).open("a") as file:
    file.write({keep!r} + "\\n")


class Leaky(Cell):
    keep = {keep}

    def __init__(self, input_size, hidden_size, **options):
        super().__init__(input_size, hidden_size)
        self.add_parameters(options, w=(hidden_size, input_size), u=(hidden_size, hidden_size))

    def forward(self, x, state):
        (h,) = state
        return (self.keep * h + 0.1 * torch.tanh(x @ self.w.T + h @ self.u.T),)


class Joined(torch.nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.linear = torch.nn.Linear(input_size + hidden_size, hidden_size)

    def forward(self, x, h):
        return torch.tanh(self.linear(torch.cat([x, h], -1)))
"""


class Place:
    """A working directory with a text and a file of cells; `train(*words)` leaves a run called `run`."""

    def __init__(self, path):
        self.path, self.file, self.run, self.mark = path, path / "cells.py", path / "run", path / "executed"
        (path / "text.txt").write_text("Zoë said: grüß dich, naïve 世界!\n" * 40, encoding="utf-8")
        self.write("0.9")

    def write(self, keep):
        self.file.write_text(CELL.format(keep=keep, mark=str(self.mark)))

    def train(self, *words, cell="cells.py:Leaky"):
        out = [] if "--out" in words else ["--out", "run"]
        assert main(["train", "lm", "--data", "text.txt", *SMALL, "--cell", cell, *out, *words]) == 0

    def executed(self):
        """How often a file of cells was run since this was asked."""
        count = len(self.mark.read_text().split()) if self.mark.exists() else 0
        self.mark.unlink(missing_ok=True)
        return count


@pytest.fixture
def forget(monkeypatch):
    """Makes this process one that has run no source yet, and, given a folder, one of another user's."""

    def other(state=None):
        monkeypatch.setattr("unrolled.cells.own._made", {})
        monkeypatch.setattr(trust, "_allowed", set())
        if state is not None:
            monkeypatch.setenv("UNROLLED_STATE", str(state))

    return other


@pytest.fixture
def place(tmp_path, monkeypatch, forget):
    monkeypatch.chdir(tmp_path)
    forget(tmp_path / "state")
    return Place(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The place of a run that was trained once for many tests, which copy it."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("trained")
        patch.chdir(path)
        patch.setenv("UNROLLED_STATE", str(path / "state"))
        place = Place(path)
        place.train()
    return place


@pytest.fixture
def foreign(trained, place, forget):
    """A run from elsewhere in `place.run`: this user has never run its cell."""
    shutil.copytree(trained.run, place.run)
    trained.executed()
    place.mark = trained.mark  # that is where the source says it
    forget()
    return place


def outputs(task):
    """What a model says of a few tokens."""
    with torch.no_grad():
        return task.model(torch.arange(6)[:, None])[0]


def test_training_keeps_the_source_with_its_digest(place):
    place.train()
    source = place.file.read_bytes()
    assert (place.run / "cell.py").read_bytes() == source
    digest = sha256(source).hexdigest()
    assert json.loads((place.run / CELLS_FILE).read_text()) == {
        "cells.py:Leaky": {"file": "cell.py", "class": "Leaky", "sha256": digest}
    }
    (remembered,) = (place.path / "state").rglob(digest)
    assert "cells.py" in remembered.read_text()
    assert place.executed() == 1


def test_what_is_kept_is_what_is_opened(place, forget, capsys):
    place.train()
    before = outputs(open_task(place.run, which="last"))
    place.write("0.1")
    forget()
    changed = open_task(place.run, which="last")
    assert type(changed.model.recurrent.cells[0][0]).keep == 0.9
    assert torch.equal(outputs(changed), before)
    place.file.unlink()
    forget()
    assert torch.equal(outputs(open_task(place.run, which="last")), before)
    moved = place.run.rename(place.path / "moved")
    forget()
    for words in (["sample", moved, "--length", "5", "--seed", "1"], ["eval", moved, "--json"], ["info", moved]):
        assert main([str(word) for word in words]) == 0
    assert main(["train", "lm", "--resume", str(moved), "--max-steps", "3"]) == 0
    assert open_run(moved).metrics()[-1]["step"] == 3
    assert "cells.py:Leaky, layers of 8 units" in capsys.readouterr().out
    assert outputs(open_task(moved, which="last")).shape == before.shape


def test_a_resumed_run_may_be_told_its_cell_again_and_no_other(place, capsys):
    place.train()
    again = ["train", "lm", "--resume", "run", "--max-steps", "3"]
    assert main([*again, "--cell", "cells.py:Leaky"]) == 0
    assert "--cell cannot change" in error_of([*again, "--cell", "cells.py:Joined"], capsys)


def test_the_run_is_named_after_the_class():
    settings = LanguageConfig(model=ModelConfig(cell="some/where/cells.py:LeakyCell"))
    assert LanguageInfo.run_name(settings) == "stdlib-leakycell"


def test_inspecting(foreign, capsys):
    words = ["inspect", "sensitivity", "run", "--length", "6", "--out", "figure"]
    assert "add --trust to run it" in error_of(words, capsys)
    assert main([*words, "--trust"]) == 0
    assert main(["inspect", "gradients", "run", "--length", "4", "--out", "flow"]) == 0  # it is trusted now
    assert (
        main(["inspect", "gradients", "--cells", "elman", "cells.py:Joined", "--length", "4", "--hidden-size", "4"])
        == 0
    )
    assert "cells.py:Joined" in capsys.readouterr().out
    assert main(["explain", "--cell", "cells.py:Leaky", "--hidden-size", "4"]) == 0
    assert "Leaky: input 4, states 4" in capsys.readouterr().out


def test_a_run_from_elsewhere_is_not_run_unasked(foreign, capsys):
    for command in (
        ["sample", "run"],
        ["eval", "run"],
        ["train", "lm", "--resume", "run"],
        ["inspect", "cells", "run"],
    ):
        said = error_of(command, capsys)
        assert str(foreign.run / "cell.py") in said
        assert said.endswith("read " + str(foreign.run / "cell.py") + ", and add --trust to run it")
    with pytest.raises(RunError, match="add `trust` to run it") as found:
        open_task(foreign.run)
    assert found.value.setting == "trust"
    with pytest.raises(RunError, match="add `trust`"):
        LanguageTask(open_run(foreign.run))
    assert foreign.executed() == 0


def test_trust_is_given_once_for_a_source(foreign, forget, trained, capsys):
    assert main(["sample", "run", "--length", "3", "--seed", "1", "--trust"]) == 0
    forget()
    assert main(["sample", "run", "--length", "3", "--seed", "1"]) == 0
    forget(foreign.path / "nobody")
    assert "add --trust" in error_of(["sample", "run"], capsys)
    assert open_task(foreign.run, which="last", trust=True).model is not None
    forget()
    assert main(["train", "lm", "--resume", "run", "--max-steps", "3"]) == 0


def test_another_source_under_a_trusted_name_is_not_trusted(foreign, forget, capsys):
    assert main(["sample", "run", "--length", "3", "--trust"]) == 0
    assert foreign.executed() == 1
    source = (foreign.run / "cell.py").read_bytes() + b"print('other')\n"
    (foreign.run / "cell.py").write_bytes(source)
    for words in (["sample", "run"], ["sample", "run", "--trust"]):
        assert "cell.py: has changed since the run was created" in error_of(words, capsys)
    stored = json.loads((foreign.run / CELLS_FILE).read_text())
    stored["cells.py:Leaky"]["sha256"] = sha256(source).hexdigest()
    (foreign.run / CELLS_FILE).write_text(json.dumps(stored))
    assert "add --trust" in error_of(["sample", "run"], capsys)
    assert foreign.executed() == 0


def test_info_and_runs_run_nothing_and_need_no_pytorch(foreign):
    lines = [["info", str(foreign.run)], ["runs", str(foreign.path)]]
    assert imported_by(lines) == {" ".join(words): [] for words in lines}
    (foreign.run / "facts.json").unlink()
    with pytest.raises(RunError, match=r"facts\.json is missing"):
        open_info(foreign.run).facts()
    assert foreign.executed() == 0


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (None, "cells.json is missing"),
        ("", "cells.json: damaged"),
        ("[" * 100_000, "cells.json: damaged"),
        ("[]", "does not say where"),
        ('{"cells.py:Leaky": {"file": "../cells.py", "class": "Leaky", "sha256": ""}}', "does not say where"),
        ('{"cells.py:Leaky": {"file": "cell.py", "class": 3, "sha256": ""}}', "does not say where"),
        ('{"cells.py:Leaky": {"file": "cell-2.py", "class": "Leaky", "sha256": ""}}', "cell-2.py: no such file"),
    ],
)
def test_a_damaged_list_is_told(damage, said, foreign, capsys):
    (foreign.run / CELLS_FILE).unlink()
    if damage is not None:
        (foreign.run / CELLS_FILE).write_text(damage)
    assert said in error_of(["sample", "run", "--trust"], capsys)
    assert foreign.executed() == 0


def test_a_cell_that_the_settings_were_changed_to_is_not_read_from_where_they_say(foreign, capsys):
    stored = json.loads((foreign.run / "config.json").read_text())
    stored["config"]["model"]["cell"] = "cells.py:Joined"
    (foreign.run / "config.json").write_text(json.dumps(stored))
    assert "does not say where the cell 'cells.py:Joined' is kept" in error_of(["sample", "run", "--trust"], capsys)
    assert foreign.executed() == 0


def test_two_classes_of_one_name(place, forget):
    place.train()
    place.write("0.5")
    place.train("--out", "other")
    one, other = open_task("run", which="last"), open_task("other", which="last")
    kinds = [type(task.model.recurrent.cells[0][0]) for task in (one, other)]
    assert [(kind.__name__, kind.keep) for kind in kinds] == [("Leaky", 0.9), ("Leaky", 0.5)]
    other.model.load_state_dict(one.model.state_dict())
    assert not torch.allclose(outputs(one), outputs(other))


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("none.py:Leaky", "none.py: no such file"),
        ("cells.py:Leeky", "did you mean 'Leaky'?"),
        ("cells.py", "also name the class in that file, cells.py:CLASS"),
        ("broken.py:Leaky", "broken.py, line 2: NameError"),
        ("broken.py:Raising", "broken.py, line 2: NameError"),
        ("raising.py:Raising", "raising.py, line 5: KeyError: 'no such key'"),
    ],
)
def test_a_cell_that_is_none_leaves_no_run(cell, said, place, capsys):
    (place.path / "broken.py").write_text("import torch\nclass Leaky(Module):\n    pass\n")
    (place.path / "raising.py").write_text(
        "import torch\nclass Raising(torch.nn.Module):\n    def __init__(self, input_size, hidden_size):\n"
        "        super().__init__()\n        raise KeyError('no such key')\n"
    )
    words = ["train", "lm", "--data", "text.txt", *SMALL, "--cell", cell, "--out", "run"]
    assert said in error_of(words, capsys)
    assert not place.run.exists()


@pytest.mark.parametrize("step", ["h + torch.ones(3, 3)", "self.missing", "{}[h.dim()]"])
def test_a_step_that_fails_is_told_with_its_line(step, place, capsys):
    lines = place.file.read_text().replace("self.keep * h +", f"{step} +").splitlines()
    place.file.write_text("\n".join(lines))
    number = next(number for number, line in enumerate(lines, 1) if step in line)
    words = ["train", "lm", "--data", "text.txt", *SMALL, "--cell", "cells.py:Leaky", "--out", "run"]
    assert main(words) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert f"cells.py, line {number}: " in said[-1]
    assert not [line for line in said if not line.startswith("unrolled: ")]
    said = error_of(["explain", "--cell", "cells.py:Leaky", "--hidden-size", "4"], capsys)
    assert f"cells.py:{number}" in said or f"cells.py, line {number}: " in said


def test_a_translator_of_two_cells_keeps_each_source_once(place, forget, capsys):
    other = place.path / "other.py"
    other.write_text(place.file.read_text())
    for name, line in (("a.txt", "one two\n"), ("b.txt", "three four\n")):
        (place.path / name).write_text(line * 20)
    sizes = ["--hidden-size", "8", "--embedding-size", "4", "--max-steps", "1", "--eval-every", "1", "--level", "char"]
    words = ["--cell", "cells.py:Joined", "--decoder-cell", "other.py:Leaky", "--device", "cpu", "--out", "run"]
    assert main(["train", "translate", "--source", "a.txt", "--target", "b.txt", *sizes, *words]) == 0
    listed = json.loads((place.run / CELLS_FILE).read_text())
    assert {name: entry["file"] for name, entry in listed.items()} == dict.fromkeys(listed, "cell.py")
    assert list(listed) == ["cells.py:Joined", "other.py:Leaky"]
    (place.path / "lines").write_text("one two\n")
    forget(place.path / "nobody")
    translate = ["translate", "run", "--source", "lines", "--beam", "2", "--checkpoint", "last"]
    assert "add --trust" in error_of(translate, capsys)
    assert main([*translate, "--trust"]) == 0


def test_a_package_s_cell_is_kept_with_the_package_that_it_imports_from(place, forget, monkeypatch):
    package = place.path / "lab_in_a_run"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "rate.py").write_text("RATE = 0.25\n")
    (package / "cells.py").write_text(place.file.read_text().replace("0.1 *", "RATE *") + "\nfrom .rate import RATE\n")
    monkeypatch.syspath_prepend(str(place.path))
    place.train(cell="lab_in_a_run.cells:Leaky")
    listed = json.loads((place.run / CELLS_FILE).read_text())["lab_in_a_run.cells:Leaky"]
    assert listed["package"] == "lab_in_a_run"
    (package / "cells.py").unlink()
    sys.modules.pop("lab_in_a_run.cells")
    forget()
    cell = open_task("run", which="last").model.recurrent.cells[0][0]
    assert cell(torch.ones(1, 4), (torch.ones(1, 8),))[0].shape == (1, 8)
    shutil.rmtree(package)
    for name in [name for name in sys.modules if name.startswith("lab_in_a_run")]:
        monkeypatch.delitem(sys.modules, name)
    forget()
    with pytest.raises(RunError, match=r"its cell does not work here: .*cell\.py, line \d+: ModuleNotFoundError"):
        open_task("run")


def test_the_same_source_in_another_package_is_not_the_one_that_was_trusted():
    one, other, alone = (Source(b"x", "X", "x.py", package) for package in ("a", "b", ""))
    assert len({one.key, other.key, alone.key}) == 3
    assert alone.key == alone.sha256


def test_names_in_settings():
    config = {"model": {"cell": "a.py:A", "decoder_cell": "b.c:B", "hidden_size": [3]}, "cells": "c.py:C", "cell": None}
    assert names_in(config | {"text": {"cell": "lstm", "data": "d.py:D"}, "x_cell": "a.py:A"}) == ["a.py:A", "b.c:B"]
    assert names_in(["cell"]) == []


def test_a_sweep(place, capsys):
    words = ["sweep", "study", "--data", "text.txt", *SMALL, "--cells", "elman", "cells.py:Leaky"]
    assert main([*words, "--trials", "2"]) == 0
    names = sorted(path.name.partition("-")[0] for path in (place.path / "study").iterdir() if path.is_dir())
    assert names == ["elman", "leaky"]
    assert "cells.py:Leaky" in capsys.readouterr().out
    place.write("0.8")
    assert "a study with other settings (sources)" in error_of([*words, "--trials", "4"], capsys)
    place.file.unlink()
    assert "cells.py: no such file" in error_of([*words, "--trials", "4"], capsys)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners and modes are those of POSIX")
def test_a_folder_that_others_can_write_says_nothing_of_trust(foreign, forget, capsys):
    state = foreign.path / "open"
    state.mkdir()
    forget(state)
    state.chmod(0o777)
    with pytest.warns(RecoveryWarning, match="cannot be stored .*which can be written by anybody"):
        open_task(foreign.run, trust=True)
    forget()
    assert "add --trust" in error_of(["sample", "run"], capsys)
    state.chmod(0o700)
    assert main(["sample", "run", "--length", "2", "--trust"]) == 0
    (kept,) = (path for path in state.rglob("*") if path.is_file())
    forget()
    kept.chmod(0o666)
    assert "add --trust" in error_of(["sample", "run"], capsys)
    kept.chmod(0o600)
    assert main(["sample", "run", "--length", "2"]) == 0


def test_trust_goes_with_a_run_that_there_is(place, capsys):
    words = ["train", "lm", "--data", "text.txt", *SMALL, "--trust"]
    assert "--trust" in error_of(words, capsys)


def test_a_run_that_starts_from_it_keeps_the_same_source(foreign, forget, capsys):
    words = ["train", "lm", "--data", "text.txt", "--init-from", "run", "--init-checkpoint", "last", "--out", "next"]
    words += ["--max-steps", "1", "--batch-size", "2", "--seq-length", "8", "--device", "cpu"]
    foreign.file.unlink()
    assert "--trust" in error_of(words, capsys)
    assert foreign.executed() == 0
    assert not (foreign.path / "next").exists()
    assert main([*words, "--trust"]) == 0
    assert (foreign.path / "next" / "cell.py").read_bytes() == (foreign.run / "cell.py").read_bytes()
    forget()
    assert outputs(open_task(foreign.path / "next", which="last")).shape == outputs(open_task(foreign.run)).shape


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            "a = h @ self.u.T; h.add_(1.0); return (a,)",
            "cells.py: a step changes a tensor in place that backward needs",
        ),
        ("raise SystemExit(0)", "cells.py, line 20: SystemExit: 0"),
        ("return (torch.cat([h, h], -1),)", "Leaky.forward must not change the size of its states"),
    ],
)
def test_a_step_that_cannot_be_trained(step, said, place, capsys):
    source = place.file.read_text()
    place.file.write_text(source.replace("(h,) = state\n", f"(h,) = state\n        {step}\n"))
    words = ["train", "lm", "--data", "text.txt", *SMALL, "--cell", "cells.py:Leaky", "--out", "run"]
    assert main(words) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
