"""Sequence-to-sequence models: an encoder reads the source, and a decoder generates the target."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from unrolled.errors import ConfigurationError
from unrolled.models.decoder import Context, Decoder, DecoderState
from unrolled.models.encoder import Encoder


class EncoderDecoder(Decoder):
    """A decoder of token sequences that an encoder reads.

    The two are connected by the encoder's last states, and optionally by attention. Without attention the model is that
    of Sutskever, Vinyals & Le 2014: deep cells, a source that is read backwards with `reverse`, and one fixed vector
    for each layer between encoder and decoder. With attention it is that of Bahdanau, Cho & Bengio 2014: a
    bidirectional encoder, a decoder whose first layer attends to the encoder's outputs from its previous state, and a
    maxout readout.

    source_size, target_size: the vocabulary sizes, including the end mark.
    cell, decoder_cell: names from `CELLS`. By default the decoder uses the encoder's cell.
    embedding_size: the width of both embeddings.
    hidden_size: the number of units in each layer of the decoder, and in each layer and direction of the encoder.
    num_layers: the number of layers in the encoder, and in the decoder.
    bidirectional: whether the encoder reads in both directions.
    reverse: whether the encoder reads the source's words from the last to the first.
    attention: whether the decoder attends to the encoder's outputs.
    dropout: the dropout on embeddings, between layers, on the attended outputs, and before the readout.
    shared: use one embedding for both sides. They must have the same vocabulary.
    forget_bias, scale_embeddings: as in `Decoder`, for encoder and decoder.

    The decoder starts from the encoder's last states: directly if its layers have states of the same form, else through
    a bridge, `tanh(W [all states of the layer] + b)`. The target embedding is tied to the readout's matrix.
    Tokens are int64, time first. Values below 0 are padding after a sentence's end.
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
        if shared and source_size != target_size:
            raise ConfigurationError(f"a shared embedding needs one vocabulary, got {source_size} and {target_size}")
        encoder = Encoder(
            cell,
            embedding_size,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            reverse=reverse,
            dropout=dropout,
            forget_bias=forget_bias,
        )
        super().__init__(
            target_size,
            decoder_cell or cell,
            embedding_size=embedding_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            memory_size=encoder.output_size if attention else None,
            start_sizes=encoder.final_sizes,
            dropout=dropout,
            forget_bias=forget_bias,
            scale_embeddings=scale_embeddings,
        )
        self.encoder = encoder
        # Keep the order in which parameters were drawn: a checkpoint's optimiser identifies them by their index.
        self._modules = {"encoder": self._modules.pop("encoder"), **self._modules}
        self.source_embedding = self.target_embedding if shared else nn.Embedding(source_size, embedding_size)
        if not shared:
            nn.init.uniform_(self.source_embedding.weight, -(embedding_size**-0.5), embedding_size**-0.5)

    def start(self, context: Any) -> DecoderState:
        """Return the decoder's state after the encoder has read tokens `[S, B]`, with one row for each sentence."""
        return super().start(self.read(context))

    def read(self, tokens: Tensor) -> Context:
        """Run the encoder over tokens `[S, B]` and return the decoder's context."""
        lengths = (tokens >= 0).sum(0)
        found = self.encoder.read(
            tokens.clamp(min=0), lengths, lambda ordered: self.dropout(self._embed(self.source_embedding, ordered))
        )
        if self.attending is None:
            return Context(states=found.states)
        return Context(found.annotations, found.lengths, states=found.states)
