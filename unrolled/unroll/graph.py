"""A traced graph as data that can be written to a file, and as Python that is fast to call.

The data contains no code: values are numbered, operations are names from a closed set, and arguments are plain values.
The Python is generated here from checked parts.
"""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unrolled.errors import UntraceableError

if TYPE_CHECKING:
    from torch import fx

#: Values are numbered: first the inputs, then the constants, then the results of the nodes.
Node = tuple[str, list[Any], dict[str, Any]]  # operation, arguments; a value is {"value": number}
_OPERATORS: dict[str, Callable[..., Any]] = {"getitem": operator.getitem, "mul": operator.mul}
#: Kinds of arguments that are not numbers, and their types; each value is found in `torch` by its name.
_KINDS = {"dtype": torch.dtype, "layout": torch.layout, "memory_format": torch.memory_format}
_DEVICE = re.compile(r"[a-z]{1,16}(:\d{1,3})?", re.ASCII)
_OPERATION = re.compile(r"(\w{1,64})\.(\w{1,64})\.(\w{1,64})", re.ASCII)
#: Strings that operations such as `gelu` and `div` take. None of them can be a file name.
_WORDS = frozenset(["none", "tanh", "floor", "trunc", "mean", "sum", "constant", "reflect", "replicate", "circular"])
#: PyTorch's operations that only compute numbers from numbers, in addition to those that its tags mark as such.
_ALSO = frozenset(
    f"aten.{name}"
    for name in (
        *("t.default", "transpose.int", "split.Tensor", "unsafe_split.Tensor", "chunk.default", "narrow.default"),
        *("select_backward.default", "slice_backward.default", "split_with_sizes.default", "unbind.int"),
        *("new_zeros.default", "new_ones.default", "new_full.default", "new_empty.default", "zeros.default"),
        *("zeros_like.default", "ones.default", "ones_like.default", "scalar_tensor.default", "full_like.default"),
        *("_unsafe_view.default", "reshape.default", "contiguous.default", "lift_fresh_copy.default", "detach.default"),
        *("squeeze.default", "expand_as.default", "view_as.default", "flatten.using_ints", "stack.default"),
        *("triu.default", "tril.default", "diagonal.default", "diag_embed.default", "trace.default", "eye.default"),
        *("mv.default", "dot.default", "outer.default", "baddbmm.default", "addmv.default", "matmul.default"),
        *("linear.default", "einsum.default", "linalg_vector_norm.default", "norm.ScalarOpt_dim", "frobenius_norm.dim"),
        *("_softmax_backward_data.default", "_log_softmax_backward_data.default", "logsumexp.default"),
        *("native_layer_norm_backward.default", "embedding_dense_backward.default", "flip.default", "roll.default"),
        *("slice_scatter.default", "select_scatter.default", "index_select.default", "repeat.default", "tile.default"),
    )
)


class DamagedError(Exception):
    """Data in a file that this package does not write."""


