"""Builds the program that generates text: a loop over a token, the step of the model, and the choice of a token."""

from __future__ import annotations

import torch
from torch import fx

from unrolled.cells import Cell
from unrolled.unroll.codegen import Step
from unrolled.unroll.columns import width
from unrolled.unroll.compiled import Native
from unrolled.unroll.graph import Graph
from unrolled.unroll.layout import rows_at
from unrolled.unroll.observe import Seen
from unrolled.unroll.places import size
from unrolled.unroll.plan import descendants
from unrolled.unroll.program import NEW, OLD, ONE_STEP, Copy, Program
from unrolled.unroll.trace import ancestors, extract, placeholders, results, trace_step


def generating(cell: Cell, dtype: torch.dtype, device: torch.device, seen: Seen | None) -> tuple[Graph, Native]:
    """Return the graph that prepares the parameters, and the loop; `seen` records what else the step reads."""
    graph, names = trace_step(cell, dtype, device, seen)
    count = len(names)
    nodes, wanted = placeholders(graph), results(graph)
    parameters, x, states = nodes[:count], nodes[count], nodes[count + 1 :]
    moving, needed = descendants(graph, [x, *states]), ancestors(wanted, set(nodes))
    inside = [node for node in graph.graph.nodes if node in needed and node in moving]
    read = dict.fromkeys(argument for node in inside for argument in node.all_input_nodes)
    prepared = [node for node in read if node not in moving]
    core = extract(graph, [*prepared, x, *states], wanted)
    return Graph.of(extract(graph, parameters, prepared)), _loop(core, len(prepared), dtype)


def _loop(core: fx.GraphModule, prepared: int, dtype: torch.dtype) -> Native:
    given, (logits, *new_states) = placeholders(core)[1:], results(core)
    x, states = given[prepared], given[prepared + 1 :]
    program = Program(dtype)
    program.keeps_packed = True
    vectors = {node: program.vector() for node in given[:prepared]}
    room_of_x, out, embedding, tokens, draws, how, room = (program.argument() for _ in range(7))
    places = {x: rows_at(room_of_x, x, ONE_STEP)}
    outputs, starts, ends = [(logits, rows_at(out, logits, ONE_STEP))], [], []
    for node, new in zip(states, new_states, strict=True):
        double_buffer = program.double_buffer(width(node))
        places[node] = rows_at(double_buffer, node, OLD)
        outputs.append((new, rows_at(double_buffer, node, NEW)))
        starts.append(Copy((program.argument(), ONE_STEP), (double_buffer, OLD), width(node)))
        ends.append(Copy((double_buffer, NEW), (program.argument(), ONE_STEP), width(node)))
    read = f"((int64_t *){tokens})[t * B + r]"  # -1 if no token could be chosen; then go on with token 0
    columns, tokens_known = size(width(x)), size(width(logits))
    before = (
        f"for (long r = first; r < first + N; r++) memcpy({room_of_x} + r * {columns}, "
        f"{embedding} + ({read} < 0 ? 0 : {read}) * {columns}, {columns} * sizeof(REAL));"
    )
    settings = f"((double *){how})[0], (long)((double *){how})[1], ((double *){how})[2]"
    after = (
        f"for (long r = first; r < first + N; r++) ((int64_t *){tokens})[(t + 1) * B + r] = choose("
        f"{out} + r * {tokens_known}, {tokens_known}, {settings}, "
        f"((double *){draws})[t * B + r], (scored *){room} + r * {tokens_known});"
    )
    program.loop(Step(core, places, vectors, outputs), starts=starts, ends=ends, around=(before, after))
    return program.built()
