"""Memory for native programs: fresh pages can cost more than their use, so they are large, or kept for next time."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable

import torch
from torch import Tensor

_MOST = 1 << 26  # bytes that are kept of one dtype, at most
_LARGE = 1 << 22  # bytes from which on the kernel is asked for pages of 2 MB
_PAGE, _HUGE_PAGES = 4096, 14  # as in <sys/mman.h> of Linux
_idle: dict[torch.dtype, list[Tensor]] = {}


def empty(like: Tensor, *shape: int) -> Tensor:
    """`like.new_empty(*shape)`."""
    return _on_large_pages(like.new_empty(shape))


def take(size: int, dtype: torch.dtype) -> Tensor:
    """At least `size` elements, of no particular values, that nobody else uses until they are given back."""
    try:
        found = _idle.setdefault(dtype, []).pop()
        if found.numel() >= size:
            return found
    except IndexError:
        pass
    return _on_large_pages(torch.empty(size + 16, dtype=dtype))


def give(memory: Tensor) -> None:
    """Give back what was taken."""
    idle = _idle[memory.dtype]
    if not idle and memory.numel() * memory.itemsize <= _MOST:
        idle.append(memory)


def _on_large_pages(memory: Tensor) -> Tensor:
    """Ask for large pages where that is worth a call; the kernel may decline."""
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
