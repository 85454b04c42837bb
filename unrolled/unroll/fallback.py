"""Decides when native code cannot be used, and warns the user about it once."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from unrolled.cells import State
from unrolled.errors import CompilerError, FallbackWarning, UntraceableError
from unrolled.unroll.adapt import innermost

T = TypeVar("T")
#: `here` is set in a thread that tries a step. The thread that plans waits for it, so it must not plan itself.
_trying = threading.local()
_said: set[str] = set()
_MOST_SAID = 1000
#: Cells that could not be compiled, with the circumstances of each refusal, so that they are not tried again.
_refused: weakref.WeakKeyDictionary[nn.Module, set[Hashable]] = weakref.WeakKeyDictionary()
#: Whether a tensor belongs to the vmap that preceded torch.func's, which autograd's `is_grads_batched` uses.
_is_batched = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda tensor: False)


def guarded(function: Callable[..., T], *arguments: Any) -> T:
    """Return `function(*arguments)`; turn any error in planning into an UntraceableError, so that the loop runs."""
    try:
        return function(*arguments)
    except (UntraceableError, CompilerError):
        raise
    except Exception as error:
        from unrolled.unroll.words import without_rows

        first = without_rows((str(error).strip().splitlines() or [""])[0])
        raise UntraceableError(f"it cannot be planned ({type(error).__name__}: {first[:200]})") from error


def in_new_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Return `function(*arguments)`, computed in a new thread.

    A new thread is free of the modes that the user has enabled in theirs, such as hooks on saved tensors, a dispatch
    mode, or disabled autograd within an operator.
    """
    with ThreadPoolExecutor(1, initializer=setattr, initargs=(_trying, "here", True)) as pool:
        return pool.submit(function, *arguments).result()


def _circumstances(cell: nn.Module, inputs: Tensor, lengths: Tensor | None) -> Hashable:
    grad = torch.is_grad_enabled()
    return type(cell), cell.training, inputs.dtype, inputs.device, inputs.size(-1), lengths is None, grad


def is_refused(cell: nn.Module, inputs: Tensor, lengths: Tensor | None) -> bool:
    """Return whether this cell could not be compiled before under the same circumstances."""
    known = _refused.get(innermost(cell))
    return known is not None and _circumstances(cell, inputs, lengths) in known


def refuse(cell: nn.Module, inputs: Tensor, lengths: Tensor | None) -> None:
    _refused.setdefault(innermost(cell), set()).add(_circumstances(cell, inputs, lengths))


def say_fallback(name: str, error: CompilerError | UntraceableError | str) -> None:
    """Warn that a cell runs step by step, and why. Each reason is given once."""
    if isinstance(error, CompilerError):
        text = f"cells run step by step, not in native code: {error}"
    else:
        text = f"{name} runs step by step, not in native code: {error}"
    if text not in _said:
        if len(_said) >= _MOST_SAID:
            _said.clear()
        _said.add(text)
        from unrolled.unroll.words import user_frame

        path, line = user_frame() or (__file__, 1)
        warnings.warn_explicit(text, FallbackWarning, path, line)


def is_transformed() -> bool:
    """Return whether a transform of torch.func is active."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


def is_about_types(inputs: Tensor, state: State) -> bool:
    """Return whether the dtypes of these tensors are the only reason that native code cannot be used."""
    tensors = (inputs, *state)
    if is_transformed() or not all(tensor.device.type == "cpu" and tensor.numel() for tensor in tensors):
        return False
    return inputs.dtype not in (torch.float32, torch.float64) or any(part.dtype != inputs.dtype for part in state)


def is_dual(tensors: Iterable[Tensor]) -> bool:
    """Return whether one of the tensors has a tangent of forward-mode differentiation."""
    return forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors
    )


def is_followed(tensors: Iterable[Tensor]) -> bool:
    """Return whether PyTorch must see every operation on these tensors, because of a transform."""
    tensors = list(tensors)
    return is_transformed() or is_dual(tensors) or any(map(_is_batched, tensors))


def tensors_of(cell: nn.Module) -> Iterator[Tensor]:
    """Iterate over a cell's parameters and buffers."""
    yield from cell.parameters()
    yield from cell.buffers()


def why_not_native(inputs: Tensor, state: State | None, cell: nn.Module | None = None) -> str | None:
    """Return why native code cannot be used for these tensors and the cell's; None if it can."""
    if torch.jit.is_tracing() or is_transformed() or getattr(_trying, "here", False):
        return "it is being traced or transformed"
    state = state or ()
    tensors = (inputs, *state)
    if is_dual(chain(tensors, () if cell is None else tensors_of(cell))):
        return "native code has no forward-mode derivatives"
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return "native code runs on the CPU"
    if any(tensor.dtype != inputs.dtype for tensor in state) or inputs.dtype not in (torch.float32, torch.float64):
        kinds = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors}))
        return f"native code needs input and state in float32 or both in float64; these are {kinds}"
    if inputs.numel() == 0 or any(tensor.numel() == 0 for tensor in state):
        return "there is nothing to compute"
    if torch.is_autocast_enabled("cpu"):
        return "autocast chooses other types for single operations"
    if any(type(tensor) not in (Tensor, torch.nn.Parameter) for tensor in tensors):
        return "a tensor is an instance of a subclass of torch.Tensor"
    return None