class Graph:
    """`graph(rows, values...) -> [values...]`."""

    def __init__(self, inputs: int, constants: Sequence[Tensor], nodes: Sequence[Node], outputs: Sequence[int]) -> None:
        """Raise DamagedError if the parts do not fit together."""
        self.inputs, self.constants, self.nodes, self.outputs = inputs, list(constants), list(nodes), list(outputs)
        self._space: dict[str, Any] = {"inf": math.inf, "nan": math.nan}
        self._names: dict[str, str] = {}
        self._source = self._written()
        self._function: Callable[..., list[Tensor]] | None = None

    @classmethod
    def of(cls, module: fx.GraphModule) -> Graph:
        """Convert PyTorch's graph; UntraceableError if it contains something that cannot be written as data."""
        number: dict[fx.Node, int] = {}
        constants: list[Tensor] = []
        nodes: list[Node] = []
        every = list(module.graph.nodes)
        given = [node for node in every if node.op == "placeholder"]
        read = [node for node in every if node.op == "get_attr"]
        for node in (*given, *read):
            number[node] = len(number)
        for node in read:
            constant = getattr(module, str(node.target), None)
            if not isinstance(constant, Tensor):
                raise UntraceableError(f"its graph reads {node.target}, which cannot be kept")
            constants.append(constant)

        def stored(value: Any) -> Any:
            if hasattr(value, "all_input_nodes"):
                return {"value": number[value]}
            if isinstance(value, list | tuple):
                return [stored(part) for part in value]
            if value is None or isinstance(value, bool | int | float | str):
                return value
            for kind, its in _KINDS.items():
                if isinstance(value, its):
                    return {kind: str(value).removeprefix("torch.")}
            if isinstance(value, torch.device):
                return {"device": str(value)}
            raise UntraceableError(f"its graph holds {value!r}, which cannot be kept")

        outputs: list[int] = []
        for node in every:
            if node.op == "call_function":
                kwargs = {name: stored(value) for name, value in node.kwargs.items()}
                nodes.append((_name(node.target), [stored(value) for value in node.args], kwargs))
                number[node] = len(number)
            elif node.op == "output":
                outputs = [number[result] for result in node.args[0]]
        return cls(len(given), constants, nodes, outputs)

    def __call__(self, *values: Any) -> list[Tensor]:
        if self._function is None:  # compiled on first use, since many graphs are never called
            exec(compile(self._source, "<a traced step>", "exec"), self._space)
            self._function = self._space["forward"]
        return self._function(*values)

    def __reduce__(self):
        return Graph, (self.inputs, self.constants, self.nodes, self.outputs)

    def check_closed(self) -> None:
        """Raise DamagedError if an operation is not allowed in a file or has arguments that it does not take."""
        for name, args, kwargs in self.nodes:
            if name not in _OPERATORS and not _is_known(name):
                raise DamagedError(f"{name} has no place in a file")
            _check_arguments(name, args, kwargs)

    # -- Python --------------------------------------------------------------------------------------------------

    def _written(self) -> str:
        first = self.inputs + len(self.constants)
        if not all(0 <= output < first + len(self.nodes) for output in self.outputs):
            raise DamagedError("a result that does not exist")
        for k, constant in enumerate(self.constants, self.inputs):
            self._space[f"v{k}"] = constant
        last: dict[int, int] = {}
        lines: list[str] = []
        for k, (name, args, kwargs) in enumerate(self.nodes):
            used: set[int] = set()
            operation = self._global(f"f_{name}", _function(name))
            words = [self._literal(value, first + k, used) for value in args]
            words += [f"{_word(name)}={self._literal(value, first + k, used)}" for name, value in kwargs.items()]
            lines.append(f"    v{first + k} = {operation}({', '.join(words)})")
            last |= dict.fromkeys((*used, first + k), k)
        kept = {*self.outputs, *range(self.inputs, first)}
        for value, k in sorted(last.items()):
            if value not in kept:  # frees its memory for the operations that follow
                lines[k] += f"; v{value} = None"
        head = f"def forward({', '.join(f'v{k}' for k in range(self.inputs))}):"
        return "\n".join([head, *lines, f"    return [{', '.join(f'v{k}' for k in self.outputs)}]"])

    def _literal(self, value: Any, number: int, used: set[int]) -> str:
        """Return Python for an argument of node `number`, and add the values that it reads to `used`."""
        if value is None or isinstance(value, bool | float):
            return repr(value)
        if isinstance(value, int):
            if abs(value) >= 1 << 63:
                raise DamagedError("a number that is too large")
            return repr(value)
        if isinstance(value, str):
            return self._global(f"w_{value}", value)
        if isinstance(value, list):
            return f"[{', '.join(self._literal(part, number, used) for part in value)}]"
        if not isinstance(value, dict) or len(value) != 1:
            raise DamagedError("an unknown kind of argument")
        ((kind, content),) = value.items()
        if kind == "value":
            if type(content) is not int or not 0 <= content < number:
                raise DamagedError("a value that does not exist yet")
            used.add(content)
            return f"v{content}"
        return self._global(f"{kind}_{content}", _plain(kind, content))

    def _global(self, key: str, value: Any) -> str:
        """Return the Python name of a global value; `key` identifies the value."""
        name = self._names.setdefault(key, f"k{len(self._names)}")
        self._space[name] = value
        return name


