"""Traces one step of a cell, and the derivative of a step, to a graph of ATen operations.

While a step is traced, its batch has `ROWS` rows, a number that divides no other size. Every multiple of it in the
graph therefore stands for the batch size. A part of the graph that treats its rows one by one can then run over any
number of rows: over B for one step, or over T·B for all steps at once.
"""

from __future__ import annotations

import logging
import operator
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
import torch.fx.traceback
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from unrolled.cells import Cell, State
from unrolled.errors import UntraceableError
from unrolled.unroll.adapt import step
from unrolled.unroll.fallback import in_new_thread
from unrolled.unroll.observe import Observer, Seen, place
from unrolled.unroll.operations import decompositions
from unrolled.unroll.signature import describe_module
from unrolled.unroll.trial import trial_copy
from unrolled.unroll.versions import settle_fake_tensors
from unrolled.unroll.views import shorten_views
from unrolled.unroll.watch import SeenError
from unrolled.unroll.words import ROWS, operation, reason, user_frame

aten = torch.ops.aten

#: Operations that the engine does not know are traced as the simpler operations that they consist of.
_DECOMPOSITIONS = decompositions()
settle_fake_tensors()


def trace(function: Callable[..., Sequence[Tensor]], examples: Sequence[Tensor]) -> fx.GraphModule:
    """Return `function(*tensors)` as a graph. `examples` give the shapes and dtypes; their values are not read."""
    return in_new_thread(_trace, function, examples)


def _trace(
    function: Callable[..., Sequence[Tensor]],
    examples: Sequence[Tensor],
    watching: AbstractContextManager | None = None,
) -> fx.GraphModule:
    with _silence(), FakeTensorMode(), fx.traceback.preserve_node_meta():
        fakes = [torch.empty(example.shape, dtype=example.dtype, device=example.device) for example in examples]
        try:
            # Functionalise, because some of PyTorch's derivatives change new values in place.
            pure = torch.func.functionalize(lambda *tensors: list(function(*tensors)))
            with watching or nullcontext():
                graph = make_fx(pure, decomposition_table=_DECOMPOSITIONS)(*fakes)
            if any(map(_changes, graph.graph.nodes)):  # within a decomposed operation, such as torch.lstm_cell
                again = torch.func.functionalize(fx.Interpreter(graph).run)
                graph = make_fx(again, decomposition_table=_DECOMPOSITIONS)(*fakes)
        except UntraceableError:
            raise
        except Exception as error:  # anything that a user's cell raises on tensors without values
            raise UntraceableError(reason(error)) from error
    for node in graph.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            if torch.Tag.nondeterministic_seeded in node.target.tags:
                raise operation("draws random numbers", node, "draw them outside, and pass them with the input")
            if node.target is aten.cumprod.default:  # its derivative in PyTorch loops over the rows of the trace
                raise operation("takes a cumulative product", node, "use exp of a cumulative sum of logarithms")
            if node.target is aten.copy.default:
                raise operation(
                    "writes into a slice of a tensor, or changes it in place",
                    node,
                    "use torch.cat of the parts, or torch.where",
                )
            if _changes(node):  # one of the function's inputs
                raise operation("changes a tensor in place", node, "create a new tensor instead")
    shorten_views(graph)
    _separate_biases(graph)
    return graph


@contextmanager
def _silence() -> Iterator[None]:
    """Keep PyTorch from logging tracebacks of errors in this thread, which this module turns into messages."""
    here, logger = threading.get_ident(), logging.getLogger("torch._subclasses.fake_tensor")

    def elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != here

    logger.addFilter(elsewhere)
    try:
        yield
    finally:
        logger.removeFilter(elsewhere)


