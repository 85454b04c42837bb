"""Memory for native programs. New pages can cost more than their use, so they are large, or kept for the next call."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable

import torch
from torch import Tensor

_MOST = 1 << 26  # the most bytes that are kept for one dtype
_LARGE = 1 << 22  # bytes from which the operating system is asked for pages of 2 MB
_PAGE, _HUGE_PAGES = 4096, 14  # _HUGE_PAGES is MADV_HUGEPAGE of <sys/mman.h> on Linux
_idle: dict[torch.dtype, list[Tensor]] = {}


def empty(like: Tensor, *shape: int) -> Tensor:
    """Return `like.new_empty(*shape)`, on large pages if it is large."""
    return _on_large_pages(like.new_empty(shape))


def take(size: int, dtype: torch.dtype) -> Tensor:
    """Return at least `size` uninitialized elements, for exclusive use until `give` returns them."""
    try:
        found = _idle.setdefault(dtype, []).pop()
        if found.numel() >= size:
            return found
    except IndexError:
        pass
    return _on_large_pages(torch.empty(size + 16, dtype=dtype))


def give(memory: Tensor) -> None:
    """Give back memory from `take`."""
    idle = _idle[memory.dtype]
    if not idle and memory.numel() * memory.itemsize <= _MOST:
        idle.append(memory)


def _on_large_pages(memory: Tensor) -> Tensor:
    """Ask for large pages if the memory is large. The operating system may decline."""
    size = memory.numel() * memory.itemsize
    if size >= _LARGE and sys.platform == "linux":
        start = -(-memory.data_ptr() // _PAGE) * _PAGE
        _advise()(start, (memory.data_ptr() + size) // _PAGE * _PAGE - start, _HUGE_PAGES)
    return memory


@functools.cache
def _advise() -> Callable[[int, int, int], int]:
    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function
