"""Why a step cannot be compiled, in the user's own terms: what it does, at which line, and what would compile."""

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

#: Rows of the batch while a step is traced: a prime that divides no other size.
ROWS = 1_000_003
_NEAR = 4  # steps away from an operation that does not know its line
_HERE = Path(__file__).parents[1]
_PYTHON, _TORCH = Path(os.__file__).parent, Path(torch.__file__).parent
#: What the messages of PyTorch say, what the step does then, and what would compile in its place.
_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        r"_local_scalar_dense|data-dependent|DataDependent|GuardOnDataDependent|item\(\)|Boolean value of Tensor",
        "branches on a value, or reads one as a number",
        "torch.where, or arithmetic with the tensor itself, compiles",
    ),
    (
        r"Please convert all Tensors to FakeTensors|convert all Tensors",
        "reads a tensor that is neither a parameter nor a buffer",
        "register_buffer makes it one",
    ),
    (
        r"derivative for aten::(copy|slice_scatter|select_scatter|scatter)|aten\.(copy|slice_scatter|select_scatter)\b",
        "writes into a slice of a tensor, or changes it in place",
        "torch.cat of the parts, or torch.where, compiles",
    ),
    (
        r"nonzero|DynamicOutputShape",
        "makes a tensor whose shape depends on values",
        "a mask of zeros and ones compiles",
    ),
    (r"[Ss]parse", "computes with a sparse tensor", "a dense one compiles"),
    (r"numpy", "leaves PyTorch for NumPy", "the function of torch of the same name compiles"),
)


def reason(error: Exception) -> str:
    """`error`, which came up while a step was traced, as one sentence without a capital."""
    text = f"{type(error).__name__} {error}"
    at = _user_line(error)
    where = f" at {at}" if at else ""
    for pattern, what, advice in _KNOWN:
        if re.search(pattern, text):
            return f"it {what}{where}; {advice}"
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"it raises {type(error).__name__}{where} while it is traced: {without_rows(first)}"


def operation(what: str, node: fx.Node, advice: str = "") -> UntraceableError:
    """The error of a step that does `what` by the operation of a traced node."""
    at = node_line(node)
    return UntraceableError(f"it {what}{f' at {at}' if at else ''}{f'; {advice}' if advice else ''}")


def node_line(node: fx.Node) -> str | None:
    """The user's line that an operation, or what it reads, was traced from."""
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
    """The text with `B` in place of the number of rows, which the user has never seen."""

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
    """The innermost line that is neither PyTorch's nor this package's, of the error or what caused it."""
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = (frame.f_globals.get("__name__") or "").partition(".")[0]
        if module not in TRUSTED and _is_users(frame.f_code.co_filename):
            found = place(frame.f_code.co_filename, line)
    if found is None and (error.__cause__ or error.__context__) is not None:
        return _user_line(error.__cause__ or error.__context__)  # type: ignore[arg-type]
    return found


def user_frame() -> tuple[str, int] | None:
    """The file and the line of the user's code that runs now."""
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
