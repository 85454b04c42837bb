"""What all decoders of captions have in common: they start from a picture's features and write words."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unrolled.errors import ShapeError
from unrolled.layers import Recurrent
from unrolled.layers.dropout import Dropout
from unrolled.layers.nest import Nest, pick_state
from unrolled.models.attention import Memory
from unrolled.models.contract import Decodable
from unrolled.models.parts import named_cell

#: The names of the moments of features.
MOMENTS = ("mean", "deviation", "grid_mean", "grid_deviation")


@dataclass(frozen=True)
class PictureFeatures:
    """What an encoder gives of B pictures: a vector of each, `[B, D]`, and a grid of P positions, `[B, P, C]`."""

    vector: Tensor
    grid: Tensor | None = None

    def __len__(self) -> int:
        return len(self.vector)


@dataclass(frozen=True)
class CaptionState:
    """A decoder's state between two words of N captions.

    count: N. layers: the states of the layers, None before the first step. vector: what the next step reads of the
    picture, `[N, E]`. memory: what the next step attends to.
    """

    count: int
    layers: Nest = None
    vector: Tensor | None = None
    memory: Memory | None = None


@dataclass
class Trace:
    """What a decoder computed on the way to its features: for penalties and pictures.

    weights: for each step the weights of the positions of the grid, `[N, P]`.
    rebuilt: the picture's vector as the decoder rebuilds it after each step, `[T, N, D]`.
    """

    weights: list[Tensor] = field(default_factory=list)
    rebuilt: Tensor | None = None


class Captioner(Decodable, nn.Module):
    """A decoder with layers of any cell that describes a picture.

    vocabulary_size: the number of tokens, including the end mark, which is also the first input.
    vector_size, grid_size: the widths D and C of `PictureFeatures`.
    cell: a name from `CELLS`.
    unknown: the token of unknown words, which `step` never gives.
    embedding_size: the width of the embedding of words and pictures.
    dropout: the dropout on embeddings, between layers, and before the readout.
    forget_bias: the initial bias of the forget gate, for cells that have one.

    A subclass builds its layers in `_build`, which returns the width of the readout's input, and runs them in `_run`.
    Tokens are int64, time first.
    """

    #: Whether the decoder reads the grid, which then must be there.
    reads_grid = False

    def __init__(
        self,
        vocabulary_size: int,
        vector_size: int,
        grid_size: int = 0,
        cell: str = "lstm",
        *,
        unknown: int | None = None,
        embedding_size: int = 256,
        hidden_size: int = 512,
        num_layers: int = 1,
        dropout: float = 0.5,
        forget_bias: float = 1.0,
    ) -> None:
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.grid_mean: Tensor
        self.grid_deviation: Tensor
        self.vector_size, self.grid_size, self.unknown = vector_size, grid_size, unknown
        self.embedding_size, self.hidden_size, self.num_layers = embedding_size, hidden_size, num_layers
        #: The mean and the deviation of each value of a vector, and of a grid; features are normalised by them.
        self.register_buffer("mean", torch.zeros(vector_size))
        self.register_buffer("deviation", torch.ones(vector_size))
        if self.reads_grid:
            self.register_buffer("grid_mean", torch.zeros(grid_size))
            self.register_buffer("grid_deviation", torch.ones(grid_size))
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.picture = nn.Linear(vector_size, embedding_size)
        self.dropout = Dropout(dropout)
        self._make, self._options, self._projected = named_cell(cell, forget_bias)
        self.readout = nn.Linear(self._build(), vocabulary_size)

    def _layers(self, input_size: int, num_layers: int) -> Recurrent:
        """Build layers of the decoder's cell."""
        return Recurrent(
            self._make,
            input_size,
            self.hidden_size,
            num_layers,
            dropout=self.dropout.p,
            input_projection=self._projected,
            **self._options,
        )

    @abstractmethod
    def _build(self) -> int:
        """Build what the subclass needs, and return the width of the features."""

    @abstractmethod
    def _start(self, picture: PictureFeatures) -> CaptionState:
        """Return the state before the first token."""

    @abstractmethod
    def _run(self, embedded: Tensor, state: CaptionState, trace: Trace) -> tuple[Tensor, CaptionState]:
        """Run over embedded tokens `[T, N, E]`. Return the features `[T, N, F]` and the state."""

    def penalty(self, trace: Trace, counted: Tensor, picture: PictureFeatures) -> Tensor | float:
        """Return what training adds to the cross-entropy, summed over the captions; `counted [T, N]` marks tokens."""
        return 0.0

    # -- the contract of decoding --------------------------------------------------------------------------------

    def start(self, context: Any) -> CaptionState:
        """Return the state before the first token, given `PictureFeatures`; ShapeError if they do not fit."""
        grid, vector = context.grid, context.vector
        if vector.dim() != 2 or vector.size(1) != self.vector_size:
            raise ShapeError(f"vectors {list(vector.shape)} do not fit this decoder: [B, {self.vector_size}]")
        if self.reads_grid and (grid is None or grid.dim() != 3 or grid.size(2) != self.grid_size):
            got = "no grid" if grid is None else f"a grid {list(grid.shape)}"
            raise ShapeError(f"this decoder attends to a grid [B, P, {self.grid_size}], got {got}")
        if self.reads_grid:
            grid = (grid - self.grid_mean) / self.grid_deviation
        return self._start(PictureFeatures((vector - self.mean) / self.deviation, grid))

    def normalise_by(self, moments: Mapping[str, Tensor]) -> None:
        """Normalise features by moments over the pictures of training: "mean" and "deviation" `[D]` of vectors.

        A decoder with attention also needs "grid_mean" and "grid_deviation" `[C]`. Decoders learn several times as fast
        from features with mean 0 and deviation 1.
        """
        for name in MOMENTS if self.reads_grid else MOMENTS[:2]:
            getattr(self, name).copy_(moments[name])

    def step(self, token: Tensor, state: CaptionState) -> tuple[Tensor, CaptionState]:
        """Return `(log_probs [N, V], state)` after one more `token [N]`. The rows of a picture are adjacent."""
        features, state = self._run(self.embedding(token.unsqueeze(0)), state, Trace())
        logits = self.readout(features[0])
        if self.unknown is not None:
            logits[:, self.unknown] = -torch.inf
        return torch.log_softmax(logits, -1), state

    def reorder(self, state: CaptionState, rows: Tensor) -> CaptionState:
        """Return the state of `rows [B', n]`: n rows for each of B' pictures, where the n belong to one picture."""
        chosen = rows.flatten()
        memory = None if state.memory is None else state.memory.reorder(rows, state.count)
        layers, vector = pick_state(state.layers, chosen), pick_state(state.vector, chosen)
        return CaptionState(len(chosen), layers, vector, memory)

    # -- training ------------------------------------------------------------------------------------------------

    def forward(
        self,
        picture: PictureFeatures,
        inputs: Tensor,
        counted: Tensor | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """Return the logits of each next token, `[T, N, V]`, with teacher forcing.

        inputs: the captions' tokens `[T, N]`, each caption after the end mark. Values below 0 are padding. With
            N = B·n, the n captions of a picture are in adjacent columns.
        counted: a mask `[T, N]`. The result then has only the logits where it is true, `[M, V]`.
        trace: collects what was computed on the way.
        """
        state, columns = self.start(picture), inputs.size(1)
        if columns != len(picture):
            if not len(picture) or columns % len(picture):
                raise ShapeError(f"{columns} captions cannot be divided evenly among {len(picture)} pictures")
            rows = torch.arange(len(picture), device=inputs.device).unsqueeze(-1)
            state = self.reorder(state, rows.expand(-1, columns // len(picture)))
        embedded = self.dropout(self.embedding(inputs.clamp(min=0)))
        features, _ = self._run(embedded, state, Trace() if trace is None else trace)
        logits: Tensor = self.readout(self.dropout(features if counted is None else features[counted]))
        return logits

    def loss(
        self,
        picture: PictureFeatures,
        inputs: Tensor,
        targets: Tensor,
        *,
        label_smoothing: float = 0.0,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Return the cross-entropy, summed over targets of 0 and above, with the penalties in training, in nats.

        weights: a factor `[N]` for each caption's cross-entropy, such as its advantage in self-critical training. Then
            there are no penalties.
        """
        counted, trace = targets >= 0, Trace()
        logits = self(picture, inputs, counted, trace)
        if weights is not None:
            if self.unknown is not None:  # a token that is never sampled has no probability
                logits[:, self.unknown] = -torch.inf
            each = cross_entropy(logits, targets[counted], reduction="none", label_smoothing=label_smoothing)
            return (each * weights.expand_as(targets)[counted]).sum()
        loss = cross_entropy(logits, targets[counted], reduction="sum", label_smoothing=label_smoothing)
        return loss + self.penalty(trace, counted, picture) if self.training else loss

    @torch.no_grad()
    def attend(self, picture: PictureFeatures, inputs: Tensor) -> Tensor | None:
        """Return the weights of the grid's positions before each next token, `[T, N, P]`; None without attention."""
        trace = Trace()
        self(picture, inputs, None, trace)
        return torch.stack(trace.weights) if trace.weights else None


def each_step(vector: Tensor, embedded: Tensor) -> Tensor:
    """Return `[x_t; v]` for all steps of `embedded [T, N, E]`, given `vector [N, E']`."""
    return torch.cat([embedded, vector.expand(len(embedded), -1, -1)], -1)


def with_layers(state: CaptionState, layers: Nest) -> CaptionState:
    """Return the state with other states of the layers."""
    return dataclasses.replace(state, layers=layers)
