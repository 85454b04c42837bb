"""Generation in native code: embedding, step, readout and choice of the next token, many tokens per call."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from unrolled.cells import Cell, State
from unrolled.unroll.compiled import Native
from unrolled.unroll.fingerprint import fingerprint
from unrolled.unroll.forms import generated
from unrolled.unroll.graph import Graph
from unrolled.unroll.known import Known
from unrolled.unroll.native import compiler
from unrolled.unroll.observe import seen_by
from unrolled.unroll.signature import describe_module, settings
from unrolled.unroll.store import load, save
from unrolled.unroll.watch import Watch


class Choice(Protocol):
    """How the next token is chosen: the settings of `unrolled.decoding.Sampling`."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def top_p(self) -> float: ...


#: The graph that prepares the parameters, and the loop. The weights are arguments of each call.
_Parts = tuple[Graph, Native]
_compiled: Known[_Parts] = Known()


class Generator:
    """Generates tokens with a cell whose output is the logits of the next token.

    embedding: `[V, I]`, the cell's input for every token.

    The weights are read when the generator is built; later changes have no effect.
    Raises UntraceableError or CompilerError if the cell cannot be compiled.
    """

    def __init__(self, cell: Cell, embedding: Tensor, batch: int) -> None:
        self.embedding, self.batch = embedding.detach().contiguous(), batch

        def make(cell: Cell) -> tuple[_Parts, Watch]:
            return _make(cell, embedding.dtype, embedding.device)

        about = embedding.dtype, embedding.device, "generate", torch.get_default_dtype()
        (prepare, self._loop), tensors, cell = _compiled.find(cell, about, make)
        with torch.no_grad():
            self._prepared = prepare(batch, *tensors)
        for k in self._loop.flat:
            self._prepared[k] = self._prepared[k].to(embedding.dtype).contiguous()
        vocabulary = len(embedding)
        self._input, self._logits = (self.embedding.new_empty(batch, n) for n in (cell.input_size, vocabulary))
        self._room = torch.empty(batch * vocabulary * 2, dtype=torch.float64)
        self._packed: Tensor | None = None

    def __call__(self, token: Tensor, state: State, choice: Choice, draws: Tensor) -> tuple[Tensor, State]:
        """Return the tokens `[T, B]` that follow `token [B]`, and the state after them; `draws [T, B]` are uniform.

        A token of -1 means that the model's log-probabilities were NaN there. The tokens after it in its row are
        meaningless.
        """
        steps = len(draws)
        tokens = torch.empty(steps + 1, self.batch, dtype=torch.int64)
        tokens[0] = token
        how = torch.tensor([choice.temperature, choice.top_k, choice.top_p], dtype=torch.float64)
        draws = draws.to(torch.float64).contiguous()
        state = tuple(part.contiguous() for part in state)
        last = tuple(torch.empty_like(part) for part in state)
        arguments = [self._input, self._logits, self.embedding, tokens, draws, how, self._room]
        arguments += [part for pair in zip(state, last, strict=True) for part in pair]
        vectors = [value.data_ptr() for value in self._prepared]
        strides = [value.stride() for value in self._prepared]
        addresses = [value.data_ptr() for value in arguments]
        self._packed = self._loop(steps, self.batch, vectors, strides, addresses, self._packed)
        return tokens[1:], last


def _make(cell: Cell, dtype: torch.dtype, device: torch.device) -> tuple[_Parts, Watch]:
    compiler()
    described = describe_module(cell)
    seen = seen_by(described.modules)
    # If the cell contains user code, it is traced in any case, because tracing records what the code reads.
    kept = None if seen else fingerprint("generate", described.structure, settings(described), dtype)
    parts = load(kept, generated)
    if parts is None or not parts[1].find():
        from unrolled.unroll.generating import generating  # a cached program does not need its imports

        parts = generating(cell, dtype, device, seen)
        parts[1].compile()
        save(kept, parts)
    watch = Watch(None, (), described.modules) if seen is None else seen.watch
    assert watch is not None
    return parts, watch
