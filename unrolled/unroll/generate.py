"""Generation in native code: embedding, step, readout and choice of the next token, many tokens a call."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

import torch
from torch import Tensor, fx

from unrolled.cells import Cell, State
from unrolled.unroll.codegen import Step
from unrolled.unroll.columns import width
from unrolled.unroll.layout import rows_at
from unrolled.unroll.native import compiler
from unrolled.unroll.plan import descendants
from unrolled.unroll.program import NEW, OLD, ONE_STEP, Copy, Program
from unrolled.unroll.signature import describe, remember
from unrolled.unroll.trace import ancestors, extract, placeholders, results, trace_step


class Choice(Protocol):
    """How the next token is chosen: what `unrolled.decoding.Sampling` says."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def top_p(self) -> float: ...


class _Compiled:
    """The native loop for generators of one signature; the weights come with each call."""

    def __init__(self, cell: Cell, dtype: torch.dtype, device: torch.device) -> None:
        graph, names = trace_step(cell, dtype, device)
        count = len(names)
        nodes, wanted = placeholders(graph), results(graph)
        parameters, x, states = nodes[:count], nodes[count], nodes[count + 1 :]
        moving, needed = descendants(graph, [x, *states]), ancestors(wanted, set(nodes))
        inside = [node for node in graph.graph.nodes if node in needed and node in moving]
        read = dict.fromkeys(argument for node in inside for argument in node.all_input_nodes)
        prepared = [node for node in read if node not in moving]
        self.prepare = extract(graph, parameters, prepared)
        self.loop = self._make_loop(extract(graph, [*prepared, x, *states], wanted), len(prepared), dtype)

    def _make_loop(self, core: fx.GraphModule, prepared: int, dtype: torch.dtype) -> Program:
        given, (logits, *new_states) = placeholders(core)[1:], results(core)
        x, states = given[prepared], given[prepared + 1 :]
        program = Program(dtype)
        program.keeps_packed = True
        vectors = {node: program.vector() for node in given[:prepared]}
        room_of_x, out, embedding, tokens, draws, how, room = (program.slot() for _ in range(7))
        places = {x: rows_at(room_of_x, x, ONE_STEP)}
        outputs, starts, ends = [(logits, rows_at(out, logits, ONE_STEP))], [], []
        for node, new in zip(states, new_states, strict=True):
            turn = program.turn(width(node))
            places[node] = rows_at(turn, node, OLD)
            outputs.append((new, rows_at(turn, node, NEW)))
            starts.append(Copy((program.slot(), ONE_STEP), (turn, OLD), width(node)))
            ends.append(Copy((turn, NEW), (program.slot(), ONE_STEP), width(node)))
        before = (
            f"for (long r = first; r < first + N; r++) memcpy({room_of_x} + r * {width(x)}, "
            f"{embedding} + ((int64_t *){tokens})[t * B + r] * {width(x)}, {width(x)} * sizeof(REAL));"
        )
        settings = f"((double *){how})[0], (long)((double *){how})[1], ((double *){how})[2]"
        after = (
            f"for (long r = first; r < first + N; r++) ((int64_t *){tokens})[(t + 1) * B + r] = choose("
            f"{out} + r * {width(logits)}, {width(logits)}, {settings}, "
            f"((double *){draws})[t * B + r], (scored *){room} + r * {width(logits)});"
        )
        program.loop(Step(core, places, vectors, outputs), starts=starts, ends=ends, around=(before, after))
        return program.compile()


_compiled: dict[Hashable, _Compiled | Exception] = {}


class Generator:
    """Generates tokens by a cell whose output is the logits of the next token.

    embedding: `[V, I]`, the cell's input for every token. The weights are taken, and packed, as they are now.
    Raises UntraceableError or CompilerError where the cell cannot be compiled.
    """

    def __init__(self, cell: Cell, embedding: Tensor, batch: int) -> None:
        self.embedding, self.batch = embedding.detach().contiguous(), batch
        key, tensors = describe(cell)

        def make() -> _Compiled:
            compiler()
            return _Compiled(cell, embedding.dtype, embedding.device)

        compiled = remember(_compiled, (key, embedding.dtype), make)
        self._loop = compiled.loop
        with torch.no_grad():
            self._prepared = list(compiled.prepare(batch, *tensors.values()))
        for k in compiled.loop.flat:
            self._prepared[k] = self._prepared[k].to(embedding.dtype).contiguous()
        vocabulary = len(embedding)
        self._input, self._logits = (self.embedding.new_empty(batch, n) for n in (cell.input_size, vocabulary))
        self._room = torch.empty(batch * vocabulary * 2, dtype=torch.float64)
        self._packed: Tensor | None = None

    def __call__(self, token: Tensor, state: State, choice: Choice, draws: Tensor) -> tuple[Tensor, State]:
        """The tokens `[T, B]` that follow `token [B]`, and the state behind them; `draws [T, B]` are uniform."""
        steps = len(draws)
        tokens = torch.empty(steps + 1, self.batch, dtype=torch.int64)
        tokens[0] = token
        how = torch.tensor([choice.temperature, choice.top_k, choice.top_p], dtype=torch.float64)
        draws = draws.to(torch.float64).contiguous()
        state = tuple(part.contiguous() for part in state)
        last = tuple(torch.empty_like(part) for part in state)
        slots = [self._input, self._logits, self.embedding, tokens, draws, how, self._room]
        slots += [part for pair in zip(state, last, strict=True) for part in pair]
        vectors = [value.data_ptr() for value in self._prepared]
        strides = [value.stride() for value in self._prepared]
        addresses = [value.data_ptr() for value in slots]
        self._packed = self._loop(steps, self.batch, vectors, strides, addresses, self._packed)
        return tokens[1:], last
