"""When native code cannot serve, and how a person learns of it: once."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from unrolled.cells import State
from unrolled.errors import CompilerError, FallbackWarning, UntraceableError

_said: set[str] = set()


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


def why_not_native(inputs: Tensor, state: State | None) -> str | None:
    """What forbids native code for these tensors, whatever the cell; None where nothing does."""
    if torch.jit.is_tracing() or is_transformed():
        return "it is being traced or transformed"
    state = state or ()
    tensors = (inputs, *state)
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
