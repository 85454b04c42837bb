"""Builds the two native programs of a plan: what each array holds, and in which order the caller passes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from unrolled.errors import UntraceableError
from unrolled.unroll.codegen import Step
from unrolled.unroll.columns import shown, width
from unrolled.unroll.compiled import Native
from unrolled.unroll.executor import cut
from unrolled.unroll.finish import Finish
from unrolled.unroll.graph import Graph
from unrolled.unroll.passes import Backward, Epilogue, Forward, Training
from unrolled.unroll.places import Place, size
from unrolled.unroll.plan import Gradients, Plan
from unrolled.unroll.program import AFTER, EVERY_STEP, NEW, OLD, ONE_STEP, Copy, Program
from unrolled.unroll.schedule import rows_from
from unrolled.unroll.trace import aten, placeholders, results
from unrolled.unroll.vectors import Outside, Vectors


def rows_at(name: str, node: fx.Node, pattern: str = EVERY_STEP) -> Place:
    return Place(pattern.format(name, size(width(node))), width(node))


class Layout:
    """Builds the programs of one plan. `parameters` are examples without values."""

    def __init__(self, plan: Plan, dtype: torch.dtype) -> None:
        self.plan, self.dtype, self.parameters = plan, dtype, plan.parameters
        #: The step in the loop of the last "forward" and the last "backward" program.
        self.steps: dict[str, Step] = {}

    def inference(self) -> Forward:
        return self._forward(self.plan.core, self.plan.visible, None, ())

    def training(self, gradients: Gradients) -> Training:
        """Build the programs for one choice of gradients."""
        plan, derivative = self.plan, gradients.derivative
        kept = self._hoisted_to_keep(gradients)
        forward = self._forward(derivative.forward, range(plan.states), gradients, kept)
        try:
            if gradients.traced is None:
                raise UntraceableError("there is nothing to finish")
            backward = self._backward(gradients, kept, native=True)
        except UntraceableError:  # finish the gradients with PyTorch; what the loop itself cannot do raises again
            backward = self._backward(gradients, kept, native=False)
        finish = None if gradients.finish is None else Graph.of(gradients.finish)
        outside = self._outside(plan.prepared, gradients)
        deferred = derivative.deferred, derivative.row_values
        return Training(forward, backward, gradients.chosen, outside, finish, *deferred)

    def hoisted(self) -> list[fx.Node | None]:
        """Return the hoisted values, with None in place of one that is the input itself."""
        given = placeholders(self.plan.hoist)[-1]
        return [None if node is given else node for node in results(self.plan.hoist)]

    def _hoisted_to_keep(self, gradients: Gradients) -> list[int]:
        plan, derivative = self.plan, gradients.derivative
        read = [k - plan.prepared for kind, k in derivative.row_values if kind == "input"]
        nodes = placeholders(derivative.backward)[1 + plan.prepared :][: plan.hoisted]
        read += [k for k, node in enumerate(nodes) if node.users]
        there = {k for k, node in enumerate(self.hoisted()) if node is not None}
        return sorted(there.intersection(read))

    def _forward(self, graph, whole: Sequence[int], gradients: Gradients | None, kept: Sequence[int]) -> Forward:
        try:
            return self._forward_with(graph, whole, gradients, kept, hoists=True)
        except UntraceableError:
            return self._forward_with(graph, whole, gradients, kept, hoists=False)

    def _forward_with(self, graph, whole, gradients, kept, hoists) -> Forward:
        plan, program = self.plan, Program(self.dtype)
        count = len(results(plan.prepare)) if hoists else plan.prepared
        vectors = [program.vector() for _ in range(count)]
        constants = [program.vector() for _ in range(gradients.derivative.constant_count if gradients else 0)]
        x = program.argument()
        made = self.hoisted()
        first = [program.argument() for _ in range(plan.states)]
        trajectories = {k: program.argument() for k in whole}
        final = [program.argument() for _ in range(plan.states)]
        saved = results(graph)[plan.states :]
        kept_at = {k: program.argument() for k in kept}
        saved_at = [program.argument() for _ in saved]
        values = [
            x if node is None else kept_at.get(k) or (program.temporary(width(node)) if hoists else program.argument())
            for k, node in enumerate(made)
        ]
        if hoists and any(made):
            *matrices, source = placeholders(plan.hoist)[1:]
            outputs = [(node, rows_at(name, node)) for name, node in zip(values, made, strict=True) if node]
            program.rows(
                Step(plan.hoist, {source: rows_at(x, source)}, dict(zip(matrices, vectors, strict=True)), outputs)
            )
        prepared, of_rows, states, fixed = cut(placeholders(graph)[1:], [plan.prepared, plan.hoisted, plan.states])
        new = results(graph)
        places = {node: rows_at(name, node) for name, node in zip(values, of_rows, strict=True)}
        outputs, starts, ends = [], [], []
        for k, node in enumerate(states):
            name = trajectories.get(k) or program.double_buffer(width(node))
            before, after = (EVERY_STEP, AFTER) if k in trajectories else (OLD, NEW)
            places[node] = rows_at(name, node, before)
            outputs.append((new[k], rows_at(name, node, after)))
            starts.append(Copy((first[k], ONE_STEP), (name, before), width(node)))
            ends.append(Copy((name, after), (final[k], ONE_STEP), width(node)))
        outputs += [(node, rows_at(name, node)) for name, node in zip(saved_at, saved, strict=True)]
        named = dict(zip([*prepared, *fixed], [*vectors[: plan.prepared], *constants], strict=True))
        step = Step(graph, places, named, outputs)
        program.loop(step, starts=starts, ends=ends)
        self.steps["forward"] = step
        widths = {k: width(states[k]) for k in whole}
        columns = [width(made[k]) for k in kept] + [width(node) for node in saved]
        rest = [k for k, node in enumerate(made) if node is not None and k not in kept_at]
        return Forward(
            *self._built(program, self._outside(count, gradients)), hoists, rest, widths, columns, list(kept)
        )

    def _backward(self, gradients: Gradients, kept: Sequence[int], native: bool) -> Backward:
        plan, derivative, program = self.plan, gradients.derivative, Program(self.dtype)
        core, per_step = plan.prepared + plan.hoisted, derivative.per_step
        sizes = [plan.prepared, plan.hoisted, plan.states, derivative.constant_count, derivative.saved, plan.states]
        first = 1 + sum(sizes[:-1])
        graph, incoming = _with_step_gradients(derivative.backward, [first + k for k in plan.visible])
        prepared, hoisted, states, fixed, saved, of_states, _ = cut(placeholders(graph)[1:], sizes)
        vectors = {node: program.vector() for node in [*prepared, *fixed]}
        x = program.argument()
        places = {node: rows_at(x, node) for node, made in zip(hoisted, self.hoisted(), strict=True) if made is None}
        places |= {node: rows_at(program.argument(), node) for node in states}
        places |= {hoisted[k]: rows_at(program.argument(), hoisted[k]) for k in kept}
        places |= {node: rows_at(program.argument(), node) for node in saved}
        places |= {node: rows_at(program.argument(), node) for node in incoming}
        last, of_first = ([program.argument() for _ in of_states] for _ in range(2))
        outputs, starts, ends = [], [], []
        found = list(enumerate(results(graph)))
        for j, node in found[: len(per_step)]:
            k = per_step[j] - core
            if k >= 0:
                name = program.double_buffer(width(node))
                places[of_states[k]] = rows_at(name, of_states[k], OLD)
                outputs.append((node, rows_at(name, node, NEW)))
                starts.append(Copy((last[k], ONE_STEP), (name, OLD), width(node)))
                ends.append(Copy((name, NEW), (of_first[k], ONE_STEP), width(node)))
        # Gradients of hoisted values, and what contractions read. A node may be among them twice.
        left = [node for j, node in found if j >= len(per_step) or per_step[j] < core]
        allocate = program.temporary if native else lambda columns: program.argument()
        stored = {node: rows_at(allocate(width(node)), node) for node in dict.fromkeys(left)}
        step = Step(graph, places, vectors, [*outputs, *stored.items()])
        program.loop(step, descending=True, starts=starts, ends=ends)
        self.steps["backward"] = step
        values = {**places, **stored}
        deferred = [stored[node] for _, node in found[len(per_step) :]]
        of_hoisted = [stored[node] for j, node in found[: len(per_step)] if per_step[j] < core]
        inputs = [values.get(node) for node in (*prepared, *hoisted, *states)]
        rows = [*rows_from(derivative.row_values, inputs, [values[node] for node in saved], deferred), *of_hoisted]
        if native:
            return self._with_finish(gradients, program, x, rows)
        columns, order = [width(node) for node in stored], list(stored)
        built = self._built(program, self._outside(plan.prepared, gradients))
        return Backward(*built, rows=columns, row_of=[order.index(node) for node in left])

    def _outside(self, count: int, gradients: Gradients | None, before: fx.GraphModule | None = None) -> Outside:
        """Return what is computed from the parameters: `count` prepared values, and the derivative's constants."""
        constants = None if gradients is None else Graph.of(gradients.derivative.constants)
        prepare = Graph.of(self.plan.prepare)
        return Outside(prepare, count, self.plan.prepared, constants, None if before is None else Graph.of(before))

    def _with_finish(self, gradients: Gradients, program: Program, x: str, rows: list[Place]) -> Backward:
        """Add the phases after the loop. `rows` are the places of the values that they read from the loop."""
        count, given = len(self.parameters), self.plan.prepared + gradients.derivative.constant_count
        fixed = [*range(count), *range(count + 1, count + 1 + given)]
        of_input = count in gradients.chosen
        finish = Finish(gradients.traced, fixed, of_input)
        nodes = placeholders(finish.rows)[1:]
        matrices = nodes[: len(results(finish.before))]
        vectors = {node: program.vector() for node in matrices}
        source, *others = nodes[len(matrices) :]
        places = {source: rows_at(x, source), **dict(zip(others, rows, strict=True))}
        outputs: list[tuple[fx.Node, Place]] = []
        at: dict[fx.Node, Place] = {}
        for k, (wanted, node) in enumerate(zip(finish.wanted, results(finish.rows), strict=True)):
            is_gradient = of_input and k == 0
            base, offset = shown(node, places)
            if base in places and not is_gradient:
                at[wanted] = Place(places[base].pointer, places[base].stride, places[base].offset + offset)
            else:
                at[wanted] = rows_at(program.argument() if is_gradient else program.temporary(width(node)), node)
                outputs.append((node, at[wanted]))
        if outputs:
            program.rows(Step(finish.rows, places, vectors, outputs))
        for contraction in finish.contractions:
            left, right = contraction.left, contraction.right
            other, wide = (None, 0) if right is None else (at[right], width(right))
            program.contract(at[left], width(left), other, wide, program.argument())
        epilogue = Epilogue(finish.shapes, finish.order, Graph.of(finish.after), of_input)
        return Backward(*self._built(program, self._outside(self.plan.prepared, gradients, finish.before)), epilogue)

    def _built(self, program: Program, outside: Outside) -> tuple[Native, Vectors]:
        native = program.built()
        return native, Vectors.of(outside, self.parameters, native.flat)


def _with_step_gradients(source: fx.GraphModule, numbers: Sequence[int]) -> tuple[fx.GraphModule, list[fx.Node]]:
    """Copy a graph in which each input in `numbers` has a second input added to it. Return it and those inputs."""
    graph = fx.Graph()
    inputs = placeholders(source)
    copies = {node: graph.node_copy(node) for node in inputs}
    added = []
    for k in numbers:
        carried = copies[inputs[k]]
        added.append(graph.placeholder(f"of_step_{k}"))
        added[-1].meta = dict(carried.meta)
        copies[inputs[k]] = graph.call_function(aten.add.Tensor, (carried, added[-1]))
        copies[inputs[k]].meta = dict(carried.meta)
    for node in source.graph.nodes:
        if node.op != "placeholder":
            copies[node] = graph.node_copy(node, lambda argument: copies[argument])
    return fx.GraphModule(source, graph), added
