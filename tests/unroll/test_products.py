"""The native matrix products and sums, against NumPy's, for all shapes and numbers of threads."""

import ctypes

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.unroll.compiled import KERNEL, PRODUCT, TYPES, preamble
from unrolled.unroll.native import build

sizes = st.integers(1, 40) | st.sampled_from([63, 64, 65, 96, 97, 130])
dtypes = st.sampled_from([torch.float32, torch.float64])
number = ctypes.c_long


def library(dtype):
    source = "\n".join([preamble(*TYPES[dtype]), KERNEL.read_text(), PRODUCT.read_text()])
    try:
        return build(source)
    except Exception as error:
        pytest.skip(f"no C compiler: {error}")


def random(dtype, *shape):
    return torch.randn(*shape, dtype=dtype).numpy()


def guarded(dtype, count):
    """Room for `count` numbers, all NaN, and after them some that nothing may touch."""
    return np.full(count + 64, np.nan, str(dtype).split(".")[1])


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def close(found, expected, dtype):
    np.testing.assert_allclose(found, expected, rtol=0, atol=(2e-4 if dtype == torch.float32 else 1e-12))


@settings(max_examples=60, deadline=None)
@given(dtypes, sizes, sizes, sizes, st.booleans(), st.booleans(), st.integers(1, 3))
def test_product(dtype, rows, depth, width, turned, biased, threads):
    lib, panel = library(dtype), 2 * TYPES[dtype][1]
    left, right, bias = random(dtype, rows, depth), random(dtype, depth, width), random(dtype, width)
    stored = np.asfortranarray(right) if turned else right
    strides = [number(stride // stored.itemsize) for stride in stored.strides]
    packed = np.empty(-(-width // panel) * panel * depth, left.dtype)
    for thread in range(threads):
        lib.pack(
            pointer(stored), *strides, number(depth), number(width), pointer(packed), number(thread), number(threads)
        )
    made = guarded(dtype, rows * width)
    lib.product(
        *(pointer(left), number(depth), pointer(packed), number(depth), number(width)),
        *(pointer(bias) if biased else None, pointer(made), number(width), number(rows)),
    )
    close(made[: rows * width].reshape(rows, width), left @ right + (bias if biased else 0), dtype)
    assert np.isnan(made[rows * width :]).all()


@settings(max_examples=60, deadline=None)
@given(dtypes, st.integers(1, 900), sizes, sizes, st.integers(1, 4))
def test_contract(dtype, rows, high, wide, threads):
    lib = library(dtype)
    left, right = random(dtype, rows, high + 3)[:, 2:-1], random(dtype, rows, wide + 1)[:, 1:]
    made, room = guarded(dtype, high * wide), guarded(dtype, 384 * (wide + 16 + 96))
    for thread in range(threads):
        lib.contract(
            *(pointer(left), number(high + 3), number(high), pointer(right), number(wide + 1), number(wide)),
            *(number(rows), pointer(made), pointer(room), number(thread), number(threads)),
        )
    close(made[: high * wide].reshape(high, wide), left.T @ right, dtype)
    assert np.isnan(made[high * wide :]).all()
    assert np.isnan(room[-64:]).all()


@settings(max_examples=60, deadline=None)
@given(dtypes, st.integers(1, 300), sizes | st.integers(190, 200), st.integers(1, 4))
def test_sum_rows(dtype, rows, width, threads):
    lib, values = library(dtype), random(dtype, rows, width + 2)[:, 1:-1]
    made = guarded(dtype, width)
    for thread in range(threads):
        lib.sum_rows(
            *(pointer(values), number(width + 2), number(width), number(rows), pointer(made)),
            *(number(thread), number(threads)),
        )
    close(made[:width], values.sum(0), dtype)
    assert np.isnan(made[width:]).all()