def _separate_biases(graph: fx.GraphModule) -> None:
    """Write a product with a bias as a product and a sum, unless the bias is one vector for all rows."""
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
    """Return whether the node changes one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def example(dtype: torch.dtype, device: torch.device, *size: int) -> Tensor:
    """Return a tensor of the given shape for `trace`. It has one element in memory."""
    return torch.empty((), dtype=dtype, device=device).expand(size)


def trace_step(
    cell: Cell, dtype: torch.dtype, device: torch.device, seen: Seen | None = None
) -> tuple[fx.GraphModule, list[str]]:
    """Return the step as a graph `(parameters..., x, states...) -> (output, states...)`, and the parameters' names.

    Buffers count as parameters. `seen`, if given, records what else the step reads.
    """
    named = describe_module(cell).tensors
    names = list(named)
    # Trace a copy of the cell: tracing replaces its parameters, and other threads must not see that.
    copied, uncopied = trial_copy(cell, {id(tensor): tensor for tensor in named.values()})
    whole = _StepModule(copied)

    def run(*tensors: Tensor) -> Sequence[Tensor]:
        with _RefuseDetaching():
            values = {f"cell.{name}": tensor for name, tensor in zip(names, tensors, strict=False)}
            x, *state = tensors[len(names) :]
            output, new = torch.func.functional_call(whole, values, (x, tuple(state)))
            return output, *new

    sizes = (cell.input_size, *cell.state_sizes)
    parameters = list(named.values())
    if any(tensor.layout is not torch.strided for tensor in parameters):
        raise UntraceableError("it holds a sparse tensor; use a dense one")
    if seen is None:
        return trace(run, [*parameters, *_rows(ROWS, sizes, dtype, device)]), names
    observer = Observer(uncopied)
    try:
        in_new_thread(_try, run, [*parameters, *_rows(2, sizes, dtype, device)], observer)
        seen.add(observer, describe_module(cell).modules, describe_module(copied).modules)
        graph = in_new_thread(_trace, run, [*parameters, *_rows(ROWS, sizes, dtype, device)], observer)
        seen.add(observer, describe_module(cell).modules, describe_module(copied).modules)
    except UntraceableError as error:
        raise SeenError(str(error), observer.watch(describe_module(cell).modules)) from error
    return graph, names


def _rows(rows: int, sizes: Sequence[int], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    return [example(dtype, device, rows, size) for size in sizes]


def _try(run: Callable[..., Sequence[Tensor]], examples: Sequence[Tensor], observer: Observer) -> None:
    """Run a step once on tensors without values, under an observer."""
    with _silence(), FakeTensorMode():
        fakes = [torch.empty(example.shape, dtype=example.dtype, device=example.device) for example in examples]
        try:
            with observer:
                run(*fakes)
        except UntraceableError:
            raise
        except Exception as error:  # anything that a user's cell raises on tensors without values
            observer.settled()
            raise UntraceableError(reason(error)) from error
    observer.settled()


class _RefuseDetaching(TorchFunctionMode):
    """Refuses operations that detach values from autograd or query it, because a traced derivative ignores them."""

    _DETACHING = (Tensor.detach, Tensor.detach_, torch.detach, torch._C._set_grad_enabled)
    _QUERIES = tuple(getattr(Tensor, name) for name in ("requires_grad", "grad", "grad_fn", "is_leaf", "_version"))

    def __torch_function__(self, func, types, args=(), kwargs=None):
        owner = getattr(func, "__self__", None)
        if func in self._DETACHING or owner is Tensor.data:
            raise UntraceableError(f"it takes values out of autograd{_at_user()}, by detach or no_grad")
        if any(owner is each for each in self._QUERIES) and not _called_by_package():
            raise UntraceableError(f"it reads a tensor's autograd attributes{_at_user()}")
        at = user_frame()
        if at is not None:  # the operations of this call belong to that line
            fx.traceback.set_stack_trace([f'  File "{at[0]}", line {at[1]}, in step\n'])
        return func(*args, **(kwargs or {}))


def _called_by_package() -> bool:
    """Return whether this package has called PyTorch, as when a step unrolls another cell."""
    return (sys._getframe(2).f_globals.get("__name__") or "").partition(".")[0] == "unrolled"


def _at_user() -> str:
    at = user_frame()
    return f" at {place(*at)}" if at else ""


class _StepModule(nn.Module):
    """A module that runs one step of a cell and returns its output and state."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        before = describe_module(self.cell).tensors
        made = step(self.cell, x, state)
        after = describe_module(self.cell).tensors
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) is not after.get(name):
                raise UntraceableError(f"it writes its buffer or parameter `{name}`; return it as a state instead")
        return made


