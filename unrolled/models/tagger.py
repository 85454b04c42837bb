"""A tagger: words and their letters, recurrent layers that read both ways, and a label for every word."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unrolled.layers.dropout import Dropout
from unrolled.models.crf import CRF, Allowed, TagPath
from unrolled.models.encoder import Encoder
from unrolled.unroll.padding import steps_inside


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


class Tagger(nn.Module):
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

    def loss(self, batch: TaggerInput, targets: Tensor) -> Tensor:
        """Return the negative log-likelihood of the tags `targets [T, B]`, summed over all words, in nats.

        Targets below 0 are not counted: of a softmax those words, of a CRF the sentences that have one.
        """
        emissions = self(batch)
        if self.crf is None:
            return cross_entropy(emissions.flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=-1)
        inside = steps_inside(len(targets), batch.lengths).squeeze(2)
        counted = ((targets >= 0) | ~inside).all(0)
        losses = self.crf(emissions, targets.clamp_min(0), batch.lengths)
        total: Tensor = losses.where(counted, 0).sum()
        return total

    @torch.no_grad()
    def decode(self, batch: TaggerInput) -> list[list[int]]:
        """Return the best tags of each sentence."""
        emissions = self(batch)
        if self.crf is not None:
            return self.crf.decode(emissions, batch.lengths)
        best = emissions.argmax(2).t().tolist()
        return [tags[:length] for tags, length in zip(best, batch.lengths.tolist(), strict=True)]

    @torch.no_grad()
    def best(self, batch: TaggerInput, n: int = 1) -> list[list[TagPath]]:
        """Return the `n` best sequences of tags of each sentence, with their log-probabilities."""
        emissions = self(batch)
        crf = self.crf
        if crf is None:  # independent tags are a CRF whose transitions are all 0
            crf = CRF(emissions.size(2)).to(emissions)
        total = crf.log_partition(emissions, batch.lengths).tolist()
        found = crf.best(emissions, batch.lengths, n)
        pairs = zip(found, total, strict=True)
        return [[TagPath(path.tags, path.score - whole) for path in paths] for paths, whole in pairs]

    @torch.no_grad()
    def marginals(self, batch: TaggerInput) -> Tensor:
        """Return the probability of every tag for every word, `[T, B, K]`; zeros after a sentence's end."""
        emissions = self(batch)
        if self.crf is not None:
            return self.crf.marginals(emissions, batch.lengths)
        found: Tensor = emissions.softmax(2) * steps_inside(len(emissions), batch.lengths)
        return found
