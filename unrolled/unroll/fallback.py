"""When native code cannot serve, and how a person learns of it: once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from unrolled.cells import State
from unrolled.errors import CompilerError, FallbackWarning, UntraceableError

_said: set[str] = set()
#: Whether a tensor is one of the vmap that came before that of torch.func: autograd's `is_grads_batched` uses it.
_is_batched = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda tensor: False)


def say_fallback(name: str, error: CompilerError | UntraceableError) -> None:
    """Warn that a cell runs step by step, and why; each reason once."""
    if isinstance(error, CompilerError):
        text = f"cells run step by step, not in native code: {error}"
    else:
        text = f"{name} runs step by step, not in native code: {error}"
    if text not in _said:
        _said.add(text)
        warnings.warn(text, FallbackWarning, stacklevel=3)


def is_transformed() -> bool:
    """Whether a transform of torch.func is at work."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


def is_dual(tensors: Iterable[Tensor]) -> bool:
    """Whether one of them has a tangent, of forward-mode differentiation."""
    return forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors
    )


def is_followed(tensors: Iterable[Tensor]) -> bool:
    """Whether PyTorch must see every operation on these tensors: a transform is at work, or has made them."""
    tensors = list(tensors)
    return is_transformed() or is_dual(tensors) or any(map(_is_batched, tensors))


def tensors_of(cell: nn.Module) -> Iterator[Tensor]:
    """Its parameters and buffers, one after the other."""
    yield from cell.parameters()
    yield from cell.buffers()


def why_not_native(inputs: Tensor, state: State | None, cell: nn.Module | None = None) -> str | None:
    """What forbids native code for these tensors, and those of the cell; None where nothing does."""
    if torch.jit.is_tracing() or is_transformed():
        return "it is being traced or transformed"
    state = state or ()
    tensors = (inputs, *state)
    if is_dual(chain(tensors, () if cell is None else tensors_of(cell))):
        return "native code has no forward-mode derivatives"
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return "native code runs on the CPU"
    if any(tensor.dtype != inputs.dtype for tensor in state) or inputs.dtype not in (torch.float32, torch.float64):
        return "native code computes in float32 or float64, input and state alike"
    if inputs.numel() == 0 or any(tensor.numel() == 0 for tensor in state):
        return "there is nothing to compute"
    if torch.is_autocast_enabled("cpu"):
        return "autocast chooses other types for single operations"
    if any(type(tensor) not in (Tensor, torch.nn.Parameter) for tensor in tensors):
        return "a tensor is of a class of its own"
    return None
