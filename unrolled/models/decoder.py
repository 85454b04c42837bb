"""A decoder: layers of any cell that generate tokens from any context."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.cells import Cell, State
from unrolled.errors import ConfigurationError, ShapeError
from unrolled.layers import Recurrent
from unrolled.layers.dropout import Dropout
from unrolled.layers.nest import pick_state
from unrolled.models.attention import AttendingLayer, Memory
from unrolled.models.contract import Decodable
from unrolled.models.parts import named_cell
from unrolled.unroll.embedded import Hoisted, KeptRows
from unrolled.unroll.fallback import is_transformed


@dataclass(frozen=True)
class Context:
    """The input of a decoder for a batch of size B. Each part is optional.

    memory: what the first layer attends to, `[S, B, C]`, such as an encoder's annotations or a grid of image features.
    lengths, mask: the positions of the memory that count: the first `lengths [B]`, or those where `mask [S, B]` is
        true. Each item of the batch needs at least one. Without both, all positions count.
    vector: an input that is read with every token, `[B, context_size]`.
    first: an input that is read once, before all tokens and in place of an embedded token, `[B, embedding_size]`.
    states: what the layers' first states are computed from: for each layer a tuple of tensors `[B, size]`, with the
        sizes of `start_sizes`.
    """

    memory: Tensor | None = None
    lengths: Tensor | None = None
    mask: Tensor | None = None
    vector: Tensor | None = None
    first: Tensor | None = None
    states: Sequence[State] | None = None


@dataclass(frozen=True)
class DecoderState:
    """The decoder's state between two steps: each layer's states, `[N, size]` each, and the memory of the sentences.

    kept: in decoding, the first layer's cached results for the rows of the embedding. vector: the context's vector,
        `[N, ·]`.
    """

    layers: Sequence[State]
    memory: Memory | None
    kept: KeptRows | None = None
    vector: Tensor | None = None


class Decoder(Decodable, nn.Module):
    """A decoder with layers of any cell between an embedding and a readout.

    vocabulary_size: the number of tokens, including the end mark.
    cell: a name from `CELLS`.
    hidden_size: the number of units in each layer.
    memory_size: the width of the memory that the first layer attends to from its previous state (Bahdanau, Cho & Bengio
        2014). None means no memory.
    context_size: the width of a vector that the first layer reads with each token. 0 means no vector.
    start_sizes: for each layer the widths of the tensors that its first state is computed from. If these are the widths
        of the layer's states, they are used directly, else as `tanh(W [all of them] + b)`. None means the cells'
        initial states, which are zero by default.
    dropout: the dropout on embeddings, between layers, on memory and vector, and before the readout.
    forget_bias: the initial bias of the forget gate, for cells that have one.
    scale_embeddings: multiply embeddings by the square root of their width (Vaswani et al. 2017, 3.4). Initially they
        are as small as the readout's weights, so without this factor they hardly affect the cells at first.

    The readout is a maxout layer followed by a matrix, which is tied to the embedding. Tokens are int64, time first.
    `start(context)` takes a `Context`. A subclass may accept another input and build a `Context` from it.
    """

    def __init__(
        self,
        vocabulary_size: int,
        cell: str = "gru",
        *,
        embedding_size: int = 256,
        hidden_size: int = 256,
        num_layers: int = 1,
        memory_size: int | None = None,
        context_size: int = 0,
        start_sizes: Sequence[Sequence[int]] | None = None,
        dropout: float = 0.0,
        forget_bias: float = 1.0,
        scale_embeddings: bool = True,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ConfigurationError(f"a decoder needs at least one layer, got num_layers={num_layers}")
        self.memory_size, self.context_size = memory_size, context_size
        self.start_sizes = None if start_sizes is None else [tuple(sizes) for sizes in start_sizes]
        self.scale = embedding_size**0.5 if scale_embeddings else 1.0
        self.dropout = Dropout(dropout)
        make, options, equal = named_cell(cell, forget_bias)
        width, upper, features = embedding_size + context_size, num_layers, hidden_size
        # These attribute names match saved runs, where `decoder` holds the layers without attention.
        self.attending: AttendingLayer | None = None
        if memory_size is not None:
            self.attending = AttendingLayer(make, width, hidden_size, memory_size, input_projection=equal, **options)
            width, upper, features = hidden_size, num_layers - 1, hidden_size + embedding_size + memory_size
        self.decoder = (
            Recurrent(make, width, hidden_size, upper, dropout=dropout, input_projection=equal, **options)
            if upper
            else None
        )
        self.bridges = self._make_bridges()
        self.before_readout = nn.Linear(features, 2 * embedding_size)
        self.readout = nn.Linear(embedding_size, vocabulary_size)
        self.target_embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.target_embedding.weight = self.readout.weight

    def layer_cells(self) -> list[Cell]:
        """Return the cell of each layer, the lowest first."""
        first = [self.attending.cell] if self.attending is not None else []
        rest = [layer[0] for layer in self.decoder.cells] if self.decoder is not None else []  # type: ignore[index]
        return [*first, *rest]

    def _make_bridges(self) -> nn.ModuleList:
        """Build for each layer the module that computes its first state."""
        bridges, cells = nn.ModuleList(), self.layer_cells()
        if self.start_sizes is None:
            return bridges
        if len(self.start_sizes) != len(cells):
            raise ConfigurationError(f"start_sizes has {len(self.start_sizes)} entries for {len(cells)} layers")
        for given, cell in zip(self.start_sizes, cells, strict=True):
            wanted = cell.state_sizes
            bridges.append(nn.Identity() if given == wanted else nn.Linear(sum(given), sum(wanted)))
        return bridges

    # -- before the first token ----------------------------------------------------------------------------------

    def start(self, context: Any) -> DecoderState:
        """Return the state before the first token, given a `Context`.

        Raises ShapeError if the context does not fit this decoder.
        """
        self._check(context)
        vector = None if context.vector is None else self.dropout(context.vector)
        layers, memory = self._first_states(context), None
        if self.attending is not None:
            memory = self.attending.attention.build_memory(self.dropout(context.memory), context.lengths, context.mask)
        state = DecoderState(layers, memory, vector=vector)
        if context.first is None:
            return state
        return self._run(self.dropout(context.first).unsqueeze(0), state)[1]

    def _check(self, context: Context) -> None:
        if not isinstance(context, Context):
            raise ConfigurationError(f"a decoder starts from a Context, got a {type(context).__name__}")
        memory, vector, first = context.memory, context.vector, context.first
        for name, value, setting, width in (
            ("memory", memory, "memory_size", self.memory_size),
            ("vector", vector, "context_size", self.context_size or None),
        ):
            if value is None and width is not None:
                raise ShapeError(f"the context has no {name}, but this decoder reads one ({setting}={width})")
            if value is not None and value.size(-1) != width:
                raise ShapeError(f"{name} {list(value.shape)} does not fit this decoder's {setting}={width}")
        width = self.target_embedding.embedding_dim
        if first is not None and first.size(-1) != width:
            raise ShapeError(f"first {list(first.shape)} must be as wide as an embedding, {width}")
        given = [tuple(part.size(-1) for part in state) for state in context.states or ()]
        wanted = self.start_sizes or []
        if given != wanted:
            raise ShapeError(f"states must have the widths {wanted}, layer by layer, got {given}")
        if context.mask is not None:
            if context.lengths is not None:
                raise ShapeError("a context may have lengths or a mask for its memory, not both")
            if memory is None or context.mask.dtype != torch.bool or context.mask.shape != memory.shape[:2]:
                raise ShapeError("mask must be a bool tensor [S, B] with a value for each position of the memory")

    def _first_states(self, context: Context) -> list[State]:
        cells = self.layer_cells()
        if context.states is None:
            like = next((part for part in (context.first, context.vector) if part is not None), None)
            if like is None and context.memory is not None:
                like = context.memory[0]
            if like is None:
                raise ShapeError("the context is empty, so the batch size is unknown: give it at least one part")
            return [cell.initial_state(len(like), like=like) for cell in cells]
        first_states: list[State] = []
        for states, bridge, cell in zip(context.states, self.bridges, cells, strict=True):
            if isinstance(bridge, nn.Identity):
                first_states.append(tuple(states))
            else:
                first = torch.tanh(bridge(torch.cat(list(states), -1)))
                first_states.append(first.split(cell.state_sizes, -1))  # type: ignore[no-untyped-call]
        return first_states

    # -- tokens --------------------------------------------------------------------------------------------------

    def forward(self, context: Any, inputs: Tensor, counted: Tensor | None = None) -> Tensor:
        """Return the logits of each next token, `[T, B, V]`, with teacher forcing.

        context: an argument of `start`.
        inputs: the outputs' tokens `[T, B]`, each output after its start mark. Values below 0 are padding after an
            output's end. `[T, B·n]` stands for n outputs for each context, in adjacent columns.
        counted: a mask `[T, B]`. The result then has only the logits where it is true, `[N, V]`.
        """
        state = self.start(context)
        count = len(state.layers[0][0])
        if inputs.size(1) != count:
            if inputs.size(1) % count:
                raise ShapeError(f"{inputs.size(1)} outputs cannot be divided evenly among {count} contexts")
            rows = torch.arange(count, device=inputs.device).unsqueeze(-1)
            state = self.reorder(state, rows.expand(-1, inputs.size(1) // count))
        embedded = self.dropout(self._embed(self.target_embedding, inputs.clamp(min=0)))
        features, _ = self._run(embedded, state)
        return self._logits(features if counted is None else features[counted])

    def step(self, token: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Return `(log_probs [N, V], state)` after one more `token [N]`. The rows of a sentence are adjacent."""
        tokens, kept = token.unsqueeze(0), self._keep(state)
        inputs = self._embed(self.target_embedding, tokens) if kept is None else kept.at(tokens)
        features, state = self._run(inputs, dataclasses.replace(state, kept=kept))
        return torch.log_softmax(self._logits(features[0]), -1), state

    def reorder(self, state: DecoderState, rows: Tensor) -> DecoderState:
        """Return the state of `rows [B', n]`: n rows for each of B' sentences, where the n belong to one sentence."""
        chosen, memory = rows.flatten(), state.memory
        if memory is not None:
            memory = memory.reorder(rows, len(state.layers[0][0]))
        layers, vector = pick_state(state.layers, chosen), pick_state(state.vector, chosen)
        return DecoderState(layers, memory, state.kept, vector)

    def _keep(self, state: DecoderState) -> KeptRows | None:
        """Return the first layer's cached results for the embedding's rows, or None if they cannot be used."""
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling() or is_transformed():
            return None
        if state.kept is None and self.decoder is not None and self.attending is None and state.vector is None:
            return self.decoder.keep_rows(self.target_embedding.weight, self.scale)
        return state.kept

    def _embed(self, table: nn.Embedding, tokens: Tensor) -> Tensor:
        embedded: Tensor = table(tokens) * self.scale
        return embedded

    def _run(self, embedded: Tensor | Hoisted, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Run the layers over embedded tokens `[T, N, E]`. Return the readout's input `[T, N, F]` and the state."""
        inputs = embedded
        if state.vector is not None:
            assert isinstance(embedded, Tensor)
            inputs = torch.cat([embedded, state.vector.expand(len(embedded), -1, -1)], -1)
        layers: Sequence[State]
        if self.attending is None:
            assert self.decoder is not None
            features, layers = self.decoder.run(inputs, state.layers)
        else:
            assert state.memory is not None
            assert isinstance(embedded, Tensor)
            assert isinstance(inputs, Tensor)
            outputs, contexts, first = self.attending(inputs, state.layers[0], state.memory)
            layers = [first]
            if self.decoder is not None:
                outputs, rest = self.decoder.run(self.dropout(outputs), state.layers[1:])
                layers = [first, *rest]
            features = torch.cat([outputs, contexts, embedded], -1)
        return features, dataclasses.replace(state, layers=layers)

    def _logits(self, features: Tensor) -> Tensor:
        """Apply maxout over pairs (Bahdanau et al. 2014, appendix A.2.2), then the readout."""
        hidden = self.before_readout(features).unflatten(-1, (-1, 2)).amax(-1)
        logits: Tensor = self.readout(self.dropout(hidden))
        return logits
