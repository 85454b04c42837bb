"""Cells made at random, run by whatever backend serves, against the eager loop over a twin."""

import random
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unroll.random_cells import SETTINGS, Case, H
from unrolled.errors import FallbackWarning
from unrolled.unroll import unroll

STEPS, BATCH = 4, 2


@st.composite
def cases(draw):
    states = draw(st.integers(1, 3))
    pool = ["a", "b", "x", "a * b", *(f"n{k}" for k in range(states))]
    new = [draw(st.sampled_from(pool)) for _ in range(states)]
    output = draw(st.none() | st.sampled_from([*pool, "a + n0", "2 * b"]))
    form = draw(st.sampled_from(["tuple", "list", "named", "dict"] + ["bare"] * (states == 1)))
    return Case(draw(st.sampled_from(list(SETTINGS))), states, new, output, form)


def run(cell, x, state, backend, lengths, reverse, wants, seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    x = x.clone().requires_grad_(wants)
    with torch.set_grad_enabled(wants):
        outputs, final = unroll(cell, x, state, lengths=lengths, reverse=reverse, backend=backend)
    parts = list(final.values()) if isinstance(final, dict) else list(final)
    found = [outputs, *parts]
    if wants:
        loss = sum((part * torch.linspace(-1, 1, part.numel(), dtype=part.dtype).view_as(part)).sum() for part in found)
        if loss.requires_grad:
            leaves = [x, *cell.parameters()]
            found += torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return [type(final), *found]


def attempt(*arguments):
    """What a run gives, or the class of the error that it raises, as some cells do in the eager loop too."""
    try:
        return run(*arguments)
    except RuntimeError as error:
        return [type(error)]


def check(case, values, calls):
    """One cell and its twin through the same calls, with a change of a setting before each but the first."""
    (cell, space), (twin, other) = case.build(), case.build()
    twin.load_state_dict(cell.state_dict())
    x = torch.randn(STEPS, BATCH, H, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for number, (value, (lengths, reverse, wants)) in enumerate(zip(values, calls, strict=True)):
        if number:
            case.change(cell, space, value)
            case.change(twin, other, value)
            cell.scale = twin.scale = 0.9 - value / 10
        made, expected = (
            attempt(module, x, case.first(BATCH), backend, lengths, reverse, wants, number)
            for module, backend in ((cell, "auto"), (twin, "eager"))
        )
        assert made[0] is expected[0]
        for got, want in zip(made[1:], expected[1:], strict=True):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)
        for name in ("k", "last"):  # what the step leaves behind
            left, wanted = (vars(module).get(name, vars(type(module)).get(name)) for module in (cell, twin))
            if isinstance(wanted, int | float | list):
                assert repr(left) == repr(wanted)
            elif isinstance(wanted, torch.Tensor):
                torch.testing.assert_close(left, wanted)


_calls = st.tuples(
    st.none() | st.lists(st.integers(0, STEPS), min_size=BATCH, max_size=BATCH), st.booleans(), st.booleans()
)
_given = given(
    case=cases(),
    values=st.lists(st.sampled_from([0.3, 0.7, 1.5]), min_size=2, max_size=2),
    calls=st.lists(_calls, min_size=2, max_size=2),
)


def _agrees(case, values, calls):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        check(case, values, calls)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_changes_between_calls(name):
    case = Case(name, 1, ["a"], None, "bare")
    _agrees(case, [0.3, 0.7, 1.5], [(None, False, False), (None, False, False), (None, False, True)])


test_cells_made_at_random = settings(max_examples=12)(_given(_agrees))


@pytest.fixture(scope="module")
def quick_compiler():
    """A compiler that does not optimise: the code is the same, and ready sooner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNROLLED_CFLAGS", "-O0")
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiler")
@settings(max_examples=500, suppress_health_check=list(HealthCheck))
@_given
@pytest.mark.parametrize("quarter", range(4))
def test_two_thousand_cells_made_at_random(quarter, case, values, calls):
    _agrees(case, values, calls)
