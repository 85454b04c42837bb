"""A decoder: layers of any cell that write tokens about any context."""

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
    """What a decoder writes about, for a batch of B; what is not given is None.

    memory: what the first layer attends to, `[S, B, C]`: an encoder's annotations, a grid of picture features.
    lengths, mask: where it counts, for each of the batch at least once: in the first `lengths [B]` positions, or where
        `mask [S, B]` is true; everywhere, where neither is given.
    vector: read with every token, `[B, context_size]`.
    first: read once, in place of an embedded token and before any, `[B, embedding_size]`.
    states: what the layers' first states are made of, a tuple a layer of `[B, size]`, sizes as in `start_sizes`.
    """

    memory: Tensor | None = None
    lengths: Tensor | None = None
    mask: Tensor | None = None
    vector: Tensor | None = None
    first: Tensor | None = None
    states: Sequence[State] | None = None


@dataclass(frozen=True)
class DecoderState:
    """The decoder between two steps: each layer's states, `[N, size]` each, and the memory of the sentences.

    kept: in a search, what the first layer computes of the embedding's rows. vector: that of the context, `[N, ·]`.
    """

    layers: Sequence[State]
    memory: Memory | None
    kept: KeptRows | None = None
    vector: Tensor | None = None


class Decoder(Decodable, nn.Module):
    """Layers of any cell between an embedding and a readout, over any memory and context.

    vocabulary_size: tokens, the mark for the end of an output included.
    cell: a name from `CELLS`.
    hidden_size: units a layer.
    memory_size: width of the memory that the first layer attends to from its previous state (Bahdanau, Cho & Bengio
        2014); None: there is none.
    context_size: width of a vector that the first layer reads beside each token; 0: none.
    start_sizes: for each layer the widths of what its first state is made of: taken as it is where its states have just
        these widths, else `tanh(W [all of them] + b)`. None: states start as the cells' do, at zero.
    dropout: on embeddings, between layers, on memory and vector, and before the readout.
    forget_bias: the first bias of the forget gate, in cells that have one.
    scale_embeddings: multiply embeddings by the square root of their width (Vaswani et al. 2017, 3.4). They start as
        small as the readout's weights, and unscaled the cells hardly see them at first.

    The readout is a maxout layer, and a matrix that is the embedding's too. Tokens are int64, time first.
    `start(context)` takes a `Context` here; a model that derives from this one may take what it likes and make one.
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
        # The names of the parts are those of runs made before, whose `decoder` was the layers that do not attend.
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
        """The cell of each layer, the lowest first."""
        first = [self.attending.cell] if self.attending is not None else []
        rest = [layer[0] for layer in self.decoder.cells] if self.decoder is not None else []  # type: ignore[index]
        return [*first, *rest]

    def _make_bridges(self) -> nn.ModuleList:
        """One module a layer, from what its first state is made of."""
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
        """The state before the first token, about a `Context`.

        ShapeError if it is not what this decoder was made for.
        """
        self._check(context)
        vector = None if context.vector is None else self.dropout(context.vector)
        layers, memory = self._first_states(context), None
        if self.attending is not None:
            memory = self.attending.attention.remember(self.dropout(context.memory), context.lengths, context.mask)
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
                raise ShapeError(f"the context has no {name}, of which this decoder reads one ({setting}={width})")
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
                raise ShapeError("what counts of a memory is said by lengths or by a mask, not by both")
            if memory is None or context.mask.dtype != torch.bool or context.mask.shape != memory.shape[:2]:
                raise ShapeError("mask must be true or false for each position [S, B] of a memory")

    def _first_states(self, context: Context) -> list[State]:
        cells = self.layer_cells()
        if context.states is None:
            like = next((part for part in (context.first, context.vector) if part is not None), None)
            if like is None and context.memory is not None:
                like = context.memory[0]
            if like is None:
                raise ShapeError("a context must hold something: of this one not even the batch size is known")
            return [cell.initial_state(len(like), like=like) for cell in cells]
        made: list[State] = []
        for states, bridge, cell in zip(context.states, self.bridges, cells, strict=True):
            if isinstance(bridge, nn.Identity):
                made.append(tuple(states))
            else:
                first = torch.tanh(bridge(torch.cat(list(states), -1)))
                made.append(first.split(cell.state_sizes, -1))  # type: ignore[no-untyped-call]
        return made

    # -- tokens --------------------------------------------------------------------------------------------------

    def forward(self, context: Any, inputs: Tensor, counted: Tensor | None = None) -> Tensor:
        """Logits of each next token after `inputs [T, B]`, the output after the mark that begins it.

        context: what `start` takes. Where `inputs` are `[T, B·n]`, there are n outputs of each context, side by side.
        `[T, B, V]`; with `counted [T, B]`, those where it is true alone, `[N, V]`.
        What is below 0 in `inputs` is padding and stands after an output's end.
        """
        state = self.start(context)
        count = len(state.layers[0][0])
        if inputs.size(1) != count:
            if inputs.size(1) % count:
                raise ShapeError(f"{inputs.size(1)} outputs cannot be shared out to {count} contexts")
            rows = torch.arange(count, device=inputs.device).unsqueeze(-1)
            state = self.reorder(state, rows.expand(-1, inputs.size(1) // count))
        embedded = self.dropout(self._embed(self.target_embedding, inputs.clamp(min=0)))
        features, _ = self._run(embedded, state)
        return self._logits(features if counted is None else features[counted])

    def step(self, token: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """`(log_probs [N, V], state)` after one more `token [N]`; rows of one sentence stand side by side."""
        tokens, kept = token.unsqueeze(0), self._keep(state)
        inputs = self._embed(self.target_embedding, tokens) if kept is None else kept.at(tokens)
        features, state = self._run(inputs, dataclasses.replace(state, kept=kept))
        return torch.log_softmax(self._logits(features[0]), -1), state

    def reorder(self, state: DecoderState, rows: Tensor) -> DecoderState:
        """The state of `rows [B', n]`: n rows for each of B' sentences, all n from one and the same sentence."""
        chosen, memory = rows.flatten(), state.memory
        if memory is not None:
            each = len(state.layers[0][0]) // len(memory.mask)
            sentences = rows[:, 0] // each
            if len(sentences) != len(memory.mask) or not torch.equal(sentences, torch.arange(len(sentences)).to(rows)):
                memory = memory.select(sentences)
        layers, vector = pick_state(state.layers, chosen), pick_state(state.vector, chosen)
        return DecoderState(layers, memory, state.kept, vector)

    def _keep(self, state: DecoderState) -> KeptRows | None:
        """What a search keeps from step to step; None if there is no search, or nothing to keep."""
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling() or is_transformed():
            return None
        if state.kept is None and self.decoder is not None and self.attending is None and state.vector is None:
            return self.decoder.keep_rows(self.target_embedding.weight, self.scale)
        return state.kept

    def _embed(self, table: nn.Embedding, tokens: Tensor) -> Tensor:
        embedded: Tensor = table(tokens) * self.scale
        return embedded

    def _run(self, embedded: Tensor | Hoisted, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Features `[T, N, F]` for the readout over embedded tokens `[T, N, E]`, and the state after them."""
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
        """Maxout over pairs (Bahdanau et al. 2014, appendix A.2.2), then the readout."""
        hidden = self.before_readout(features).unflatten(-1, (-1, 2)).amax(-1)
        logits: Tensor = self.readout(self.dropout(hidden))
        return logits
