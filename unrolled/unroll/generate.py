"""Generation in native code: embedding, step, readout and choice of the next token, many tokens a call."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

import torch
from torch import Tensor, fx

from unrolled.cells import Cell, State
from unrolled.errors import CompilerError, UntraceableError
from unrolled.unroll.columns import width
from unrolled.unroll.cpu import NEW, OLD, WHOLE, Array, NativeLoop
from unrolled.unroll.native import compiler
from unrolled.unroll.plan import descendants
from unrolled.unroll.signature import named_tensors, signature
from unrolled.unroll.trace import ancestors, extract, placeholders, results, trace_step

_ROW = "{0} + r * {1}"  # [B, columns]


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
        graph, self.names = trace_step(cell, dtype, device)
        count = len(self.names)
        nodes, wanted = placeholders(graph), results(graph)
        parameters, x, states = nodes[:count], nodes[count], nodes[count + 1 :]
        moving, needed = descendants(graph, [x, *states]), ancestors(wanted, set(nodes))
        inside = [node for node in graph.graph.nodes if node in needed and node in moving]
        read = dict.fromkeys(argument for node in inside for argument in node.all_input_nodes)
        prepared = [node for node in read if node not in moving]
        self.prepare = extract(graph, parameters, prepared)
        self.loop = self._make_loop(extract(graph, [*prepared, x, *states], wanted), len(prepared), dtype)

    def _make_loop(self, core: fx.GraphModule, prepared: int, dtype: torch.dtype) -> NativeLoop:
        given, (logits, *new_states) = placeholders(core)[1:], results(core)
        x, states = given[prepared], given[prepared + 1 :]
        arrays = [Array(node, WHOLE) for node in given[:prepared]]
        arrays += [Array(x, _ROW, width(x)), *(Array(node, OLD, width(node)) for node in states)]
        input_at, out = f"a{prepared}", len(arrays)
        arrays += [Array(None, WHOLE)] * 6
        embedding, tokens, draws, how, room = (f"a{out + k}" for k in range(1, 6))
        outputs = [(logits, out, _ROW), *((node, prepared + 1 + k, NEW) for k, node in enumerate(new_states))]
        before = (
            f"for (long r = first; r < first + N; r++) memcpy({input_at} + r * {width(x)}, "
            f"{embedding} + ((int64_t *){tokens})[t * B + r] * {width(x)}, {width(x)} * sizeof(REAL));"
        )
        settings = f"((double *){how})[0], (long)((double *){how})[1], ((double *){how})[2]"
        after = (
            f"for (long r = first; r < first + N; r++) ((int64_t *){tokens})[(t + 1) * B + r] = choose("
            f"a{out} + r * {width(logits)}, {width(logits)}, {settings}, "
            f"((double *){draws})[t * B + r], (scored *){room} + r * {width(logits)});"
        )
        return NativeLoop(core, arrays, outputs, dtype, descending=False, around=(before, after)).compile()


_compiled: dict[Hashable, _Compiled | UntraceableError | CompilerError] = {}


class Generator:
    """Generates tokens by a cell whose output is the logits of the next token.

    embedding: `[V, I]`, the cell's input for every token. The weights are taken, and packed, as they are now.
    Raises UntraceableError or CompilerError where the cell cannot be compiled.
    """

    def __init__(self, cell: Cell, embedding: Tensor, batch: int) -> None:
        self.embedding, self.batch = embedding.detach().contiguous(), batch
        key = (signature(cell), embedding.dtype)
        if key not in _compiled:
            try:
                compiler()
                _compiled[key] = _Compiled(cell, embedding.dtype, embedding.device)
            except (UntraceableError, CompilerError) as error:
                _compiled[key] = error
        compiled = _compiled[key]
        if isinstance(compiled, Exception):
            raise compiled
        self._loop = compiled.loop
        values = named_tensors(cell)
        with torch.no_grad():
            self._prepared = compiled.prepare(batch, *(values[name] for name in compiled.names))
        vocabulary = len(embedding)
        self._input, self._logits = (self.embedding.new_empty(batch, n) for n in (cell.input_size, vocabulary))
        self._room = torch.empty(batch * vocabulary * 2, dtype=torch.float64)
        self._packed: Tensor | None = None

    def __call__(self, token: Tensor, state: State, choice: Choice, draws: Tensor) -> tuple[Tensor, State]:
        """The tokens `[T, B]` that follow `token [B]`, and the state behind them; `draws [T, B]` are uniform."""
        steps = len(draws)
        tokens = torch.empty(steps + 1, self.batch, dtype=torch.int64)
        tokens[0] = token
        turns = [part.new_empty(2, *part.shape) for part in state]
        for turn, part in zip(turns, state, strict=True):
            turn[0] = part
        how = torch.tensor([choice.temperature, choice.top_k, choice.top_p], dtype=torch.float64)
        tensors = [*self._prepared, self._input, *turns, self._logits, self.embedding, tokens]
        tensors += [draws.to(torch.float64).contiguous(), how, self._room]
        self._packed = self._loop(steps, self.batch, tensors, self._packed)
        return tokens[1:], tuple(turn[steps & 1] for turn in turns)