def trace_derivative(step: fx.GraphModule, wanted: Sequence[bool]) -> fx.GraphModule:
    """Return a step's graph `(inputs..., gradients of outputs...) -> outputs..., gradients of wanted inputs...`."""
    inputs = [node.meta["val"] for node in placeholders(step)]
    outputs = [node.meta["val"] for node in results(step)]

    def both(*tensors: Tensor) -> Sequence[Tensor]:
        given, gradients = list(tensors[: len(inputs)]), list(tensors[len(inputs) :])
        chosen = [k for k, want in enumerate(wanted) if want]

        def forward(*variables: Tensor) -> tuple[Tensor, ...]:
            values = list(given)
            for k, variable in zip(chosen, variables, strict=True):
                values[k] = variable
            return tuple(fx.Interpreter(step).run(*values))  # the interpreter passes on the line of each operation

        values, vjp = torch.func.vjp(forward, *(given[k] for k in chosen))
        return [*values, *vjp(tuple(gradients))]

    shapes = [example(fake.dtype, fake.device, *fake.shape) for fake in [*inputs, *outputs]]
    return trace(both, shapes)


def placeholders(graph: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


def results(graph: fx.GraphModule) -> list[fx.Node]:
    """Return the nodes that the graph returns."""
    output = next(node for node in graph.graph.nodes if node.op == "output")
    return list(output.args[0])


def has_rows(node: fx.Node) -> bool:
    """Return whether the node's value is a tensor whose first axis is the batch."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == ROWS


def extract(
    source: fx.GraphModule, inputs: Sequence[fx.Node], outputs: Sequence[fx.Node], *, scaled: bool = True
) -> fx.GraphModule:
    """Return the part of `source` from `inputs` to `outputs`, as a graph `(rows, inputs...) -> outputs`.

    `rows` is the number of rows in the call. With `scaled=False` the number of rows stays that of the trace, and the
    graph is `(inputs...) -> outputs`.
    """
    graph = fx.Graph()
    rows = graph.placeholder("rows") if scaled else None
    copies: dict[fx.Node, fx.Node] = {}
    for number, node in enumerate(inputs):
        # A value may be passed twice, as when a step returns a state unchanged. It is read from its first place.
        place = graph.placeholder(node.name if node not in copies else f"{node.name}_again_{number}")
        place.meta = dict(node.meta)
        copies.setdefault(node, place)
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


def transpose_products(graph: fx.GraphModule) -> None:
    """Write the transpose of a product as the product of the transposes, which needs no transpose of the result."""
    for node in list(graph.graph.nodes):
        if node.target is not aten.permute.default or list(node.args[1]) != [1, 0]:
            continue
        (source,) = node.all_input_nodes
        if source.target is aten.mm.default and len(source.users) == 1:
            with graph.graph.inserting_before(node):
                left, right = (_transposed(graph.graph, argument) for argument in source.args)
                product = graph.graph.call_function(aten.mm.default, (right, left))
            product.meta = dict(node.meta)
            node.replace_all_uses_with(product)
    graph.graph.eliminate_dead_code()


def _transposed(graph: fx.Graph, node: fx.Node) -> fx.Node:
    if node.target is aten.permute.default and list(node.args[1]) == [1, 0]:
        return node.args[0]
    transposed = graph.call_function(aten.permute.default, (node, [1, 0]))
    transposed.meta = {"val": node.meta["val"].t()}
    return transposed


def _scaled(graph: fx.Graph, rows: fx.Node, user: fx.Node, value):
    """Replace the number of rows of the trace with that of the call."""
    if type(value) is not int or value == 0 or value % ROWS:
        return value
    if value == ROWS:
        return rows
    with graph.inserting_before(user):
        return graph.call_function(operator.mul, (rows, value // ROWS))


def ancestors(nodes: Sequence[fx.Node], stop: set[fx.Node]) -> set[fx.Node]:
    """Return `nodes` and everything that they depend on, up to but excluding `stop`."""
    found: set[fx.Node] = set()
    left = [node for node in nodes if node not in stop]
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left += [argument for argument in node.all_input_nodes if argument not in stop]
    return found
