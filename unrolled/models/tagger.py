"""A tagger: words and their letters, recurrent layers that read both ways, and a label for every word."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from unrolled.layers.dropout import Dropout
from unrolled.models.crf import CRF, Allowed
from unrolled.models.encoder import Encoder
from unrolled.models.step_labeller import StepLabeller


class TaggerInput(Protocol):
    """A batch of B sentences of at most T words.

    words: the tokens of the words, `[T, B]`. lengths: `[B]`.
    spellings: the distinct words of the batch as characters, `[C, U]`, with `spelling_lengths [U]`.
    forms: which of these each word is, `[T, B]`.
    """

    @property
    def words(self) -> Tensor: ...
    @property
    def lengths(self) -> Tensor: ...
    @property
    def spellings(self) -> Tensor: ...
    @property
    def spelling_lengths(self) -> Tensor: ...
    @property
    def forms(self) -> Tensor: ...


class Tagger(StepLabeller):
    """Scores every tag for every word: embedded words and letters, layers of any cell, a readout, and maybe a CRF.

    words, characters, tags: how many there are of each.
    character_size: the width of a character's embedding; a small bidirectional layer reads each word's characters, and
        its last states join the word's embedding. 0: words alone.
    crf: whether a CRF scores sequences of tags, over the readout. allowed: the tags that may follow one another in it.
    dropout: on the input of the layers, between them, and on their output.

    Source: Lample et al. 2016, "Neural Architectures for Named Entity Recognition".
    """

    def __init__(
        self,
        words: int,
        characters: int,
        tags: int,
        cell: str = "lstm",
        *,
        embedding_size: int = 100,
        character_size: int = 32,
        character_hidden_size: int = 50,
        hidden_size: int = 200,
        num_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.5,
        forget_bias: float = 1.0,
        crf: bool = True,
        allowed: Allowed | None = None,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding_size)
        width = embedding_size
        self.characters: nn.Embedding | None = None
        if character_size:
            self.characters = nn.Embedding(characters, character_size)
            self.speller = Encoder(cell, character_size, character_hidden_size, forget_bias=forget_bias)
            width += self.speller.output_size
        self.recurrent = Encoder(
            cell,
            width,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            forget_bias=forget_bias,
        )
        self.dropout = Dropout(dropout)
        self.readout = nn.Linear(self.recurrent.output_size, tags)
        self.crf = CRF(tags, allowed) if crf else None

    def forward(self, batch: TaggerInput) -> Tensor:
        """Return the score of every tag for every word, `[T, B, K]`."""
        inputs = self.embedding(batch.words)
        if self.characters is not None:
            _, states = self.speller.run(self.characters(batch.spellings), lengths=batch.spelling_lengths)
            ends = torch.cat([state[0] for state in states], 1)  # of both directions
            inputs = torch.cat([inputs, ends[batch.forms]], 2)
        outputs, _ = self.recurrent.run(self.dropout(inputs), lengths=batch.lengths)
        emissions: Tensor = self.readout(self.dropout(outputs))
        return emissions