def _name(target: Any) -> str:
    """Return the name of an operation; UntraceableError if it has none."""
    for name, function in _OPERATORS.items():
        if target is function:
            return name
    if not isinstance(target, torch._ops.OpOverload):
        raise UntraceableError(f"its graph calls {target}, which cannot be kept")
    return str(target)


@functools.cache
def _function(name: str) -> Callable[..., Any]:
    """Return the operation with a name; DamagedError if there is none."""
    if name in _OPERATORS:
        return _OPERATORS[name]
    match = _OPERATION.fullmatch(name)
    if match is None:
        raise DamagedError("an operation without a name")
    found: Any = torch.ops
    for part in match.groups():
        found = getattr(found, part, None)
    if not isinstance(found, torch._ops.OpOverload):
        raise DamagedError(f"there is no operation {name}")
    return found


@functools.cache
def _is_known(name: str) -> bool:
    """Return whether an operation only computes numbers from numbers, and the same ones every time."""
    if not name.startswith("aten."):
        return False
    found: Any = _function(name)
    if found._schema.is_mutable or torch.Tag.nondeterministic_seeded in found.tags:
        return False
    return name in _ALSO or torch.Tag.core in found.tags or torch.Tag.pointwise in found.tags


@functools.cache
def _parameters(name: str) -> tuple[list[tuple[str, bool]], dict[str, tuple[str, bool]]]:
    """Return the type of each parameter of an operation, by position and by name, and whether it is required."""
    found: Any = _function(name)
    every = [
        (one.name, (str(one.type), not one.has_default_value()), one.kwarg_only) for one in found._schema.arguments
    ]
    return [kind for _, kind, alone in every if not alone], {word: kind for word, kind, _ in every}


def _check_arguments(name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    if name in _OPERATORS:
        is_right = len(args) == 2 and not kwargs and _is_value(args[0]) and type(args[1]) is int
        if not is_right:
            raise DamagedError(f"{name} of something else")
        return
    places, words = _parameters(name)
    if len(args) > len(places):
        raise DamagedError(f"{name} with too many arguments")
    given = set(list(words)[: len(args)])
    if given & set(kwargs) or not set(kwargs) <= set(words):
        raise DamagedError(f"{name} with an argument that it does not have")
    if any(needed and word not in given and word not in kwargs for word, (_, needed) in words.items()):
        raise DamagedError(f"{name} with too few arguments")
    for value, (kind, _) in (*zip(args, places, strict=False), *((kwargs[word], words[word]) for word in kwargs)):
        if not _fits(value, kind):
            raise DamagedError(f"{name} of something else")


def _is_value(value: Any) -> bool:
    return isinstance(value, dict) and "value" in value


def _fits(value: Any, kind: str) -> bool:
    """Return whether an argument fits a parameter of type `kind`, written as in the operation's schema."""
    if kind.startswith("Optional["):
        return value is None or _fits(value, kind[len("Optional[") : -1])
    if kind.startswith("List["):
        inner = kind[len("List[") : -1]
        return all(_fits(part, inner) for part in value) if isinstance(value, list) else _fits(value, inner)
    if kind == "Tensor":
        return _is_value(value) or type(value) in (int, float)  # a number is accepted for a tensor
    if kind in ("int", "number", "float", "bool"):
        return _is_value(value) or isinstance(value, dict) or type(value) in (int, float, bool)
    if kind == "str":
        return isinstance(value, str) and value in _WORDS
    return isinstance(value, dict)


def _plain(kind: str, content: Any) -> Any:
    """Return the dtype, layout, memory format or device with a name."""
    if isinstance(content, str):
        if kind in _KINDS and isinstance(found := getattr(torch, content, None), _KINDS[kind]):
            return found
        if kind == "device" and _DEVICE.fullmatch(content):
            try:
                return torch.device(content)
            except RuntimeError as error:
                raise DamagedError(f"there is no device {content}") from error
    raise DamagedError("an unknown kind of argument")


def _word(name: str) -> str:
    """Return the name of an argument if it is a valid name in Python; DamagedError otherwise."""
    if not re.fullmatch(r"[A-Za-z]\w{0,63}", name, re.ASCII):
        raise DamagedError("an argument without a name")
    return name
