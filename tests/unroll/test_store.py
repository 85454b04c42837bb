"""Plans are kept on disk for other processes, and only where they mean the same there."""

import gc
import os
import pickle
import shutil
import sys
import weakref

import pytest
import torch
from torch import nn

from tests.programs import PRELOADED, completed
from unrolled.cells import CELLS
from unrolled.unroll import plan, planned, store, unroll
from unrolled.unroll.fingerprint import fingerprint
from unrolled.unroll.known import Known
from unrolled.unroll.signature import describe_module, settings


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache, and a call that makes this process forget its plans."""
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))

    def forget():
        monkeypatch.setattr(planned, "_planned", Known())

    forget()
    return tmp_path / "cache", forget


def compare(cell, backend="native"):
    x, found = torch.randn(5, 2, 4, requires_grad=True), []
    for kind in (backend, "eager"):
        outputs, _ = unroll(cell, x, backend=kind)
        found.append([outputs, *torch.autograd.grad(outputs.square().sum(), [x, *cell.parameters()])])
    torch.testing.assert_close(*found)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A cell, and a cache that holds its plan and its libraries."""
    folder = tmp_path_factory.mktemp("compiled") / "cache"
    cell = CELLS["gru"](4, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNROLLED_CACHE", str(folder))
        patch.setattr(planned, "_planned", Known())
        compare(cell)
    return cell, folder


def refuse(*_):
    raise AssertionError("it is traced")


@pytest.mark.parametrize("name", ["lstm", "gru", "ln-lstm", "mut3"])
def test_a_kept_plan_is_not_traced_again(name, fresh, monkeypatch):
    cell = CELLS[name](4, 5)
    compare(cell)
    fresh[1]()
    monkeypatch.setattr(plan, "Plan", refuse)
    compare(cell)
    x = torch.randn(3, 2, 4, requires_grad=True)
    (first,) = torch.autograd.grad(unroll(cell, x)[0].sum(), x, create_graph=True)
    assert torch.autograd.grad(first.sum(), x)[0].shape == x.shape


def test_what_a_kept_plan_lacks_is_added_to_it(fresh, monkeypatch):
    cell, x = CELLS["gru"](4, 5), torch.randn(5, 2, 4)
    with torch.no_grad():
        expected = unroll(cell, x, backend="native")[0]
    fresh[1]()
    compare(cell)
    fresh[1]()
    monkeypatch.setattr(plan, "Plan", refuse)
    compare(cell)
    with torch.no_grad():
        torch.testing.assert_close(unroll(cell, x, backend="native")[0], expected)


def test_it_needs_little_of_pytorch(fresh):
    program = (
        "import sys, torch; from unrolled import LSTM; layer = LSTM(4, 5); x = torch.randn(3, 2, 4, requires_grad=True); "
        "layer(x)[0].sum().backward(); print('torch._dynamo' in sys.modules)"
    )
    environment = {**os.environ, "UNROLLED_CACHE": str(fresh[0])}
    said = [completed([python, "-c", program], env=environment) for python in (PRELOADED, sys.executable)]
    assert [result.stdout.strip() for result in said] == ["True", "False"]


class Evil:
    def __reduce__(self):
        return os.system, ("echo > executed",)


@pytest.mark.parametrize("content", [b"", b"nonsense", pickle.dumps(Evil()), pickle.dumps({"a": 1}), b"[[],[]]", b"{}"])
@pytest.mark.parametrize("signed", [False, True])
def test_a_damaged_or_foreign_file_is_made_anew(content, signed, fresh, compiled, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cell, folder = compiled
    shutil.copytree(folder, fresh[0])
    (path,) = fresh[0].glob("*.plan")
    good = path.read_bytes()
    digest = store.stated_digest(path.stem, content) + b"\n" if signed else good[:65]
    path.write_bytes(digest + content)
    fresh[1]()
    compare(cell)
    assert not (tmp_path / "executed").exists()
    assert path.read_bytes() == good


def test_a_plan_that_does_not_fit_the_cell_is_not_used(fresh, monkeypatch):
    monkeypatch.setattr(planned, "fingerprint", lambda *_: "same")
    for name in ("gru", "gru-swapped", "elman"):
        compare(CELLS[name](4, 5))
        fresh[1]()


def test_a_folder_that_is_not_ones_own_is_not_read(fresh, monkeypatch):
    compare(CELLS["gru"](4, 5))
    fresh[0].chmod(0o777)
    fresh[1]()
    with pytest.warns(match="anybody"):
        unroll(CELLS["gru"](4, 5), torch.randn(2, 1, 4))


def test_cells_are_not_kept_alive(fresh):
    cell = CELLS["gru"](4, 5)
    compare(cell)
    fresh[1]()
    compare(cell)
    gone = weakref.ref(cell.weight_hh)
    del cell
    gc.collect()
    assert gone() is None


SOURCE = """
import torch
SCALE = {scale}
def helper(h):
    return torch.tanh(h) * SCALE
def make(bound):
    def function(h):
        return helper(h) {sign} bound
    return function
class Mine(torch.nn.Module):
    kind = {kind!r}
    def __init__(self, width, bound=1):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(width, width))
        self.function = make(bound)
    def forward(self, x, h):
        return self.inner(x, h)
    def inner(self, x, h):
        return self.function(x + h @ self.w)
"""


def print_of(width=3, bound=1, extra=None, **words):
    space = {"__name__": "somebodys"}
    exec(SOURCE.format(**{"scale": 1.0, "sign": "+", "kind": "a", **words}), space)
    cell = space["Mine"](width, bound)
    if extra is not None:
        cell.extra = extra
    described = describe_module(cell)
    return fingerprint(described.structure, settings(described))


def test_fingerprints_tell_cells_apart():
    prints = [
        print_of(),
        print_of(width=4),
        print_of(bound=2),
        print_of(scale=2.0),
        print_of(sign="-"),
        print_of(kind="b"),
        print_of(extra=[1, 2]),
        print_of(extra=[1, 3]),
        print_of(extra={"a": torch.float32}),
        print_of(extra=torch.relu),
        print_of(extra=nn.functional.gelu),
    ]
    assert None not in prints
    assert len(set(prints)) == len(prints)
    assert print_of() == prints[0]
    assert print_of(extra=object()) is None
    assert print_of(extra=torch.ones(2)) is None


def test_fingerprints_are_the_same_in_every_process():
    program = (
        "import sys; from unrolled.unroll.fingerprint import fingerprint; "
        "from unrolled.unroll.signature import describe_module, settings; from unrolled.cells import CELLS; "
        "cells = [describe_module(make(6, 6)) for _, make in sorted(CELLS.items())]; "
        "print(hash('a'), *(fingerprint(cell.structure, settings(cell)) for cell in cells))"
    )
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environments = {PRELOADED: None, sys.executable: {**os.environ, "PYTHONHASHSEED": seed}}
    runs = [completed([python, "-c", program], env=env).stdout.split() for python, env in environments.items()]
    assert runs[0][0] != runs[1][0]
    assert runs[0][1:] == runs[1][1:]
    assert len(set(runs[0][1:])) == len(CELLS)
