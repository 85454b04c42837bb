"""Plans as data: how a plan is written to a file, and how it is read and checked.

A file is JSON: `[graphs, value]`, and the value refers to graphs by their numbers. Everything that is read must have
one of the forms below, with numbers within bounds, and nothing in a file is executed. The C of a program is not
written: its library is found by the digest of the C.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from unrolled.unroll.compiled import Native
from unrolled.unroll.graph import DamagedError, Graph
from unrolled.unroll.passes import Backward, Epilogue, Forward, Training
from unrolled.unroll.schedule import Schedule
from unrolled.unroll.vectors import Outside, Vectors

#: The most elements of a constant in a file. Constants are scalars and small triangular matrices.
_CONSTANT = 1 << 16
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.float64, torch.float16)}
_DTYPES |= {
    str(dtype).removeprefix("torch."): dtype for dtype in (torch.bfloat16, torch.bool, torch.int64, torch.int32)
}
Form = Callable[[Any, list[Graph]], Any]


def write(value: object) -> bytes:
    """Return the content of a file; DamagedError if a part of `value` has no form."""
    graphs: dict[str, int] = {}
    value = _written(value, graphs)
    return json.dumps([[json.loads(graph) for graph in graphs], value], separators=(",", ":")).encode()


def read(form: Form, content: bytes) -> Any:
    """Return the value in a file; DamagedError if it does not have the expected form."""
    try:
        stored, value = json.loads(content)
        return form(value, [_graph(graph) for graph in stored])
    except (ValueError, TypeError, KeyError, RecursionError, MemoryError, OverflowError) as error:
        raise DamagedError(str(error)) from error


def _written(value: Any, graphs: dict[str, int]) -> Any:
    if isinstance(value, Graph):
        value.check_closed()
        constants = [_constant_written(constant) for constant in value.constants]
        text = json.dumps([value.inputs, constants, value.nodes, value.outputs])
        return graphs.setdefault(text, len(graphs))
    if is_dataclass(value):
        left_out = ("source",) if isinstance(value, Native) else ()
        return [_written(getattr(value, part.name), graphs) for part in fields(value) if part.name not in left_out]
    if isinstance(value, dict):
        return [[_written(key, graphs), _written(part, graphs)] for key, part in value.items()]
    if isinstance(value, list | tuple):
        return [_written(part, graphs) for part in value]
    if isinstance(value, torch.dtype) and value in _DTYPES.values():
        return str(value).removeprefix("torch.")
    if value is None or type(value) in (bool, int, str):
        return value
    raise DamagedError(f"{type(value).__name__} has no place in a plan")


# -- forms: each takes a value of the file, and the graphs ------------------------------------------------------------


def whole(value: Any, graphs: list[Graph]) -> int:
    if type(value) is not int or not 0 <= value < 1 << 40:
        raise DamagedError("not a size")
    return value


def flag(value: Any, graphs: list[Graph]) -> bool:
    if type(value) is not bool:
        raise DamagedError("neither true nor false")
    return value


def text(value: Any, graphs: list[Graph]) -> str:
    if type(value) is not str or len(value) > 1000:
        raise DamagedError("not a name")
    return value


def dtype(value: Any, graphs: list[Graph]) -> torch.dtype:
    if not isinstance(value, str) or value not in _DTYPES:
        raise DamagedError("not a dtype")
    return _DTYPES[value]


def digest(value: Any, graphs: list[Graph]) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise DamagedError("not a digest")
    return value


def graph(value: Any, graphs: list[Graph]) -> Graph:
    return graphs[_below(value, len(graphs))]


def maybe(form: Form) -> Form:
    return lambda value, graphs: None if value is None else form(value, graphs)


def several(form: Form, kind: Callable[..., Any] = tuple) -> Form:
    """Return the form of a list of any length."""

    def read(value: Any, graphs: list[Graph]) -> Any:
        if not isinstance(value, list):
            raise DamagedError("not a list")
        return kind(form(part, graphs) for part in value)

    return read


def row(*forms: Form) -> Form:
    """Return the form of a list with one value of each of the forms."""

    def read(value: Any, graphs: list[Graph]) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(forms):
            raise DamagedError("a list of another length")
        return tuple(form(part, graphs) for form, part in zip(forms, value, strict=True))

    return read


def mapping(key: Form, form: Form) -> Form:
    pairs = several(row(key, form))
    return lambda value, graphs: dict(pairs(value, graphs))


def source_kind(value: Any, graphs: list[Graph]) -> str:
    if value not in ("input", "saved", "deferred"):
        raise DamagedError("an unknown kind of row value")
    return value


def instance(kind: Callable[..., Any], *forms: Form) -> Form:
    """Return the form of an object, a list of its fields in order."""
    parts = row(*forms)
    return lambda value, graphs: kind(*parts(value, graphs))


def _native(*values: Any) -> Native:
    """Return a program read from a file, which does not have its C."""
    return Native(values[0], None, *values[1:])


def checked(form: Form, check: Callable[[Any], bool]) -> Form:
    """Return `form` with the condition that `check` holds for the value."""

    def read(value: Any, graphs: list[Graph]) -> Any:
        found = form(value, graphs)
        if not check(found):
            raise DamagedError("parts that do not fit together")
        return found

    return read


sizes = several(whole)
native = checked(
    instance(
        _native, digest, dtype, whole, sizes, sizes, sizes, sizes, whole, flag, sizes, row(whole, whole, whole), whole
    ),
    lambda found: found.pointers < 1 << 16,
)
outside = instance(Outside, graph, whole, whole, maybe(graph), maybe(graph))
vectors = checked(
    instance(Vectors, outside, sizes, dtype, maybe(several(row(whole, whole), list)), several(sizes, list)),
    lambda found: len(found.views or ()) == len(found.strides),
)
schedule = checked(
    instance(
        Schedule,
        *(text, several(text), sizes, several(flag), whole, whole, sizes, sizes, graph, graph, graph, maybe(graph)),
    ),
    lambda found: (
        len(found.reaching) == len(found.parameter_names) + 1
        and all(k < found.states for k in found.visible)
        and len(found.hoisted_sizes) in (0, found.hoisted)
    ),
)
forward = checked(
    instance(Forward, native, vectors, flag, several(whole, list), mapping(whole, whole), *[several(whole, list)] * 2),
    lambda found: len(found.kept_hoisted) <= len(found.kept),
)
epilogue = checked(
    instance(Epilogue, several(sizes, list), maybe(several(whole, list)), graph, flag),
    lambda found: all(k < len(found.shapes) for k in found.order or ()),
)
backward = checked(
    instance(Backward, native, vectors, maybe(epilogue), several(whole, list), several(whole, list)),
    lambda found: all(k < len(found.rows) for k in found.row_of),
)
training = instance(Training, forward, backward, sizes, outside, maybe(graph), whole, several(row(source_kind, whole)))
record = checked(
    row(schedule, maybe(forward), mapping(several(flag), training)),
    lambda found: _is_whole(*found),
)


#: The parts of a `Generator`: the graph that prepares the parameters, and the loop.
generated = checked(
    row(graph, native), lambda found: max((*found[1].matrices, *found[1].flat, -1)) < len(found[0].outputs)
)


def _is_whole(schedule: Schedule, inference: Forward | None, trainings: dict[tuple[bool, ...], Training]) -> bool:
    """Return whether the passes fit the schedule, and each has as many addresses as its program takes."""
    parameters, states = len(schedule.parameter_names), schedule.states
    for one in (inference, *(one.forward for one in trainings.values())):
        if one is None:
            continue
        arguments = 1 + 2 * states + len(one.trajectories) + len(one.kept) + (0 if one.hoists else len(one.rest))
        if not _takes(one, parameters, arguments) or max((*one.rest, *one.kept_hoisted, -1)) >= schedule.hoisted:
            return False
        if max((*one.trajectories, -1)) >= states:
            return False
    for wanted, training in trainings.items():
        back, kept = training.backward, len(training.forward.kept)
        ends = len(back.rows) if back.epilogue is None else len(back.epilogue.shapes) + back.epilogue.of_input
        arguments = 1 + states + kept + len(schedule.visible) + 2 * states + ends
        if not _takes(back, parameters, arguments) or len(wanted) != len(schedule.reaching):
            return False
        if len(training.forward.trajectories) != states or max((*training.chosen, -1)) > parameters:
            return False
    return True


def _takes(found: Forward | Backward, parameters: int, arguments: int) -> bool:
    """Return whether the program of `found` takes its vectors and that many other addresses."""
    program, vectors, compute = found.program, found.vectors, found.vectors.compute
    count = program.pointers - len(program.double_buffers) - len(program.temporaries) - arguments
    given = min(compute.count, len(compute.prepare.outputs))
    given += sum(len(part.outputs) for part in (compute.constants, compute.before) if part is not None)
    if count != given or any(k >= count for k in (*program.matrices, *program.flat)):
        return False
    if vectors.views is None:
        return True
    matrices = all(len(vectors.strides[k]) == 2 for k in program.matrices)
    return len(vectors.views) == count and matrices and all(owner < parameters for owner, _ in vectors.views)


def _below(value: Any, count: int) -> int:
    if type(value) is not int or not 0 <= value < count:
        raise DamagedError("an index out of range")
    return value


# -- graphs ----------------------------------------------------------------------------------------------------------


def _graph(stored: Any) -> Graph:
    inputs, constants, nodes, outputs = stored
    if type(inputs) is not int or not 0 <= inputs < 1 << 16:
        raise DamagedError("not a number of inputs")
    if not isinstance(nodes, list) or not isinstance(outputs, list) or any(type(k) is not int for k in outputs):
        raise DamagedError("not a graph")
    for node in nodes:
        name, args, kwargs = node
        if not isinstance(name, str) or not isinstance(args, list) or not isinstance(kwargs, dict):
            raise DamagedError("not an operation")
    found = Graph(inputs, [_constant(constant) for constant in constants], [tuple(node) for node in nodes], outputs)
    found.check_closed()
    return found


def _constant_written(constant: Tensor) -> list[Any]:
    if constant.dtype not in _DTYPES.values() or constant.numel() > _CONSTANT or constant.device.type != "cpu":
        raise DamagedError("a constant that cannot be written")
    return [str(constant.dtype).removeprefix("torch."), list(constant.shape), constant.detach().flatten().tolist()]


def _constant(stored: Any) -> Tensor:
    kind, shape, values = row(dtype, sizes, several(lambda value, _: value, list))(stored, [])
    if len(values) > _CONSTANT or math.prod(shape) != len(values):
        raise DamagedError("a constant of another shape")
    if any(type(value) not in (bool, int, float) for value in values):
        raise DamagedError("a constant that is not a number")
    return torch.tensor(values, dtype=kind).reshape(shape)
