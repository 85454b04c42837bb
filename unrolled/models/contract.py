"""What decoding asks of a model: to start, to take a step, to let its state follow a search."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from unrolled.errors import ConfigurationError
from unrolled.layers.nest import pick_state
from unrolled.unroll.generate import Choice

#: `(token [B], state, choice, draws [T, B]) -> (tokens [T, B], state)`: as T steps, each with a choice by its draws. A
#: token of -1 stands where the log-probabilities are NaN.
Writer = Callable[[Tensor, Any, Choice, Tensor], tuple[Tensor, Any]]


class StepModel(Protocol):
    """The least that sampling, searches and scores need of a model, and all that they know of it."""

    def start(self, context: Any) -> Any:
        """The state before the first token, about whatever the model takes: tokens `[T, B]`, features of pictures."""

    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        """`(log_probs [N, V], state)` after one more `token [N]`."""
        ...


class Decodable(ABC):
    """The whole contract: derive from it and write `start` and `step`; the other methods have defaults.

    A state has rows, one for each token of `step`; in a search those of one sentence stand side by side.
    """

    @abstractmethod
    def start(self, context: Any) -> Any:
        """The state before the first token, one row for each item of a batch of contexts, whatever these are."""

    @abstractmethod
    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        """`(log_probs [N, V], state)` after one more `token [N]`."""

    def reorder(self, state: Any, rows: Tensor) -> Any:
        """The state of `rows [B, n]`: n rows for each of B sentences, all n from one and the same sentence.

        The default is for states that are tensors `[..., N, size]`, or tuples of such, or None.
        """
        return pick_state(state, rows.flatten())

    def writer(self, batch: int) -> Writer | None:
        """What makes many tokens a call, from the weights as they are; None (the default): there is no such way."""
        return None


class _Adapted(Decodable):
    """A model with `start` and `step` that derives from nothing; a `reorder` or `writer` that it has is used."""

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
    """The model with the whole contract. ConfigurationError if it has no `step`."""
    if isinstance(model, Decodable):
        return model
    if not callable(getattr(model, "step", None)):
        raise ConfigurationError(
            f"a {type(model).__name__} cannot be decoded: it needs start(context) -> state and "
            "step(token, state) -> (log_probs, state)"
        )
    return _Adapted(model)
