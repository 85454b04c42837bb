"""A classifier of sequences: layers of any cell, a pooled summary of their outputs, and a readout over the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from unrolled.layers.dropout import Dropout
from unrolled.models.encoder import Encoder
from unrolled.models.poolings import POOLINGS, Pooling
from unrolled.settings import require_choice

#: The standard deviation of fresh embeddings. With PyTorch's 1, rare words, which stay as drawn, drown the others.
_EMBEDDING_STD = 0.1


class ClassifierInput(Protocol):
    """A batch of B sequences of at most T steps.

    inputs: tokens `[T, B]`, or frames `[T, B, I]` such as features of speech. lengths: `[B]`.
    """

    @property
    def inputs(self) -> Tensor: ...
    @property
    def lengths(self) -> Tensor: ...


class Classifier(nn.Module):
    """Scores the classes of a sequence: embedded tokens or given frames, layers of any cell, and a pooled readout.

    inputs: the number of tokens, or the width of a frame if `embedding_size` is 0.
    classes: how many there are.
    hidden_size: units per layer and direction: one width, or one for each layer.
    pooling: how the outputs of all steps become one vector, a name from `POOLINGS`.
    dropout: on the input of the layers, between them, and on the pooled vector.
    multi: whether a sequence may have any number of classes. Each is then scored by itself, with a sigmoid in place of
        the softmax.
    class_weights: `[K]`, what an error counts for each class: for a sequence of that class, or, with `multi`, for a
        sequence that has it.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        inputs: int,
        classes: int,
        cell: str = "lstm",
        *,
        embedding_size: int = 100,
        hidden_size: int | Sequence[int] = 128,
        num_layers: int | None = None,
        bidirectional: bool = True,
        pooling: str = "max",
        dropout: float = 0.5,
        forget_bias: float = 1.0,
        multi: bool = False,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        require_choice("pooling", pooling, POOLINGS)
        self.multi = multi
        self.embedding = nn.Embedding(inputs, embedding_size) if embedding_size else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=_EMBEDDING_STD)
        self.recurrent = Encoder(
            cell,
            embedding_size or inputs,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            forget_bias=forget_bias,
        )
        self.dropout = Dropout(dropout)
        self.pooling = Pooling(pooling, self.recurrent.output_size, directions=2 if bidirectional else 1)
        self.readout = nn.Linear(self.pooling.output_size, classes)
        self.register_buffer("class_weights", class_weights, persistent=False)

    def layers(self) -> list[list[nn.Parameter]]:
        """Return the parameters in groups from the input to the output: embedding, each recurrent layer, readout."""
        recurrent = zip(self.recurrent.projections, self.recurrent.cells, strict=True)
        groups = [[*before.parameters(), *cells.parameters()] for before, cells in recurrent]
        first = [] if self.embedding is None else [[*self.embedding.parameters()]]
        return [*first, *groups, [*self.pooling.parameters(), *self.readout.parameters()]]

    def forward(self, batch: ClassifierInput) -> Tensor:
        """Return the scores (logits) of the classes, `[B, K]`."""
        return self.judge(self.read(batch), batch.lengths)

    def read(self, batch: ClassifierInput) -> Tensor:
        """Return the outputs of the layers at every step, `[T, B, C]`."""
        inputs = batch.inputs if self.embedding is None else self.embedding(batch.inputs)
        outputs, _ = self.recurrent.run(self.dropout(inputs), lengths=batch.lengths)
        return outputs

    def judge(self, outputs: Tensor, lengths: Tensor) -> Tensor:
        """Return the scores `[B, K]` of sequences with these `outputs [T, B, C]`; of an empty one, the bias."""
        scores: Tensor = self.readout(self.dropout(self.pooling(outputs, lengths)))
        return scores

    def loss(self, batch: ClassifierInput, targets: Tensor) -> Tensor:
        """Return the negative log-likelihood of the classes, summed over all targets, in nats.

        targets: classes `[B]`, or with `multi` 0 and 1, `[B, K]`. Those below 0 are not counted.
        """
        return self.loss_of(self(batch), targets)

    def loss_of(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return the loss for the scores `[B, K]` of `forward`."""
        if not self.multi:
            return cross_entropy(scores, targets, self.class_weights, reduction="sum", ignore_index=-1)
        wanted = targets.clamp_min(0).to(scores.dtype)
        losses = binary_cross_entropy_with_logits(scores, wanted, pos_weight=self.class_weights, reduction="none")
        total: Tensor = losses.where(targets >= 0, 0).sum()
        return total

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return the probability of every class, `[B, K]`, for the scores of `forward`."""
        return scores.sigmoid() if self.multi else scores.softmax(1)


def log_odds(scores: Tensor, multi: bool = False) -> Tensor:
    """Return the log-odds `ln p / (1 - p)` of every class, `[B, K]`, for the scores of `Classifier.forward`."""
    if multi:
        return scores
    classes = scores.size(1)
    others = scores.unsqueeze(1).expand(-1, classes, -1)
    own = torch.eye(classes, dtype=torch.bool, device=scores.device)
    return scores - others.masked_fill(own, -torch.inf).logsumexp(2)
