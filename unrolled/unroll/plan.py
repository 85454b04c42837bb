"""Turns a traced step into a plan: what runs once, what runs for all steps together, and what runs step by step.

The step's graph is divided by what each part depends on:

    prepare    only parameters: runs once a call; computes what the core reads, then what only `hoist` reads
    hoist      the input, but no state: its products; runs once, for the T·B rows of all steps together
    forward    the rest, the core: runs step by step
    backward   the derivative of `forward`: runs step by step, from the last to the first
    sink       an output that is not a state, from the states of all steps: runs once, for the T·B rows together
    collect    the final reduction over rows, for gradients that no step needs: runs once, for the T·B rows together

Autograd differentiates `prepare`, `hoist` and `sink`. `forward` and `backward` run without it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from unrolled.cells import Cell
from unrolled.errors import UntraceableError
from unrolled.unroll.adapt import title
from unrolled.unroll.graph import Graph
from unrolled.unroll.observe import Seen
from unrolled.unroll.operations import CHEAP, PRODUCTS
from unrolled.unroll.schedule import Schedule
from unrolled.unroll.signature import planning
from unrolled.unroll.trace import (
    ROWS,
    ancestors,
    aten,
    extract,
    has_rows,
    placeholders,
    results,
    trace,
    trace_derivative,
    trace_step,
    transpose_products,
)
from unrolled.unroll.words import operation, reason

_VIEWS = (aten.t.default, aten.transpose.int, aten.permute.default)


@dataclass(frozen=True)
class Derivative:
    """The core's derivative, for one choice of inputs that want a gradient.

    The first argument of every graph is the number of rows. `inputs` are the prepared, hoisted and state values:

    `constants(prepared...)`: the values that depend only on prepared values
    `forward(inputs..., constants...) -> states..., saved...`
    `backward(inputs..., constants..., saved..., gradients of states...) -> per_step..., deferred...`
    `collect(prepared..., constants..., row values...) -> collected...`, over the rows of all steps

    `per_step` and `collected` are the numbers of the inputs whose gradients those are. `row_values` is the source of
    each row value: ("input", k), ("saved", k) or ("deferred", k).
    """

    wanted: tuple[bool, ...]
    constants: fx.GraphModule
    constant_count: int
    forward: fx.GraphModule
    backward: fx.GraphModule
    collect: fx.GraphModule
    saved: int
    saved_columns: tuple[int, ...]
    deferred: int
    per_step: tuple[int, ...]
    collected: tuple[int, ...]
    row_values: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Gradients:
    """How the gradients of parameters and input are computed, for one choice of those that want one.

    `finish(rows, parameters..., input, prepared..., constants..., row values..., gradients of hoisted values...)` runs
    over the rows of all steps. It returns the gradients of the parameters and the input whose numbers are `chosen`.
    `traced` is the same graph as it was traced, for the number of rows of the trace.
    """

    derivative: Derivative
    traced: fx.GraphModule | None
    finish: fx.GraphModule | None
    chosen: tuple[int, ...]


class Plan:
    """The plan of one cell at one dtype and device."""

    def __init__(self, cell: Cell, dtype: torch.dtype, device: torch.device, seen: Seen | None = None) -> None:
        """Trace the cell and divide its graph. `seen`, if given, records what the step reads."""
        self.name = title(cell)
        graph, self.parameter_names = trace_step(cell, dtype, device, seen)
        nodes = placeholders(graph)
        count = len(self.parameter_names)
        parameters, x, states = nodes[:count], nodes[count], nodes[count + 1 :]
        output, *new_states = results(graph)
        of_state, of_input = descendants(graph, states), descendants(graph, [x])
        needed = ancestors(new_states, set(nodes)) | set(new_states)
        # Products with the input are faster for all steps at once. What depends on them is as cheap in the loop.
        products = [node for node in needed if node in of_input and node not in of_state and node.target in PRODUCTS]
        before = ancestors(products, set(nodes)) | set(nodes)
        of_state |= {node for node in of_input if node not in before and not _part_of(node, before)}
        inside = [node for node in graph.graph.nodes if node in of_state and node in needed]
        # The values that the core reads. A new state that does not depend on the old one passes through the core.
        read = list(dict.fromkeys([a for node in inside for a in node.all_input_nodes] + new_states))
        outside = [node for node in read if node not in of_state]
        hoisted = [node for node in outside if node in of_input or has_rows(node)]
        prepared = [node for node in outside if node not in hoisted]
        above = ancestors(hoisted, {x})
        of_rows = [node for node in graph.graph.nodes if node in above and (node in of_input or has_rows(node))]
        others = [a for node in of_rows for a in node.all_input_nodes if a not in of_input and not has_rows(a)]
        others = [node for node in dict.fromkeys(others) if node not in prepared]
        # No gradient passes through a value that is not real, such as a mask.
        reaching = ancestors(new_states, {node for node in graph.graph.nodes if not _is_real(node)})
        self.reaching = tuple(node in reaching for node in (*parameters, x))
        self.prepare = extract(graph, parameters, [*prepared, *others])
        self.hoist = extract(graph, [*prepared, *others, x], hoisted)
        self.core = extract(graph, [*prepared, *hoisted, *states], new_states)
        #: The number of prepared values, hoisted values and states that the core reads.
        self.prepared, self.hoisted, self.states = len(prepared), len(hoisted), len(states)
        self._core_of_rows = extract(graph, [*prepared, *hoisted, *states], new_states, scaled=False)
        #: The parameters as they were traced, without values.
        self.parameters = [node.meta["val"] for node in parameters]
        self.state_sizes = tuple(node.meta["val"].shape[1] for node in states)
        self._input = x.meta["val"]
        self._derivatives: dict[tuple[bool, ...], Derivative] = {}
        self._gradients: dict[tuple[bool, ...], Gradients] = {}
        _check_rows(self.hoist)
        #: The states that are read outside the loop at every step.
        self.visible = tuple(k for k, node in enumerate(new_states) if node is output)[:1]
        self.sink: fx.GraphModule | None = None
        if not self.visible:
            self.sink = extract(graph, [*parameters, x, *states, *new_states], [output])
            _check_rows(self.sink)
            read = placeholders(self.sink)[2 + count :]
            users = [[read[k], read[len(states) + k]] for k in range(len(states))]
            self.visible = tuple(k for k, nodes in enumerate(users) if any(node.users for node in nodes))
        self.schedule = Schedule(
            name=self.name,
            parameter_names=tuple(self.parameter_names),
            state_sizes=self.state_sizes,
            reaching=self.reaching,
            prepared=self.prepared,
            hoisted=self.hoisted,
            hoisted_sizes=self._hoisted_sizes(),
            visible=self.visible,
            prepare=Graph.of(self.prepare),
            hoist=Graph.of(self.hoist),
            core=Graph.of(self.core),
            sink=None if self.sink is None else Graph.of(self.sink),
        )

    def _hoisted_sizes(self) -> tuple[int, ...]:
        """Return the columns of each hoisted value, or () if there is no product for equal inputs to share."""
        values = [node.meta["val"] for node in results(self.hoist)]
        multiplied = any(node.target in PRODUCTS for node in self.hoist.graph.nodes)
        return tuple(value.shape[1] for value in values) if multiplied and all(v.dim() == 2 for v in values) else ()

    def gradients(self, wanted: tuple[bool, ...]) -> Gradients:
        """Return the gradients for `wanted`, which has a flag for each parameter and one for the input."""
        wanted = tuple(want and reaching for want, reaching in zip(wanted, self.reaching, strict=True))
        if wanted not in self._gradients:
            with planning:
                if wanted not in self._gradients:
                    self._gradients[wanted] = self._finish(wanted)
        return self._gradients[wanted]

    def _finish(self, wanted: tuple[bool, ...]) -> Gradients:
        outside = [*results(self.prepare)[: self.prepared], *results(self.hoist)]
        of_prepared = _reached(self.prepare, wanted[:-1])
        of_core = (*of_prepared[: self.prepared], *_reached(self.hoist, (*of_prepared, wanted[-1])))
        derivative = self.derivative((*of_core, *(True for _ in range(self.states))))
        count, inputs = len(wanted), len(wanted) + self.prepared + derivative.constant_count
        chosen = [k for k, want in enumerate(wanted) if want]
        returned = [k for k, want in enumerate(of_core) if want]

        def finish(*tensors: Tensor) -> Sequence[Tensor]:
            given, rest = list(tensors[:count]), tensors[inputs:]
            collected = derivative.collect(ROWS, *tensors[count:inputs], *rest[: len(derivative.row_values)])
            of_outside = dict(zip(derivative.collected, collected, strict=True))
            of_hoisted = [k for k in derivative.per_step if k < len(of_core)]
            of_outside |= dict(zip(of_hoisted, rest[len(derivative.row_values) :], strict=True))

            def before(*variables: Tensor) -> tuple[Tensor, ...]:
                values = list(given)
                for k, variable in zip(chosen, variables, strict=True):
                    values[k] = variable
                prepared = self.prepare(ROWS, *values[:-1])
                made = [*prepared[: self.prepared], *self.hoist(ROWS, *prepared, values[-1])]
                return tuple(made[k] for k in returned)

            _, vjp = torch.func.vjp(before, *(given[k] for k in chosen))
            return vjp(tuple(of_outside[k] for k in returned))

        of_hoisted = [outside[k].meta["val"] for k in derivative.per_step if k < len(of_core)]
        constants = [node.meta["val"] for node in results(derivative.constants)]
        prepared = [node.meta["val"] for node in outside[: self.prepared]]
        deferred_inputs = [
            node.meta["val"] for node in placeholders(derivative.collect)[1 + len(prepared) + len(constants) :]
        ]
        if not chosen:
            return Gradients(derivative, None, None, ())
        graph = trace(finish, [*self.parameters, self._input, *prepared, *constants, *deferred_inputs, *of_hoisted])
        transpose_products(graph)
        return Gradients(derivative, graph, extract(graph, placeholders(graph), results(graph)), tuple(chosen))

    def derivative(self, wanted: tuple[bool, ...]) -> Derivative:
        """Return the core's derivative for `wanted`, which has a flag for each prepared, hoisted and state input."""
        if wanted not in self._derivatives:
            self._derivatives[wanted] = self._differentiate(wanted)
        return self._derivatives[wanted]

    def _differentiate(self, wanted: tuple[bool, ...]) -> Derivative:
        joint = trace_derivative(self._core_of_rows, wanted)
        nodes = placeholders(joint)
        inputs, incoming = nodes[: len(wanted)], nodes[len(wanted) :]
        prepared = inputs[: self.prepared]
        new_states, gradients = results(joint)[: self.states], results(joint)[self.states :]
        gradient_of = dict(zip([k for k, want in enumerate(wanted) if want], gradients, strict=True))

        of_rows = descendants(joint, [*inputs[self.prepared :], *incoming])
        of_incoming = descendants(joint, incoming)
        computed = [node for node in joint.graph.nodes if node.op in ("call_function", "get_attr")]
        fixed = {node for node in computed if node not in of_rows and not has_rows(node)}

        per_step = [k for k in gradient_of if k >= self.prepared]
        in_step = ancestors([gradient_of[k] for k in per_step], set(nodes))
        collected: list[int] = []
        summed: list[int] = []
        deferred_inputs: list[fx.Node] = []
        for k in gradient_of:
            if k < self.prepared:
                needs = _deferred_inputs(gradient_of[k], in_step, of_incoming)
                whole = all(has_rows(node) or node in fixed or node in prepared for node in needs)
                (collected if needs and whole else summed).append(k)
                deferred_inputs += needs if needs and whole else []
        deferred_inputs = [
            node for node in dict.fromkeys(deferred_inputs) if node not in fixed and node not in prepared
        ]
        deferred = [node for node in deferred_inputs if node in of_incoming]

        if summed:
            users = [user for k in summed for user in placeholders(self._core_of_rows)[k].users]
            raise operation(
                "uses a parameter in a way whose gradient must be summed step by step",
                users[0] if users else joint.graph.output_node(),
                "use a product [B, features] @ [features, features], or a product with a vector",
            )
        backward_results = [*(gradient_of[k] for k in per_step), *deferred]
        backward_nodes = ancestors(backward_results, set(nodes)) & of_incoming
        read = [*_arguments(backward_nodes, joint), *deferred_inputs, *backward_results]
        saved = [node for node in dict.fromkeys(read) if node in computed and node not in of_incoming | fixed]
        saved = _expensive(saved, {*inputs, *fixed}, deferred_inputs)
        if any(not isinstance(node.meta["val"], torch.Tensor) for node in saved):
            raise operation("uses an operation whose derivative reads several of its results at once", saved[0])
        constants = [node for node in computed if node in fixed and isinstance(node.meta.get("val"), torch.Tensor)]

        places = {node: ("input", k) for k, node in enumerate(inputs)}
        places |= {node: ("saved", k) for k, node in enumerate(saved)}
        places |= {node: ("deferred", k) for k, node in enumerate(deferred)}
        return Derivative(
            wanted=wanted,
            constant_count=len(constants),
            constants=extract(joint, prepared, constants),
            forward=extract(joint, [*inputs, *constants], [*new_states, *saved]),
            backward=extract(joint, [*inputs, *constants, *saved, *incoming], backward_results),
            collect=extract(joint, [*prepared, *constants, *deferred_inputs], [gradient_of[k] for k in collected]),
            saved=len(saved),
            saved_columns=tuple(node.meta["val"].numel() // ROWS for node in saved),
            deferred=len(deferred),
            per_step=tuple(per_step),
            collected=tuple(collected),
            row_values=tuple(places[node] for node in deferred_inputs),
        )


def _is_real(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return not isinstance(value, Tensor) or value.is_floating_point() or value.is_complex()


def _check_rows(graph: fx.GraphModule) -> None:
    """Check that a graph treats its rows one by one, so that it can run over the rows of all steps.

    The check runs the graph: four rows at once must have the same results as two and two. UntraceableError if not.
    """
    generator = torch.Generator().manual_seed(0)
    whole: list[Tensor] = []
    halves: tuple[list[Tensor], list[Tensor]] = ([], [])
    for node in placeholders(graph)[1:]:
        value = node.meta["val"]
        shape = (4, *value.shape[1:]) if has_rows(node) else tuple(value.shape)
        if any(size >= ROWS for size in shape):
            raise operation("mixes the batch with another axis of a tensor", node, "use products of [B, features]")
        made = torch.randn(shape, generator=generator, dtype=torch.float64).to(value.dtype).to(value.device)
        whole.append(made)
        for half, part in zip(halves, made.split(2) if has_rows(node) else (made, made), strict=True):
            half.append(part)
    try:
        with torch.no_grad():
            together = graph.forward(4, *whole)
            apart = zip(*(graph.forward(2, *half) for half in halves), strict=True)
    except RuntimeError as error:
        raise UntraceableError(reason(error)) from error
    for node, value, parts in zip(results(graph), together, apart, strict=True):
        joined = torch.cat(parts) if has_rows(node) else parts[0]
        if joined.shape != value.shape or not torch.allclose(value, joined, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise operation("mixes the sequences of a batch", node)


def _part_of(node: fx.Node, nodes: set[fx.Node]) -> bool:
    """Return whether the node selects one of several results of an operation in `nodes`."""
    return node.target is operator.getitem and node.args[0] in nodes


def _reached(graph: fx.GraphModule, wanted: Sequence[bool]) -> list[bool]:
    """Return, for each result, whether it depends on an input that wants a gradient."""
    inputs = zip(placeholders(graph)[1:], wanted, strict=True)
    found = descendants(graph, [node for node, want in inputs if want])
    return [node in found and node.meta["val"].is_floating_point() for node in results(graph)]


def _deferred_inputs(gradient: fx.Node, in_step: set[fx.Node], of_incoming: set[fx.Node]) -> list[fx.Node]:
    """Return what the deferred part of `gradient`'s computation, which no step needs, reads from the other part.

    The list is empty if there is no such part.
    """
    if gradient in in_step or gradient not in of_incoming or gradient.op == "placeholder":
        return []
    own: set[fx.Node] = set()
    left = [gradient]
    needs: list[fx.Node] = []
    while left:
        node = left.pop()
        if node in own:
            continue
        own.add(node)
        for argument in node.all_input_nodes:
            outside = argument in in_step or argument not in of_incoming or argument.op == "placeholder"
            # The first axis of a transposed value is not the batch. Keep its source, and transpose that again.
            transposed = argument.target in _VIEWS and not has_rows(argument)
            (needs if outside and not transposed else left).append(argument)
    return list(dict.fromkeys(needs))


def _expensive(saved: list[fx.Node], given: set[fx.Node], deferred_inputs: list[fx.Node]) -> list[fx.Node]:
    """Return `saved` without the values that backward can cheaply compute again from the others and from `given`."""
    kept = [node for node in saved if node.target not in CHEAP or node in deferred_inputs]
    there = {*given, *kept}
    for node in saved:
        if node not in there and not all(argument in there for argument in node.all_input_nodes):
            kept.append(node)
        there.add(node)
    return [node for node in saved if node in kept]


def _arguments(nodes: set[fx.Node], graph: fx.GraphModule) -> list[fx.Node]:
    """Return what `nodes` read, in the order of the graph."""
    return [argument for node in graph.graph.nodes if node in nodes for argument in node.all_input_nodes]


def descendants(graph: fx.GraphModule, roots: Iterable[fx.Node]) -> set[fx.Node]:
    """Return `roots` and all nodes that depend on them."""
    found = set(roots)
    for node in graph.graph.nodes:
        if any(argument in found for argument in node.all_input_nodes):
            found.add(node)
    return found
