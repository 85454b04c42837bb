"""What a step does to things that outlive it, and what it is given: as the loop does, or refused."""

import functools

import numpy as np
import pytest
import torch

from tests.unroll.plain_loop import H, Two, X, agree, said
from unrolled.errors import ConfigurationError, ShapeError
from unrolled.unroll import fallback, unroll


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    monkeypatch.setattr(fallback, "_said", set())


SHARED = {"n": 0, "around": 0, "list": [], "deep": {"n": 0}, "array": np.zeros(1), "cache": {}}
CONFIG = {"k": 1.0}


def _writes_a_global_dict(s, x, h):
    SHARED["n"] += 1
    return s.mixed(x, h)


def _writes_deep(s, x, h):
    SHARED["deep"]["n"] += 1
    return s.mixed(x, h)


def _appends(s, x, h):
    SHARED["list"].append(1)
    return s.mixed(x, h)


def _writes_an_array(s, x, h):
    SHARED["array"][0] += 1
    return s.mixed(x, h)


def _around():
    n = 0

    def counts(s, x, h):
        nonlocal n
        n += 1
        SHARED["around"] = n
        return s.mixed(x, h)

    return counts


COUNTED = {
    "a global dictionary": (_writes_a_global_dict, lambda: SHARED["n"]),
    "a dictionary in it": (_writes_deep, lambda: SHARED["deep"]["n"]),
    "a list in it": (_appends, lambda: len(SHARED["list"])),
    "an array in it": (_writes_an_array, lambda: int(SHARED["array"][0])),
    "a variable of the function around": (_around(), lambda: SHARED["around"]),
}


@pytest.mark.parametrize("name", COUNTED)
def test_what_outlives_a_step_is_written_once_a_step(name):
    function, count = COUNTED[name]
    cell, before = Two(function), count()
    for calls in (1, 2):
        unroll(cell, X, H)
        assert count() - before == calls * len(X)


def test_nothing_of_a_trace_stays_in_the_users_caches():
    def remembers(s, x, h):
        if "mask" not in SHARED["cache"]:
            SHARED["cache"]["mask"] = torch.triu(torch.ones(5, 5))
        return s.mixed(x, h @ SHARED["cache"]["mask"])

    agree(Two(remembers))
    assert type(SHARED["cache"]["mask"]) is torch.Tensor


@functools.lru_cache
def _scale():
    return CONFIG["k"]


def test_functions_that_remember_their_results():
    cell = Two(lambda s, x, h: s.mixed(x, h) * _scale())
    for k in (1.0, 5.0):
        CONFIG["k"] = k
        _scale.cache_clear()
        agree(cell)


def test_special_methods_that_are_replaced():
    class Number:
        def __mul__(self, other):
            return 0.5 * other

    cell = Two(lambda s, x, h: s.number * s.mixed(x, h))
    cell.number = Number()
    agree(cell)
    Number.__mul__ = lambda self, other: 2.0 * other
    agree(cell)


def test_states_of_another_batch_are_broadcast_or_refused_as_by_the_loop():
    cell = Two(Two.mixed)
    agree(cell)
    agree(cell, state=torch.randn(1, 5))
    for options in ({"state": torch.zeros(2, 5)}, {"state": torch.zeros(1, 5), "backend": "native"}):
        with pytest.raises(RuntimeError):
            unroll(cell, X, **options)
    with pytest.raises(ShapeError, match="must have 3 rows"):
        unroll(cell, X, torch.zeros(1, 5), lengths=[6, 2, 1])


def test_outputs_are_never_the_input_itself():
    x = X.clone()
    outputs, _ = unroll(Two(lambda s, x, h: (x, h)), x, torch.zeros(3, 4))
    outputs.zero_()
    torch.testing.assert_close(x, X)


@pytest.mark.parametrize("inputs", ["abc", [1.0], None])
def test_inputs_that_are_no_tensor(inputs):
    with pytest.raises(ShapeError, match="inputs must be a tensor"):
        unroll(Two(Two.mixed), inputs, H)


def test_an_output_that_is_no_tensor():
    with pytest.raises(ConfigurationError, match=r"output of Two must be a tensor \[B, size\], got a dict"):
        unroll(Two(lambda s, x, h: ({"y": h}, s.mixed(x, h))), X, H)


def test_a_long_list_is_not_looked_at_in_every_call():
    cell = Two(lambda s, x, h: s.mixed(x, h) * s.values[0])
    cell.values = [1.0] * 100_000
    assert "a list of 100,000 elements" in said(cell)
    cell.values[0] = 2.0
    agree(cell)
