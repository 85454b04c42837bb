"""From a cell to a graph: one step, and the derivative of a step, as ATen operations.

While a step is traced its batch has `ROWS` rows, a number that divides no other size; wherever a multiple of it
stands in the graph, the batch is meant. A piece of the graph that treats its rows one by one can then be run over any
number of them: over B for one step, or over T·B for all steps at once.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
import torch.fx.traceback
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from unrolled.cells import Cell, State
from unrolled.errors import UntraceableError
from unrolled.unroll.adapt import step, title
from unrolled.unroll.operations import decompositions
from unrolled.unroll.signature import describe
from unrolled.unroll.views import shorten_views

aten = torch.ops.aten
ROWS = 1_000_003  # a prime

#: Operations that the engine does not know are traced as the simpler ones they are made of.
_DECOMPOSITIONS = decompositions()


def trace(function: Callable[..., Sequence[Tensor]], examples: Sequence[Tensor], what: str) -> fx.GraphModule:
    """`function(*tensors)` as a graph; `examples` give shapes and dtypes, their values are not looked at.

    It is traced in a thread of its own: what a person has switched on in theirs, such as hooks on saved tensors, a mode
    that watches operations, or no autograd within an operator, has no business in it.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_trace, function, examples, what).result()


def _trace(function: Callable[..., Sequence[Tensor]], examples: Sequence[Tensor], what: str) -> fx.GraphModule:
    with FakeTensorMode(), fx.traceback.preserve_node_meta():
        fakes = [torch.empty(example.shape, dtype=example.dtype, device=example.device) for example in examples]
        try:
            # Functionalised: PyTorch's own derivatives change fresh values in place here and there.
            pure = torch.func.functionalize(lambda *tensors: list(function(*tensors)))
            graph = make_fx(pure, decomposition_table=_DECOMPOSITIONS, record_stack_traces=True)(*fakes)
            if any(map(_changes, graph.graph.nodes)):  # within an operation that was taken apart, as in torch.lstm_cell
                again = torch.func.functionalize(fx.Interpreter(graph).run)
                graph = make_fx(again, decomposition_table=_DECOMPOSITIONS, record_stack_traces=True)(*fakes)
        except Exception as error:  # whatever a stranger's cell raises when it meets tensors without values
            why = str(error).splitlines()[0]
            if "Please convert all Tensors to FakeTensors" in why:
                why = "it reads a tensor that is neither a parameter nor a buffer: register_buffer makes it one"
            raise UntraceableError(f"{what} cannot be traced: {why}") from error
    for node in graph.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            if torch.Tag.nondeterministic_seeded in node.target.tags:
                raise UntraceableError(f"{what} draws random numbers ({node.target})")
            if node.target is aten.cumprod.default:  # PyTorch's derivative of it loops over the rows of the trace
                raise UntraceableError(f"{what} has a cumulative product")
            if _changes(node):
                raise UntraceableError(f"{what} changes a tensor in place ({node.target})")
    shorten_views(graph)
    _take_biases_out(graph)
    return graph


def _take_biases_out(graph: fx.GraphModule) -> None:
    """Leave a product only a bias that is one vector for all rows; any other is added behind it."""
    for node in list(graph.graph.nodes):
        if node.target is not aten.addmm.default:
            continue
        bias, left, right = node.args
        value = node.meta["val"]
        if not node.kwargs and bias.meta["val"].shape == value.shape[1:]:
            continue
        scales = [node.kwargs.get(name, 1) for name in ("beta", "alpha")]
        with graph.graph.inserting_before(node):
            product = graph.graph.call_function(aten.mm.default, (left, right))
            product.meta = dict(node.meta)
            scaled = [bias, product]
            for k, scale in enumerate(scales):
                if scale != 1:
                    meta = scaled[k].meta
                    scaled[k] = graph.graph.call_function(aten.mul.Tensor, (scaled[k], scale))
                    scaled[k].meta = dict(meta)
            total = graph.graph.call_function(aten.add.Tensor, tuple(scaled))
        total.meta = dict(node.meta)
        node.replace_all_uses_with(total)
        graph.graph.erase_node(node)


def _changes(node: fx.Node) -> bool:
    """Whether the node changes one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def example(dtype: torch.dtype, device: torch.device, *size: int) -> Tensor:
    """A tensor of a shape, for `trace`, that takes no memory."""
    return torch.empty((), dtype=dtype, device=device).expand(size)


def trace_step(cell: Cell, dtype: torch.dtype, device: torch.device) -> tuple[fx.GraphModule, list[str]]:
    """The step as a graph `(parameters..., x, states...) -> (output, states...)`, and the names of the parameters.

    Buffers count as parameters.
    """
    named = describe(cell)[1]
    names = list(named)
    # A copy with the same tensors: while it is traced its parameters are others, which another thread must not meet.
    whole = _Whole(copy.deepcopy(cell, {id(tensor): tensor for tensor in named.values()}))

    def run(*tensors: Tensor) -> Sequence[Tensor]:
        with _NothingDetached(title(cell)):
            return run_freely(*tensors)

    def run_freely(*tensors: Tensor) -> Sequence[Tensor]:
        values = {f"cell.{name}": tensor for name, tensor in zip(names, tensors, strict=False)}
        x, *state = tensors[len(names) :]
        output, new = torch.func.functional_call(whole, values, (x, tuple(state)))
        return output, *new

    rows = [example(dtype, device, ROWS, size) for size in (cell.input_size, *cell.state_sizes)]
    return trace(run, [*named.values(), *rows], title(cell)), names


class _NothingDetached(TorchFunctionMode):
    """Refuses what takes values out of autograd: a traced derivative would not know of it."""

    _DETACHING = (Tensor.detach, Tensor.detach_, torch.detach, torch._C._set_grad_enabled)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self._DETACHING or getattr(func, "__self__", None) is Tensor.data:
            raise UntraceableError(f"{self.name} takes values out of autograd, by detach or no_grad")
        return func(*args, **(kwargs or {}))


class _Whole(nn.Module):
    """A step with its output, as one call."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return step(self.cell, x, state)


