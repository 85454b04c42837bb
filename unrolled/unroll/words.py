"""Explains in the user's terms why a step cannot be compiled: what it does, at which line, and what to use instead."""

from __future__ import annotations

import functools
import os
import re
import sys
import traceback
from pathlib import Path

import torch
from torch import fx

from unrolled.errors import UntraceableError
from unrolled.unroll.observe import place
from unrolled.unroll.watch import TRUSTED

#: The number of rows of the batch while a step is traced: a prime that divides no other size.
ROWS = 1_000_003
_NEAR = 4  # how far from an operation without a line to search for one
_HERE = Path(__file__).parents[1]
_PYTHON, _TORCH = Path(os.__file__).parent, Path(torch.__file__).parent
#: Patterns of PyTorch's messages, with what the step does then and what to use instead.
_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        r"_local_scalar_dense|data-dependent|DataDependent|GuardOnDataDependent|item\(\)|Boolean value of Tensor",
        "branches on a value, or reads one as a number",
        "use torch.where, or arithmetic with the tensor itself",
    ),
    (
        r"Please convert all Tensors to FakeTensors|convert all Tensors",
        "reads a tensor that is neither a parameter nor a buffer",
        "use register_buffer to make it a buffer",
    ),
    (
        r"derivative for aten::(copy|slice_scatter|select_scatter|scatter)|aten\.(copy|slice_scatter|select_scatter)\b",
        "writes into a slice of a tensor, or changes it in place",
        "use torch.cat of the parts, or torch.where",
    ),
    (
        r"nonzero|DynamicOutputShape",
        "makes a tensor whose shape depends on values",
        "use a mask of zeros and ones",
    ),
    (r"[Ss]parse", "computes with a sparse tensor", "use a dense one"),
    (r"numpy", "calls NumPy", "use the torch function of the same name"),
)


def reason(error: Exception) -> str:
    """Return an error of tracing as one sentence that starts in lower case."""
    text = f"{type(error).__name__} {error}"
    at = _user_line(error)
    where = f" at {at}" if at else ""
    for pattern, what, advice in _KNOWN:
        if re.search(pattern, text):
            return f"it {what}{where}; {advice}"
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"it raises {type(error).__name__}{where} while it is traced: {without_rows(first)}"


def operation(what: str, node: fx.Node, advice: str = "") -> UntraceableError:
    """Return the error of a step that does `what` in the operation of a traced node."""
    at = node_line(node)
    return UntraceableError(f"it {what}{f' at {at}' if at else ''}{f'; {advice}' if advice else ''}")


def node_line(node: fx.Node) -> str | None:
    """Return the user's line that an operation, or a close neighbour of it in the graph, was traced from."""
    near = [node]
    for _ in range(_NEAR):
        for each in near:
            frames = re.findall(r'File "([^"]+)", line (\d+)', each.meta.get("stack_trace") or "")
            for path, line in reversed(frames):
                if _is_users(path):
                    return place(path, int(line))
        near = [argument for each in near for argument in (*each.all_input_nodes, *each.users)][:100]
    return None


def without_rows(text: str, rows: int = ROWS) -> str:
    """Return the text with `B` in place of the number of rows of the trace, which means nothing to the user."""

    def named(match: re.Match) -> str:
        number, power = int(match.group()), 0
        if number < rows:
            return match.group()
        while number % rows == 0:
            number, power = number // rows, power + 1
        if power == 0:
            return f"B + {number % rows}" if number // rows == 1 else "some multiple of B"
        return "·".join(([str(number)] if number > 1 else []) + ["B"] * power)

    return re.sub(r"\d+", named, text)


def _user_line(error: BaseException) -> str | None:
    """Return the innermost line of the error, or of its cause, that is in neither PyTorch nor this package."""
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = (frame.f_globals.get("__name__") or "").partition(".")[0]
        if module not in TRUSTED and _is_users(frame.f_code.co_filename):
            found = place(frame.f_code.co_filename, line)
    if found is None and (error.__cause__ or error.__context__) is not None:
        return _user_line(error.__cause__ or error.__context__)  # type: ignore[arg-type]
    return found


def user_frame() -> tuple[str, int] | None:
    """Return the file and the line of the user's code that is running."""
    for frame, line in traceback.walk_stack(sys._getframe(1)):
        module = (frame.f_globals.get("__name__") or "").partition(".")[0]
        if module not in TRUSTED and _is_users(frame.f_code.co_filename):
            return frame.f_code.co_filename, line
    return None


@functools.cache
def _is_users(path: str) -> bool:
    at = Path(path)
    others = _HERE in at.parents or _TORCH in at.parents
    python = _PYTHON in at.parents and "site-packages" not in at.parts
    return not (path.startswith(("<frozen", "<string>", "<eval_with_key")) or others or python)
