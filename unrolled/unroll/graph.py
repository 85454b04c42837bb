"""A traced graph as data, and as the Python that it is run by: quick to call, and kept from one process to the next.

What is kept holds no code: numbered values, operations by their names out of a closed set, and plain arguments. The
Python is written here, from parts that were checked.
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

#: Values are numbered: the inputs first, then the constants, then what the nodes give.
Node = tuple[str, list[Any], dict[str, Any]]  # operation, arguments; a value is {"value": number}
_OPERATORS: dict[str, Callable[..., Any]] = {"getitem": operator.getitem, "mul": operator.mul}
#: What an argument may be beside numbers, and where it is found by its name.
_KINDS = {"dtype": torch.dtype, "layout": torch.layout, "memory_format": torch.memory_format}
_DEVICE = re.compile(r"[a-z]{1,16}(:\d{1,3})?", re.ASCII)
_OPERATION = re.compile(r"(\w{1,64})\.(\w{1,64})\.(\w{1,64})", re.ASCII)
#: Words that operations take, of `gelu`, `div` and their like: no name of a file is among them.
_WORDS = frozenset(["none", "tanh", "floor", "trunc", "mean", "sum", "constant", "reflect", "replicate", "circular"])
#: Operations of PyTorch that compute numbers of numbers, beside those that it calls so itself.
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
    """Kept data that is not what this program writes."""


class Graph:
    """`graph(rows, values...) -> [values...]`."""

    def __init__(self, inputs: int, constants: Sequence[Tensor], nodes: Sequence[Node], outputs: Sequence[int]) -> None:
        """DamagedError if the parts do not fit together."""
        self.inputs, self.constants, self.nodes, self.outputs = inputs, list(constants), list(nodes), list(outputs)
        self._space: dict[str, Any] = {"inf": math.inf, "nan": math.nan}
        self._names: dict[str, str] = {}
        self._source = self._written()
        self._function: Callable[..., list[Tensor]] | None = None

    @classmethod
    def of(cls, module: fx.GraphModule) -> Graph:
        """UntraceableError if it holds something that has no form here."""
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
        if self._function is None:  # many are not called in most processes
            exec(compile(self._source, "<a traced step>", "exec"), self._space)
            self._function = self._space["forward"]
        return self._function(*values)

    def __reduce__(self):
        return Graph, (self.inputs, self.constants, self.nodes, self.outputs)

    def check_closed(self) -> None:
        """DamagedError if it holds more than a file may, or an operation with other arguments than its own."""
        for name, args, kwargs in self.nodes:
            if name not in _OPERATORS and not _is_known(name):
                raise DamagedError(f"{name} has no place in a file")
            _check_arguments(name, args, kwargs)

    # -- Python --------------------------------------------------------------------------------------------------

    def _written(self) -> str:
        first = self.inputs + len(self.constants)
        if not all(0 <= output < first + len(self.nodes) for output in self.outputs):
            raise DamagedError("a result that is not there")
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
            if value not in kept:  # its memory is free for what comes after
                lines[k] += f"; v{value} = None"
        head = f"def forward({', '.join(f'v{k}' for k in range(self.inputs))}):"
        return "\n".join([head, *lines, f"    return [{', '.join(f'v{k}' for k in self.outputs)}]"])

    def _literal(self, value: Any, number: int, used: set[int]) -> str:
        """Python for an argument of the node of that number; `used` takes in the values that it reads."""
        if value is None or isinstance(value, bool | float):
            return repr(value)
        if isinstance(value, int):
            if abs(value) >= 1 << 63:
                raise DamagedError("a number beyond all sizes")
            return repr(value)
        if isinstance(value, str):
            return self._global(f"w_{value}", value)
        if isinstance(value, list):
            return f"[{', '.join(self._literal(part, number, used) for part in value)}]"
        if not isinstance(value, dict) or len(value) != 1:
            raise DamagedError("an argument of no kind")
        ((kind, content),) = value.items()
        if kind == "value":
            if type(content) is not int or not 0 <= content < number:
                raise DamagedError("a value that is not there yet")
            used.add(content)
            return f"v{content}"
        return self._global(f"{kind}_{content}", _plain(kind, content))

    def _global(self, key: str, value: Any) -> str:
        """The name of something that the Python reads, by what it is."""
        name = self._names.setdefault(key, f"k{len(self._names)}")
        self._space[name] = value
        return name


def _name(target: Any) -> str:
    """What an operation is called; UntraceableError if it is none that can be named."""
    for name, function in _OPERATORS.items():
        if target is function:
            return name
    if not isinstance(target, torch._ops.OpOverload):
        raise UntraceableError(f"its graph calls {target}, which cannot be kept")
    return str(target)


@functools.cache
def _function(name: str) -> Callable[..., Any]:
    """The operation of a name; DamagedError if there is none."""
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
    """Whether an operation does nothing but compute numbers of numbers, the same ones every time."""
    if not name.startswith("aten."):
        return False
    found: Any = _function(name)
    if found._schema.is_mutable or torch.Tag.nondeterministic_seeded in found.tags:
        return False
    return name in _ALSO or torch.Tag.core in found.tags or torch.Tag.pointwise in found.tags


@functools.cache
def _parameters(name: str) -> tuple[list[tuple[str, bool]], dict[str, tuple[str, bool]]]:
    """Types of an operation's parameters, by their place and by their name, and whether each must be given."""
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
    """Whether an argument may stand where an operation takes one of a type, as its schema calls it."""
    if kind.startswith("Optional["):
        return value is None or _fits(value, kind[len("Optional[") : -1])
    if kind.startswith("List["):
        inner = kind[len("List[") : -1]
        return all(_fits(part, inner) for part in value) if isinstance(value, list) else _fits(value, inner)
    if kind == "Tensor":
        return _is_value(value) or type(value) in (int, float)  # a number may stand for a tensor
    if kind in ("int", "number", "float", "bool"):
        return _is_value(value) or isinstance(value, dict) or type(value) in (int, float, bool)
    if kind == "str":
        return isinstance(value, str) and value in _WORDS
    return isinstance(value, dict)


def _plain(kind: str, content: Any) -> Any:
    """What is no number: a type, a layout, a device; by its name."""
    if isinstance(content, str):
        if kind in _KINDS and isinstance(found := getattr(torch, content, None), _KINDS[kind]):
            return found
        if kind == "device" and _DEVICE.fullmatch(content):
            try:
                return torch.device(content)
            except RuntimeError as error:
                raise DamagedError(f"there is no device {content}") from error
    raise DamagedError("an argument of no kind")


def _word(name: str) -> str:
    """The name of an argument, as it may stand in Python."""
    if not re.fullmatch(r"[A-Za-z]\w{0,63}", name, re.ASCII):
        raise DamagedError("an argument without a name")
    return name