def trace_derivative(step: fx.GraphModule, wanted: Sequence[bool], what: str) -> fx.GraphModule:
    """`(inputs..., gradients of outputs...) -> outputs..., gradients of the wanted inputs...` of a traced step."""
    inputs = [node.meta["val"] for node in placeholders(step)]
    outputs = [node.meta["val"] for node in results(step)]

    def both(*tensors: Tensor) -> Sequence[Tensor]:
        given, gradients = list(tensors[: len(inputs)]), list(tensors[len(inputs) :])
        chosen = [k for k, want in enumerate(wanted) if want]

        def forward(*variables: Tensor) -> tuple[Tensor, ...]:
            values = list(given)
            for k, variable in zip(chosen, variables, strict=True):
                values[k] = variable
            return tuple(fx.Interpreter(step).run(*values))  # tells each operation where the one behind it stood

        values, vjp = torch.func.vjp(forward, *(given[k] for k in chosen))
        return [*values, *vjp(tuple(gradients))]

    shapes = [example(fake.dtype, fake.device, *fake.shape) for fake in [*inputs, *outputs]]
    return trace(both, shapes, what)


def placeholders(graph: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


def results(graph: fx.GraphModule) -> list[fx.Node]:
    """The nodes that the graph returns."""
    output = next(node for node in graph.graph.nodes if node.op == "output")
    return list(output.args[0])


def has_rows(node: fx.Node) -> bool:
    """Whether the node's value is a tensor whose first axis is the batch."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == ROWS


def extract(
    source: fx.GraphModule, inputs: Sequence[fx.Node], outputs: Sequence[fx.Node], *, scaled: bool = True
) -> fx.GraphModule:
    """The part of `source` that leads from `inputs` to `outputs`, as a graph `(rows, inputs...) -> outputs`.

    `rows` is the number of rows that the batch has in that call. With `scaled=False` it stays that of the trace, and
    the graph is `(inputs...) -> outputs`.
    """
    graph = fx.Graph()
    rows = graph.placeholder("rows") if scaled else None
    copies: dict[fx.Node, fx.Node] = {}
    for node in inputs:
        copies[node] = graph.placeholder(node.name)
        copies[node].meta = dict(node.meta)
    needed = ancestors(outputs, set(inputs))
    for node in source.graph.nodes:
        if node in copies or node not in needed:
            continue
        copy = graph.node_copy(node, lambda argument: copies[argument])
        if rows is not None:
            copy.args = fx.node.map_aggregate(copy.args, partial(_scaled, graph, rows, copy))
            copy.kwargs = fx.node.map_aggregate(copy.kwargs, partial(_scaled, graph, rows, copy))
        copies[node] = copy
    graph.output([copies[node] for node in outputs])
    return fx.GraphModule(source, graph)


def turn_products(graph: fx.GraphModule) -> None:
    """Write the transpose of a product as the product of the transposes, so that it comes out in the right order."""
    for node in list(graph.graph.nodes):
        if node.target is not aten.permute.default or list(node.args[1]) != [1, 0]:
            continue
        (source,) = node.all_input_nodes
        if source.target is aten.mm.default and len(source.users) == 1:
            with graph.graph.inserting_before(node):
                left, right = (_turned(graph.graph, argument) for argument in source.args)
                product = graph.graph.call_function(aten.mm.default, (right, left))
            product.meta = dict(node.meta)
            node.replace_all_uses_with(product)
    graph.graph.eliminate_dead_code()


def _turned(graph: fx.Graph, node: fx.Node) -> fx.Node:
    if node.target is aten.permute.default and list(node.args[1]) == [1, 0]:
        return node.args[0]
    turned = graph.call_function(aten.permute.default, (node, [1, 0]))
    turned.meta = {"val": node.meta["val"].t()}
    return turned


def _scaled(graph: fx.Graph, rows: fx.Node, user: fx.Node, value):
    """Put the rows of the call in the place of the rows of the trace."""
    if type(value) is not int or value == 0 or value % ROWS:
        return value
    if value == ROWS:
        return rows
    with graph.inserting_before(user):
        return graph.call_function(operator.mul, (rows, value // ROWS))


def ancestors(nodes: Sequence[fx.Node], stop: set[fx.Node]) -> set[fx.Node]:
    """All that `nodes` are computed from, themselves included, up to and without `stop`."""
    found: set[fx.Node] = set()
    left = [node for node in nodes if node not in stop]
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left += [argument for argument in node.all_input_nodes if argument not in stop]
    return found
