"""When native code cannot serve, and how a person learns of it: once."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unrolled.cells import State
from unrolled.errors import CompilerError, FallbackWarning, UntraceableError
from unrolled.unroll.adapt import innermost

T = TypeVar("T")
_said: set[str] = set()
_MOST_SAID = 1000
#: Cells that were refused, so that they are not asked again: by what they were called with.
_refused: weakref.WeakKeyDictionary[nn.Module, set[Hashable]] = weakref.WeakKeyDictionary()


def guarded(function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)`, with any error in planning as an UntraceableError: the eager loop then serves."""
    try:
        return function(*arguments)
    except (UntraceableError, CompilerError):
        raise
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except Exception as error:
        from unrolled.unroll.words import without_rows

        first = without_rows((str(error).strip().splitlines() or [""])[0])
        raise UntraceableError(f"it cannot be planned ({type(error).__name__}: {first[:200]})") from error


def apart(function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)` in a thread of its own.

    What the user has switched on in theirs, such as hooks on saved tensors, a mode that watches operations, or no
    autograd within an operator, has no business in it.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def _circumstances(cell: nn.Module, inputs: Tensor, lengths: Tensor | None) -> Hashable:
    grad = torch.is_grad_enabled()
    return type(cell), cell.training, inputs.dtype, inputs.device, inputs.size(-1), lengths is None, grad


def is_refused(cell: nn.Module, inputs: Tensor, lengths: Tensor | None) -> bool:
    """Whether this very cell could not be compiled before, under the same circumstances."""
    known = _refused.get(innermost(cell))
    return known is not None and _circumstances(cell, inputs, lengths) in known


def refuse(cell: nn.Module, inputs: Tensor, lengths: Tensor | None) -> None:
    _refused.setdefault(innermost(cell), set()).add(_circumstances(cell, inputs, lengths))


def say_fallback(name: str, error: CompilerError | UntraceableError | str) -> None:
    """Warn that a cell runs step by step, and why; each reason once."""
    if isinstance(error, CompilerError):
        text = f"cells run step by step, not in native code: {error}"
    else:
        text = f"{name} runs step by step, not in native code: {error}"
    if text not in _said:
        if len(_said) >= _MOST_SAID:
            _said.clear()
        _said.add(text)
        warnings.warn(text, FallbackWarning, stacklevel=3)


def is_transformed() -> bool:
    """Whether a transform of torch.func is at work."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


def is_about_types(inputs: Tensor, state: State) -> bool:
    """Whether it is for the types of these tensors that native code does not serve, where otherwise it would."""
    tensors = (inputs, *state)
    return (
        all(tensor.device.type == "cpu" and tensor.numel() for tensor in tensors)
        and not is_transformed()
        and (
            inputs.dtype not in (torch.float32, torch.float64) or any(tensor.dtype != inputs.dtype for tensor in state)
        )
    )


def why_not_native(inputs: Tensor, state: State | None) -> str | None:
    """What forbids native code for these tensors, whatever the cell; None where nothing does."""
    if torch.jit.is_tracing() or is_transformed():
        return "it is being traced or transformed"
    state = state or ()
    tensors = (inputs, *state)
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return "native code runs on the CPU"
    if any(tensor.dtype != inputs.dtype for tensor in state) or inputs.dtype not in (torch.float32, torch.float64):
        kinds = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors}))
        return f"native code computes in float32 or float64, input and state alike; these are {kinds}"
    if inputs.numel() == 0 or any(tensor.numel() == 0 for tensor in state):
        return "there is nothing to compute"
    if torch.is_autocast_enabled("cpu"):
        return "autocast chooses other types for single operations"
    if any(type(tensor) not in (Tensor, torch.nn.Parameter) for tensor in tensors):
        return "a tensor is of a class of its own"
    return None
