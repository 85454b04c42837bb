"""Why a step cannot be compiled, in the user's own terms: what it does, at which line, and what would compile."""

from __future__ import annotations

import re
import traceback
import types
from collections.abc import Iterator
from pathlib import Path

from torch import fx

from unrolled.errors import UntraceableError
from unrolled.unroll.observe import place
from unrolled.unroll.watch import TRUSTED

#: Rows of the batch while a step is traced: a prime that divides no other size.
ROWS = 1_000_003
_HERE = Path(__file__).parents[1]
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
        "writes into a part of a tensor",
        "torch.cat of the parts, or torch.where, compiles",
    ),
    (r"nonzero|DynamicOutputShape", "makes a tensor whose shape depends on values", "a mask of zeros and ones compiles"),
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
    """The user's line that an operation was traced from."""
    found = None
    for path, line in re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or ""):
        if _is_users(path):
            found = place(path, int(line))
    return found


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
    for frame, line in _frames(error.__traceback__):
        module = (frame.f_globals.get("__name__") or "").partition(".")[0]
        if module not in TRUSTED and _is_users(frame.f_code.co_filename):
            found = place(frame.f_code.co_filename, line)
    if found is None and (error.__cause__ or error.__context__) is not None:
        return _user_line(error.__cause__ or error.__context__)  # type: ignore[arg-type]
    return found


def user_line() -> str | None:
    """The line of the user's code that runs now."""
    for frame, line in traceback.walk_stack(None):
        module = (frame.f_globals.get("__name__") or "").partition(".")[0]
        if module not in TRUSTED and _is_users(frame.f_code.co_filename):
            return place(frame.f_code.co_filename, line)
    return None


def _frames(trace: types.TracebackType | None) -> Iterator[tuple[types.FrameType, int]]:
    yield from traceback.walk_tb(trace)


def _is_users(path: str) -> bool:
    parts = Path(path).parts
    return not (path.startswith("<") or "torch" in parts or "concurrent" in parts or _HERE in Path(path).parents)
