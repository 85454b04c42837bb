"""Sequence to sequence: an encoder reads the source, a decoder writes the target."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unrolled.cells import State
from unrolled.errors import ConfigurationError
from unrolled.layers import Recurrent
from unrolled.layers.dropout import Dropout
from unrolled.models.attention import AttendingLayer, Memory
from unrolled.models.parts import named_cell
from unrolled.unroll.embedded import Hoisted, KeptRows
from unrolled.unroll.fallback import is_transformed


@dataclass(frozen=True)
class DecoderState:
    """The decoder between two steps: each layer's states, `[N, size]` each, and the memory of the sentences.

    kept: in a search, what the first layer computes of the embedding's rows.
    """

    layers: list[State]
    memory: Memory | None
    kept: KeptRows | None = None


class EncoderDecoder(nn.Module):
    """Encoder and decoder of any cells, joined by the encoder's last state, and by attention where that is wanted.

    Without attention this is Sutskever, Vinyals & Le 2014: deep cells, the source read backwards with `reverse`, and
    one fixed vector a layer between the two. With it, it is Bahdanau, Cho & Bengio 2014: a bidirectional encoder, a
    decoder whose first layer attends to the encoder's outputs from its previous state, a maxout readout.

    source_size, target_size: vocabulary sizes, the mark for the end of a sentence included.
    cell, decoder_cell: names from `CELLS`; the decoder's is the encoder's where None.
    embedding_size: width of both embeddings.
    hidden_size: units a layer, in each direction of the encoder and in the decoder.
    num_layers: of the encoder, and of the decoder.
    bidirectional: the encoder reads both ways.
    reverse: the encoder reads the source's words from the last to the first.
    attention: the decoder attends.
    dropout: on embeddings, between layers, on what is attended to, and before the readout.
    shared: one embedding for both sides, whose vocabulary is one.
    forget_bias: the first bias of the forget gate, in cells that have one.
    scale_embeddings: multiply embeddings by the square root of their width (Vaswani et al. 2017, 3.4). They start as
        small as the readout's weights, and unscaled the cells hardly see them at first.

    The encoder's last states start the decoder: as they are where its layers have the same form, else through a bridge,
    `tanh(W [all states of the layer] + b)`. The target's embedding is the readout's matrix too.
    Tokens are int64, time first; whatever is below 0 is padding and stands behind a sentence's end.
    """

    def __init__(
        self,
        source_size: int,
        target_size: int,
        cell: str = "gru",
        *,
        decoder_cell: str | None = None,
        embedding_size: int = 256,
        hidden_size: int = 256,
        num_layers: int = 1,
        bidirectional: bool = True,
        reverse: bool = False,
        attention: bool = True,
        dropout: float = 0.0,
        shared: bool = False,
        forget_bias: float = 1.0,
        scale_embeddings: bool = True,
    ) -> None:
        super().__init__()
        if shared and source_size != target_size:
            raise ConfigurationError(f"a shared embedding needs one vocabulary, got {source_size} and {target_size}")
        self.reverse = reverse
        self.scale = embedding_size**0.5 if scale_embeddings else 1.0
        self.dropout = Dropout(dropout)
        make, options, equal = named_cell(cell, forget_bias)
        self.encoder = Recurrent(
            make,
            embedding_size,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            input_projection=equal,
            **options,
        )
        make, options, equal = named_cell(decoder_cell or cell, forget_bias)
        width = embedding_size
        self.attending: AttendingLayer | None = None
        if attention:
            self.attending = AttendingLayer(
                make, embedding_size, hidden_size, self.encoder.output_size, input_projection=equal, **options
            )
            width = hidden_size
        upper = num_layers - 1 if attention else num_layers
        self.decoder = (
            Recurrent(make, width, hidden_size, upper, dropout=dropout, input_projection=equal, **options)
            if upper
            else None
        )
        self.bridges = self._make_bridges()
        features = hidden_size + (embedding_size + self.encoder.output_size if attention else 0)
        self.before_readout = nn.Linear(features, 2 * embedding_size)
        self.readout = nn.Linear(embedding_size, target_size)
        self.target_embedding = nn.Embedding(target_size, embedding_size)
        self.target_embedding.weight = self.readout.weight
        self.source_embedding = self.target_embedding if shared else nn.Embedding(source_size, embedding_size)
        if not shared:
            nn.init.uniform_(self.source_embedding.weight, -(embedding_size**-0.5), embedding_size**-0.5)

    def _decoder_cells(self) -> list[nn.Module]:
        first = [self.attending.cell] if self.attending is not None else []
        rest = [layer[0] for layer in self.decoder.cells] if self.decoder is not None else []  # type: ignore[index]
        return [*first, *rest]

    def _make_bridges(self) -> nn.ModuleList:
        """One module a decoder layer, from all states of the encoder's layer of that number."""
        bridges = nn.ModuleList()
        for directions, cell in zip(self.encoder.cells, self._decoder_cells(), strict=True):
            given = [size for one in directions for size in one.state_sizes]  # type: ignore[attr-defined]
            wanted = list(cell.state_sizes)  # type: ignore[arg-type]
            bridges.append(nn.Identity() if given == wanted else nn.Linear(sum(given), sum(wanted)))
        return bridges

    # -- the encoder ---------------------------------------------------------------------------------------------

    def start(self, context: Tensor) -> DecoderState:
        """The decoder's state after the encoder has read `context [S, B]`, one row a sentence."""
        lengths = (context >= 0).sum(0)
        tokens = context.clamp(min=0)
        if self.reverse:
            tokens = tokens.gather(0, _backwards(lengths, len(tokens)))
        embedded = self.dropout(self._embed(self.source_embedding, tokens))
        annotations, finals = self.encoder.run(embedded, lengths=lengths)
        directions = 2 if self.encoder.bidirectional else 1
        layers: list[State] = []
        for number, (bridge, cell) in enumerate(zip(self.bridges, self._decoder_cells(), strict=True)):
            states = [part for one in finals[number * directions :][:directions] for part in one]
            if isinstance(bridge, nn.Identity):
                layers.append(tuple(states))
            else:
                layers.append(torch.tanh(bridge(torch.cat(states, -1))).split(list(cell.state_sizes), -1))  # type: ignore[arg-type]
        if self.attending is None:
            return DecoderState(layers, None)
        return DecoderState(layers, self.attending.attention.remember(self.dropout(annotations), lengths))

    # -- the decoder ---------------------------------------------------------------------------------------------

    def forward(self, source: Tensor, inputs: Tensor, counted: Tensor | None = None) -> Tensor:
        """Logits of each next token after `inputs [T, B]`, the target behind the mark that begins it.

        `[T, B, V]`; with `counted [T, B]`, those where it is true alone, `[N, V]`.
        """
        state = self.start(source)
        embedded = self.dropout(self._embed(self.target_embedding, inputs.clamp(min=0)))
        features, _ = self._run(embedded, state)
        return self._logits(features if counted is None else features[counted])

    def step(self, token: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """`(log_probs [N, V], state)` after one more `token [N]`; rows of one sentence stand side by side."""
        tokens, kept = token.unsqueeze(0), self._keep(state)
        inputs = self._embed(self.target_embedding, tokens) if kept is None else kept.at(tokens)
        features, state = self._run(inputs, dataclasses.replace(state, kept=kept))
        return torch.log_softmax(self._logits(features[0]), -1), state

    def _keep(self, state: DecoderState) -> KeptRows | None:
        """What a search keeps from step to step; None where there is no search, or nothing to keep."""
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling() or is_transformed():
            return None
        if state.kept is None and self.decoder is not None and self.attending is None:
            return self.decoder.keep_rows(self.target_embedding.weight, self.scale)
        return state.kept

    def _embed(self, table: nn.Embedding, tokens: Tensor) -> Tensor:
        return table(tokens) * self.scale

    def reorder(self, state: DecoderState, rows: Tensor) -> DecoderState:
        """The state of `rows [B', n]`: n rows for each of B' sentences, all n from one and the same sentence."""
        chosen = rows.flatten()
        layers = [tuple(part.index_select(0, chosen) for part in layer) for layer in state.layers]
        memory = state.memory
        if memory is not None:
            each = len(state.layers[0][0]) // len(memory.mask)
            sentences = rows[:, 0] // each
            if len(sentences) != len(memory.mask) or not torch.equal(sentences, torch.arange(len(sentences)).to(rows)):
                memory = memory.select(sentences)
        return DecoderState(layers, memory, state.kept)

    def _run(self, embedded: Tensor | Hoisted, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Features `[T, N, F]` for the readout over embedded tokens `[T, N, E]`, and the state behind them."""
        if self.attending is None:
            features, layers = self._run_layers(embedded, state.layers)
        else:
            assert state.memory is not None
            assert isinstance(embedded, Tensor)
            outputs, contexts, first = self.attending(embedded, state.layers[0], state.memory)
            layers = [first]
            if self.decoder is not None:
                outputs, rest = self._run_layers(self.dropout(outputs), state.layers[1:])
                layers += rest
            features = torch.cat([outputs, contexts, embedded], -1)
        return features, DecoderState(layers, state.memory, state.kept)

    def _run_layers(self, inputs: Tensor | Hoisted, states: list[State]) -> tuple[Tensor, list[State]]:
        """The layers that do not attend."""
        assert self.decoder is not None
        return self.decoder.run(inputs, states)

    def _logits(self, features: Tensor) -> Tensor:
        """Maxout over pairs (Bahdanau et al. 2014, appendix A.2.2), then the readout."""
        hidden = self.before_readout(features).unflatten(-1, (-1, 2)).amax(-1)
        return self.readout(self.dropout(hidden))


def _backwards(lengths: Tensor, steps: int) -> Tensor:
    """Where position t of a reversed sentence comes from, `[T, B]`; the mark of its end stays last."""
    time = torch.arange(steps, device=lengths.device).unsqueeze(-1)
    return torch.where(time < lengths - 1, lengths - 2 - time, time)
