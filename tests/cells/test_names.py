"""Cells by name: those of the package, and those of the user's own, by file or module and class."""

import inspect
import sys

import pytest
import torch
from torch import nn

from unrolled import Recurrent
from unrolled.cells import CELLS, cell_label, find_cell, require_cell
from unrolled.errors import ConfigurationError
from unrolled.layers.wrap import make_cell

CELL = """
import torch
from unrolled import Cell, LSTMCell


class Leaky(Cell):
    keep = {keep}

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.add_parameters({{}}, w=(hidden_size, input_size), u=(hidden_size, hidden_size))

    def forward(self, x, state):
        (h,) = state
        return (self.keep * h + torch.tanh(x @ self.w.T + h @ self.u.T),)


class Joined(torch.nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.linear = torch.nn.Linear(input_size + hidden_size, hidden_size)

    def forward(self, x, h):
        return torch.tanh(self.linear(torch.cat([x, h], -1)))


class Greedy(Cell):
    def __init__(self, input_size, hidden_size, rate):
        super().__init__(input_size, hidden_size)


class Plain:
    pass


def leaky(input_size, hidden_size):
    return Leaky(input_size, hidden_size)
"""


@pytest.fixture
def cells(tmp_path, monkeypatch):
    """A file of cells, `cells.py`, in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "cells.py"
    path.write_text(CELL.format(keep=0.5))
    return path


@pytest.mark.parametrize(
    "name", [*CELLS, "cells.py:Leaky", "../some where/b.py:C", "a.b:C", "C:\\d\\e.py:F", "torch.nn:GRUCell"]
)
def test_what_may_be_a_name(name):
    require_cell(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lstmm", r"did you mean 'lstm'.*choose from elman, .*, mut3, or FILE.py:CLASS of your own"),
        ("cells.py", r"also name the class in that file, cells.py:CLASS"),
        ("cells.py:", "unknown cell"),
        ("a/cells.txt:Leaky", "unknown cell"),
        ("cells.py:a.b", "unknown cell"),
        ("a b:Leaky", "unknown cell"),
        (":Leaky", "unknown cell"),
        ("", "unknown cell"),
    ],
)
def test_what_may_not(name, said):
    with pytest.raises(ConfigurationError, match=said) as found:
        require_cell(name)
    assert found.value.setting == "cell"


def test_a_file_that_is_named_is_not_run(cells):
    cells.write_text("raise SystemExit('it was run')")
    require_cell("cells.py:Leaky")


def test_a_class_in_a_file_is_the_cell(cells):
    make = find_cell("cells.py:Leaky")
    cell = make(3, 4)
    assert (make.__name__, cell.keep, type(cell).__mro__[1].__name__) == ("Leaky", 0.5, "Cell")
    assert find_cell(f"{cells}:Leaky") is make  # the same source
    layer = Recurrent("cells.py:Leaky", 3, 4)
    assert layer(torch.ones(5, 2, 3))[0].shape == (5, 2, 4)


def test_a_file_that_has_changed_is_another_cell(cells):
    before = find_cell("cells.py:Leaky")
    cells.write_text(CELL.format(keep=0.25))
    after = find_cell("cells.py:Leaky")
    assert (before.keep, after.keep) == (0.5, 0.25)
    assert sys.modules[before.__module__] is not sys.modules[after.__module__]


def test_the_source_is_found_though_the_file_has_gone(cells):
    make = find_cell("cells.py:Leaky")
    cells.unlink()
    assert "self.keep * h" in inspect.getsource(make)


def test_a_class_of_a_package_is_the_cell(cells, monkeypatch):
    package = cells.parent / "lab_of_cells"
    package.mkdir()
    (package / "__init__.py").write_text("from .steps import Leaky\n")
    cells.rename(package / "steps.py")
    monkeypatch.syspath_prepend(str(cells.parent))
    assert find_cell("lab_of_cells:Leaky")(3, 4).keep == 0.5
    assert find_cell("lab_of_cells.steps:Leaky") is find_cell("lab_of_cells:Leaky")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.py:Leaky", "none.py: no such file"),
        (".py:Leaky", "no such file"),
        (
            "cells.py:Leeky",
            r"cells.py: there is no class 'Leeky' in it \(did you mean 'Leaky'\?\); it has Leaky, Joined, Greedy",
        ),
        (
            "cells.py:Greedy",
            r"cells.py:Greedy: its constructor must take \(input_size, hidden_size\) and need nothing else: .*'rate'",
        ),
        ("cells.py:Plain", "cells.py:Plain: is not the class of a cell"),
        ("cells.py:leaky", "cells.py:leaky: is not the class of a cell"),
        ("cells.py:torch", "cells.py:torch: is not the class of a cell"),
        ("nowhere_at_all.cells:Leaky", "nowhere_at_all.cells: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("torch.nn:Leaky", "torch.nn: there is no class 'Leaky'"),
        ("torch.nn:GLU", "torch.nn:GLU: its constructor must take"),
    ],
)
def test_what_is_no_cell_is_told_in_a_line(name, said, cells):
    with pytest.raises(ConfigurationError, match=said) as found:
        find_cell(name)
    assert len(str(found.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import torch\n\n1 / 0\n", "line 3: ZeroDivisionError: division by zero"),
        ("def f():\n    raise ValueError('a\\nb')\nf()\n", "line 2: ValueError: a$"),
        ("import nowhere_at_all\n", "line 1: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("x = 1\ny = = 2\n", "line 2: SyntaxError: invalid syntax"),
        ("raise SystemExit\n", "line 1: SystemExit$"),
        ("\0", "SyntaxError"),
    ],
)
def test_a_file_that_fails_names_the_error_and_the_line(text, said, cells):
    cells.write_text(text)
    for _ in range(2):  # nothing stays of the first attempt
        with pytest.raises(ConfigurationError, match=said):
            find_cell("cells.py:Leaky")


def test_a_module_that_fails_names_the_file_and_the_line(cells, monkeypatch):
    package = cells.parent / "lab_that_fails"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("x = 1\n1 / 0\n")
    (package / "cells.py").write_text("from . import inner\n")
    (package / "typo.py").write_text("x = = 1\n")
    monkeypatch.syspath_prepend(str(cells.parent))
    with pytest.raises(ConfigurationError, match=r"^lab_that_fails\.cells: .*inner\.py, line 2: ZeroDivisionError"):
        find_cell("lab_that_fails.cells:Leaky")
    with pytest.raises(ConfigurationError, match=r"^lab_that_fails\.typo: .*typo\.py, line 1: SyntaxError"):
        find_cell("lab_that_fails.typo:Leaky")


def test_a_file_beyond_all_bounds_is_refused(cells):
    cells.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ConfigurationError, match="a cell's source may have at most 1 MiB"):
        find_cell("cells.py:Leaky")


def test_a_label_is_a_part_of_a_file_name():
    assert [cell_label(name) for name in ("lstm", "a/b.py:LeakyCell", "a.b:C")] == ["lstm", "leakycell", "c"]


@pytest.mark.parametrize("name", ["lstm", "cells.py:Leaky", "cells.py:Joined", "torch.nn:LSTMCell"])
@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_a_fresh_cell_of_any_name(name, dtype, cells):
    cell = make_cell(name, 3, 4, dtype)
    assert isinstance(cell, nn.Module)
    assert (cell.input_size, cell.state_sizes[0]) == (3, 4)
    assert {parameter.dtype for parameter in cell.parameters()} == {dtype or torch.float32}
