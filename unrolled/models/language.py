"""The recurrent language model: `P(y_t | y_<t) = softmax(W h_t + b)`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from unrolled.cells import State
from unrolled.errors import CompilerError, ConfigurationError, UntraceableError
from unrolled.layers import Recurrent
from unrolled.layers.dropout import Dropout
from unrolled.layers.nest import Nest, flatten, unflatten
from unrolled.layers.stack import Stack, by_name
from unrolled.models.contract import Decodable, Writer
from unrolled.models.parts import named_cell
from unrolled.unroll.adapt import WithOutput
from unrolled.unroll.embedded import Embedded
from unrolled.unroll.fallback import say_fallback, why_not_native
from unrolled.unroll.generate import Choice, Generator


class LanguageModel(Decodable, nn.Module):
    """A language model: an embedding, recurrent layers of any cell, and a linear readout over the vocabulary.

    embedding_size: the width of the learned embedding; 0 feeds one-hot vectors, as min-char-rnn does.
    hidden_size: one width, or one for each layer.
    dropout: the dropout between layers and before the readout.
    forget_bias: the initial bias of the forget gate, for cells that have one.
    tie_weights: tie the readout's matrix to the embedding (Press & Wolf 2017). Their sizes must be equal.

    `forward(tokens [T, B], state)` returns `(logits [T, B, V], state)`. `start` and `step` are the interface for
    decoding.
    """

    def __init__(
        self,
        vocabulary_size: int,
        cell: str = "lstm",
        *,
        embedding_size: int = 128,
        hidden_size: int | Sequence[int] = 256,
        num_layers: int | None = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        tie_weights: bool = False,
        forget_bias: float = 1.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        make, cell_options, needs_equal_sizes = named_cell(cell, forget_bias)
        self.vocabulary_size = vocabulary_size
        self.embedding = nn.Embedding(vocabulary_size, embedding_size) if embedding_size else None
        self.recurrent = Recurrent(
            make,
            embedding_size or vocabulary_size,
            hidden_size,
            num_layers,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            zoneout=zoneout,
            input_projection=needs_equal_sizes,
            backend=backend,
            **cell_options,
        )
        self.dropout = Dropout(dropout)
        self.readout = nn.Linear(self.recurrent.output_size, vocabulary_size)
        if tie_weights:
            if self.embedding is None or embedding_size != self.recurrent.output_size:
                raise ConfigurationError(
                    f"tied weights need an embedding of the last layer's size ({self.recurrent.output_size}), "
                    f"got {embedding_size}: set it to {self.recurrent.output_size}"
                )
            self.embedding.weight = self.readout.weight  # its initial values are small enough for both

    def forward(self, tokens: Tensor, state: Nest = None) -> tuple[Tensor, Nest]:
        outputs, state = self.read(tokens, state)
        return self.readout(self.dropout(outputs)), state

    def read(self, tokens: Tensor, state: Nest = None) -> tuple[Tensor, Nest]:
        """Return `(outputs [T, B, H], state)` of the recurrent layers, without the readout."""
        outputs, state = self.recurrent(self._inputs(tokens), state)
        return outputs, state

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the input of the recurrent layers, `[T, B, I]`, for `tokens [T, B]`."""
        inputs = self._inputs(tokens)
        return inputs.dense() if isinstance(inputs, Embedded) else inputs

    def _inputs(self, tokens: Tensor) -> Embedded | Tensor:
        if self.embedding is not None:
            return Embedded(self.embedding.weight, tokens)
        if self.vocabulary_size > tokens.numel():  # a table of all one-hot vectors would be larger
            return one_hot(tokens, self.vocabulary_size).to(self.readout.weight.dtype)
        return Embedded(self._one_hot_table(), tokens)

    def _one_hot_table(self) -> Tensor:
        like = self.readout.weight
        return torch.eye(self.vocabulary_size, dtype=like.dtype, device=like.device)

    def start(self, context: Tensor) -> Nest:
        """Return the state after reading `context [T, B]`, or None, the empty state, if T is 0."""
        return self.read(context)[1] if len(context) else None

    def step(self, token: Tensor, state: Nest) -> tuple[Tensor, Nest]:
        """Return `(log_probs [B, V], state)` after one more token `[B]`."""
        logits, state = self(token.unsqueeze(0), state)
        return torch.log_softmax(logits[0], -1), state

    def writer(self, batch: int) -> Writer | None:
        """Return a function that generates many tokens per call in native code with the current weights, or None.

        It is None if native code cannot be used.
        """
        table = self._one_hot_table() if self.embedding is None else self.embedding.weight
        if self.training or self.recurrent.backend not in ("auto", "native") or why_not_native(table, ()):
            return None
        stack = self.recurrent.stack()
        try:
            generator = Generator(_WithReadout(stack, self.readout), table, batch)
        except (UntraceableError, CompilerError) as error:
            say_fallback("generation", error)
            return None

        def write(token: Tensor, state: Nest, choice: Choice, draws: Tensor) -> tuple[Tensor, Nest]:
            given = self.recurrent.by_layer(state)
            first = stack.initial_state(batch, like=table) if state is None else flatten(given)
            tokens, last = generator(token, first, choice, draws)
            return tokens, by_name(unflatten(last, stack.sizes))

        return write


class _WithReadout(WithOutput):
    """A language model as one cell. The input is an embedded token, and the output is the logits."""

    def __init__(self, stack: Stack, readout: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.stack, self.readout = stack, readout
        self.input_size, self.hidden_size = stack.input_size, readout.out_features
        self.state_names = stack.state_names  # type: ignore[misc]
        self.training = False

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return self.stack.state_sizes

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        output, new = self.stack.step(x, state)
        return self.readout(output), new
