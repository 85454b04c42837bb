"""Compiles, loads and calls a native program, and allocates its working memory."""

from __future__ import annotations

import _ctypes
import ctypes
import functools
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from unrolled.errors import CompilerError
from unrolled.unroll import workspace
from unrolled.unroll.native import build, find

KERNEL, PRODUCT = (Path(__file__).with_name(name) for name in ("kernel.h", "product.c"))
TYPES = {torch.float32: ("float", 8, "int32_t"), torch.float64: ("double", 4, "int64_t")}
BLOCK = 96  # the most rows that a thread computes in one step at once
DEPTH = 384  # as in product.c


@dataclass(eq=False)
class Native:
    """A C program, and what its caller needs to know. Call `compile` or `find` first, then the program itself.

    key: the digest of the C, which identifies its library.
    source: the C itself; None for a program that was read from the cache. Its library is found by the key.
    pointers: the number of addresses that it takes: of vectors, arguments, double buffers and temporaries.
    double_buffers: columns of each array `[2, B, columns]` that is allocated for the call.
    temporaries: columns of each array `[T, B, columns]` that is allocated for the call.
    matrices, flat: the numbers of the vectors that are packed, and of those that are read as one row.
    packed: elements of all packed matrices.
    keeps_packed: whether a call returns the packed matrices, so that the next call can use them again.
    sizes: the numbers of columns that are passed to the C, so that one library serves every size.
    scratch: elements that a thread needs per row of the batch, elements per row of all steps, and the minimum.
    work: floating-point operations for one of the T * B rows.
    """

    key: str
    source: str | None
    dtype: torch.dtype
    pointers: int
    double_buffers: tuple[int, ...]
    temporaries: tuple[int, ...]
    matrices: tuple[int, ...]
    flat: tuple[int, ...]
    packed: int
    keeps_packed: bool
    sizes: tuple[int, ...]
    scratch: tuple[int, int, int]
    work: int

    def compile(self) -> Native:
        """Compile the program, or load its library from the cache; CompilerError if neither is possible."""
        if self.source is not None:
            self._take(build(self.source))
        elif not self.find():
            raise CompilerError("the library of a cached program is missing from the cache")
        return self

    def find(self) -> bool:
        """Load the library from the cache and return whether it was there; CompilerError if the cache is unusable."""
        library = find(self.key)
        if library is not None:
            self._take(library)
        return library is not None

    def __reduce__(self):
        return Native, tuple(getattr(self, part.name) for part in fields(self))

    def _take(self, library: ctypes.CDLL) -> None:
        if ctypes.c_long.in_dll(library, "sizes_taken").value != len(self.sizes):
            raise CompilerError("the library of a cached program takes other sizes")
        function = library.run
        function.restype = None
        # Pointers, strides, sizes, steps, batch, threads, scratch of a thread, whether to pack, packed, scratch, tools.
        function.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_long] * 5 + [ctypes.c_void_p] * 3
        arrays = ctypes.c_void_p * self.pointers, ctypes.c_long * (2 * len(self.matrices))
        sizes = (ctypes.c_long * len(self.sizes))(*self.sizes)
        self._loaded = function, tools(self.dtype), sizes, *arrays
        # A program opens its library once and closes it once, so libraries of deleted plans do not stay in memory.
        weakref.finalize(self, _close, library._handle).atexit = False

    def __call__(
        self,
        steps: int,
        batch: int,
        vectors: Sequence[int],
        strides: Sequence[Sequence[int]],
        arguments: Sequence[int | None],
        packed: Tensor | None = None,
    ) -> Tensor | None:
        """Run the program.

        strides: the strides of the vectors.
        packed: the result of an earlier call with the same vectors, which saves packing them again.
        """
        function, tools_at, sizes, pointer_array, stride_array = self._loaded
        rows = steps * batch
        # For little work, waking other threads takes longer. More threads than processors would wait for each other.
        threads = 1 if self.work * rows < 1_000_000 else min(torch.get_num_threads(), _processors())
        blocks = min(BLOCK, -(-batch // threads)), min(BLOCK, -(-rows // threads))
        own = _whole(max(blocks[0] * self.scratch[0], blocks[1] * self.scratch[1], self.scratch[2]))
        double_buffers = [_whole(2 * batch * columns) for columns in self.double_buffers]
        temporaries = [_whole(rows * columns) for columns in self.temporaries]
        fresh = packed is None
        if self.keeps_packed and packed is None:
            packed = torch.empty(self.packed, dtype=self.dtype)
        size = threads * own + sum(double_buffers) + sum(temporaries) + (0 if self.keeps_packed else self.packed)
        scratch = workspace.take(size, self.dtype)
        width, start = scratch.itemsize, scratch.data_ptr()
        pointers = [*vectors, *arguments]
        place = start + threads * own * width
        for count in (*double_buffers, *temporaries):
            pointers.append(place)
            place += count * width
        function(
            pointer_array(*pointers),
            stride_array(*[stride for k in self.matrices for stride in strides[k]]),
            sizes,
            *(steps, batch, threads, own, fresh, place if packed is None else packed.data_ptr(), start, tools_at),
        )
        workspace.give(scratch)
        return packed


def _close(handle: int) -> None:
    if hasattr(_ctypes, "dlclose"):
        _ctypes.dlclose(handle)


def _whole(count: int) -> int:
    """Round a number of elements up to whole cache lines."""
    return -(-count // 16) * 16


def preamble(real: str, lanes: int, mask: str) -> str:
    return f"#define REAL {real}\n#define LANES {lanes}\n#define MASK {mask}"


@functools.cache
def _processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def tools(dtype: torch.dtype) -> int:
    """Return the address of the table of functions that multiply and pack matrices."""
    source = "\n".join([preamble(*TYPES[dtype]), *(path.read_text(encoding="utf-8") for path in (KERNEL, PRODUCT))])
    library = build(source, "-O3")
    return ctypes.addressof(ctypes.c_char.in_dll(library, "tools"))
