"""Sequence to sequence: an encoder reads the source, a decoder writes the target."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from unrolled.errors import ConfigurationError
from unrolled.models.decoder import Context, Decoder, DecoderState
from unrolled.models.encoder import Encoder


class EncoderDecoder(Decoder):
    """A decoder about sequences of tokens, which an encoder reads; joined by its last state, and attention if wanted.

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
    forget_bias, scale_embeddings: as in `Decoder`, of both.

    The encoder's last states start the decoder: as they are where its layers have the same form, else through a bridge,
    `tanh(W [all states of the layer] + b)`. The target's embedding is the readout's matrix too.
    Tokens are int64, time first; whatever is below 0 is padding and stands after a sentence's end.
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
        # Its parameters come first, as they were drawn: a checkpoint's optimiser knows parameters by their number.
        self._modules = {"encoder": self._modules.pop("encoder"), **self._modules}
        self.source_embedding = self.target_embedding if shared else nn.Embedding(source_size, embedding_size)
        if not shared:
            nn.init.uniform_(self.source_embedding.weight, -(embedding_size**-0.5), embedding_size**-0.5)

    def start(self, context: Any) -> DecoderState:
        """The decoder's state after the encoder has read tokens `[S, B]`, one row a sentence."""
        return super().start(self.read(context))

    def read(self, tokens: Tensor) -> Context:
        """What the encoder makes of tokens `[S, B]`."""
        lengths = (tokens >= 0).sum(0)
        found = self.encoder.read(
            tokens.clamp(min=0), lengths, lambda ordered: self.dropout(self._embed(self.source_embedding, ordered))
        )
        if self.attending is None:
            return Context(states=found.states)
        return Context(found.annotations, found.lengths, states=found.states)
