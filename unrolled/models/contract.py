"""The interface of a model for decoding: to start, to take a step, and to reorder its state during a search."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from unrolled.errors import ConfigurationError
from unrolled.layers.nest import pick_state
from unrolled.unroll.generate import Choice

#: `(token [B], state, choice, draws [T, B]) -> (tokens [T, B], state)`: takes T steps and chooses the tokens of each by
#: its draws. A token of -1 means that the log-probabilities are NaN.
Writer = Callable[[Tensor, Any, Choice, Tensor], tuple[Tensor, Any]]


class StepModel(Protocol):
    """The methods that a model must have for sampling, search and scoring."""

    def start(self, context: Any) -> Any:
        """Return the state before the first token. `context` is any input of the model, such as tokens `[T, B]`."""

    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return `(log_probs [N, V], state)` after one more `token [N]`."""
        ...


class Decodable(ABC):
    """A base class for models with the whole interface. A subclass defines `start` and `step`.

    The other methods have defaults. A state has one row for each token of `step`. In a search the rows of a sentence
    are adjacent.
    """

    @abstractmethod
    def start(self, context: Any) -> Any:
        """Return the state before the first token, with one row for each item of a batch of contexts."""

    @abstractmethod
    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return `(log_probs [N, V], state)` after one more `token [N]`."""

    def reorder(self, state: Any, rows: Tensor) -> Any:
        """Return the state of `rows [B, n]`: n rows for each of B sentences, where these n belong to the same sentence.

        The default works for states that are tensors `[..., N, size]`, tuples of such tensors, or None.
        """
        return pick_state(state, rows.flatten())

    def writer(self, batch: int) -> Writer | None:
        """Return a function that generates many tokens in one call with the current weights, or None (the default)."""
        return None


class _Adapted(Decodable):
    """An adapter for a model that is not a `Decodable`. It uses the model's `reorder` and `writer` if they exist."""

    def __init__(self, model: StepModel) -> None:
        self.model = model
        self._reorder = getattr(model, "reorder", super().reorder)
        self._writer = getattr(model, "writer", super().writer)

    def start(self, context: Any) -> Any:
        return self.model.start(context)

    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.model.step(token, state)

    def reorder(self, state: Any, rows: Tensor) -> Any:
        return self._reorder(state, rows)

    def writer(self, batch: int) -> Writer | None:
        return self._writer(batch)


def decodable(model: StepModel) -> Decodable:
    """Return the model with the whole interface. Raises ConfigurationError if it has no `step`."""
    if isinstance(model, Decodable):
        return model
    if not callable(getattr(model, "step", None)):
        raise ConfigurationError(
            f"a {type(model).__name__} cannot be decoded: it needs start(context) -> state and "
            "step(token, state) -> (log_probs, state)"
        )
    return _Adapted(model)
