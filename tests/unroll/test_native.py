"""Native code on machines that lack something: everything still works, and says so once; and its functions' accuracy."""

import ctypes
import os
import stat
import sys
import warnings

import numpy as np
import pytest
import torch

from tests.programs import PRELOADED, completed
from unrolled.cache import open_cache
from unrolled.cells import CELLS
from unrolled.errors import CompilerError, ConfigurationError, FallbackWarning
from unrolled.unroll import fallback, native, planned, unroll
from unrolled.unroll.compiled import KERNEL, TYPES, preamble, tools
from unrolled.unroll.known import Known


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """As in a new process with an empty cache."""
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(planned, "_planned", Known())
    monkeypatch.setattr(fallback, "_said", set())
    native.compiler.cache_clear()
    yield tmp_path / "cache"
    native.compiler.cache_clear()


def run(times=1):
    cell, x = CELLS["coupled"](3, 4), torch.randn(5, 2, 3)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(times):
            outputs, _ = unroll(cell, x)
    torch.testing.assert_close(outputs, unroll(cell, x, backend="eager")[0])
    return [str(warning.message) for warning in said if warning.category is FallbackWarning]


@pytest.mark.parametrize("command", ["nonsense", "/dev/null", "false", f"{sys.executable} -c pass"])
def test_without_a_compiler_it_works_and_says_so_once(command, fresh, monkeypatch):
    monkeypatch.setenv("CC", command)
    said = run(times=3)
    assert len(said) == 1
    assert "step by step, not in native code" in said[0]
    with pytest.raises(ConfigurationError, match="use backend='eager'"):
        unroll(CELLS["coupled"](3, 4), torch.randn(5, 2, 3), backend="native")


@pytest.mark.parametrize(("flags", "expected"), [("-O0", None), ("'", "UNROLLED_CFLAGS"), ("-fno-such-thing", "fails")])
def test_flags_for_the_compiler(flags, expected, fresh, monkeypatch):
    monkeypatch.setenv("UNROLLED_CFLAGS", flags)
    said = run(times=3)
    assert len(said) == (expected is not None)
    assert all(expected in line for line in said)
    monkeypatch.delenv("UNROLLED_CFLAGS")
    planned._planned.__init__()
    assert run() == []


def test_a_cache_that_cannot_be_written(fresh, monkeypatch):
    fresh.parent.joinpath("file").write_text("not a folder")
    monkeypatch.setenv("UNROLLED_CACHE", str(fresh.parent / "file" / "below"))
    said = run(times=2)
    assert len(said) == 1
    assert "cannot write to the cache" in said[0]


@pytest.mark.skipif(hasattr(os, "getuid") and os.getuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache(fresh):
    fresh.mkdir()
    fresh.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert len(run(times=2)) == 1


def test_the_cache_is_private_and_holds_nothing_but_libraries_and_plans(fresh):
    assert run() == []
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
    assert {path.suffix for path in fresh.glob("[!.]*")} == {".so", ".sha256", ".plan"}


def test_a_damaged_library_is_made_anew(fresh):
    assert run() == []
    for path in fresh.glob("*.so"):
        path.unlink()  # this process has the old one mapped
        path.write_bytes(b"\x7fELF" + os.urandom(100))
    with open_cache() as folder:
        names = [path.stem for path in fresh.glob("*.so")]
        assert not any(native._intact(folder, name) for name in names)
        planned._planned.clear()
        tools.cache_clear()
        assert run() == []
        assert all(native._intact(folder, name) for name in names)


FOUR = """
import os, sys, torch
from unrolled.cache import open_cache
from unrolled.cells import CELLS
from unrolled.unroll import operator, unroll  # whose imports take longest: once, before the processes part

def work():
    cell, x = CELLS["mut3"](3, 4), torch.randn(5, 2, 3)
    torch.testing.assert_close(unroll(cell, x, backend="native")[0], unroll(cell, x, backend="eager")[0])

children = []
for _ in range(4):
    children.append(os.fork())
    if not children[-1]:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_many_processes_compile_at_once(fresh):
    environment = {**os.environ, "UNROLLED_CACHE": str(fresh), "OMP_NUM_THREADS": "1"}
    done = completed([PRELOADED, "-c", FOUR], env=environment)
    assert done.returncode == 0, done.stderr
    assert {path.suffix for path in fresh.glob("[!.]*")} == {".so", ".sha256", ".plan"}


def test_a_source_that_does_not_compile_is_a_typed_error(fresh):
    with pytest.raises(CompilerError, match="error"):
        native.build("int main( {")


#: Units in the last place by which the functions may differ from the exact value, where that is a normal number.
BOUND = {("float", "exp"): 2, ("float", "sigmoid"): 3, ("float", "tanh"): 3}
BOUND |= {("double", "exp"): 2, ("double", "sigmoid"): 3, ("double", "tanh"): 5}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["exp", "sigmoid", "tanh"])
def test_functions_are_accurate_to_a_few_units_in_the_last_place(name, dtype):
    real = TYPES[dtype][0]
    loop = f"void apply(const REAL *x, REAL *y, long n) {{ for (long i = 0; i < n; i++) y[i] = f_{name}(x[i]); }}"
    library = native.build("\n".join([preamble(*TYPES[dtype]), KERNEL.read_text(), loop]))
    kind = np.float32 if real == "float" else np.float64
    random = np.random.default_rng(0)
    small = 10.0 ** random.uniform(-30, 1.9, 200_000)
    x = np.concatenate([random.uniform(-80, 80, 200_000), random.uniform(-5, 5, 200_000), small, -small]).astype(kind)
    x = np.concatenate([x, np.array([0.0, -0.0, np.inf, -np.inf], kind)])
    y = np.empty_like(x)
    library.apply(x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(len(x)))
    exact = x.astype(np.longdouble)
    with np.errstate(over="ignore"):
        exact = {"exp": np.exp, "sigmoid": lambda v: 1 / (1 + np.exp(-v)), "tanh": np.tanh}[name](exact)
        rounded = exact.astype(kind)
    normal = np.isfinite(rounded) & (np.abs(rounded) >= np.finfo(kind).tiny)
    error = np.abs(y[normal] - exact[normal]) / np.spacing(np.abs(rounded[normal]))
    assert error.max() <= BOUND[real, name]
    tiny = ~normal & np.isfinite(exact)
    assert (np.abs(y[tiny] - exact[tiny]) <= np.finfo(kind).tiny).all()
    nan = np.array([np.nan], kind)
    library.apply(nan.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(1))
    assert np.isnan(y[0])
