"""Language models that score the labels of a CTC beam: the interface, and any model with `start` and `step`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unrolled.decoding.sampling import fault
from unrolled.errors import ConfigurationError, DecodingError
from unrolled.layers.nest import join_states
from unrolled.models.contract import StepModel, decodable

if TYPE_CHECKING:
    from unrolled.data import Vocabulary


class LabelScorer(ABC):
    """A language model over labels. It scores every label that may follow a prefix.

    `states` stand for N prefixes. Scores are natural log-probabilities, float64 `[N, K]`; that of the blank is ignored.
    """

    #: The number of labels K, including the blank.
    labels: int
    #: Whether the end of an output has a score of its own.
    scores_end = False

    @abstractmethod
    def start(self) -> tuple[Any, np.ndarray]:
        """Return the states and the scores `[1, K]` of the empty prefix."""

    @abstractmethod
    def step(self, labels: np.ndarray, states: Any) -> tuple[Any, np.ndarray]:
        """Return the states and the scores `[N, K]` after one more label `[N]` of each prefix."""

    @abstractmethod
    def pick(self, states: Any, rows: np.ndarray) -> Any:
        """Return the states of the prefixes `rows [n]`. A row may occur several times."""

    @abstractmethod
    def join(self, states: Any, more: Any) -> Any:
        """Return the states of two batches of prefixes as one batch."""

    def end(self, states: Any) -> np.ndarray:
        """Return the log-probabilities `[N]` that the outputs end here. Needed only if `scores_end`."""
        raise NotImplementedError


class ModelScorer(LabelScorer):
    """Any model with `start` and `step` (see `unrolled.models.contract`), such as a language model of characters.

    tokens: the model's token for each label, K in all; see `label_tokens`. The entry of the blank is ignored.
    context: tokens that the model reads first, at least one: a line end for a model of lines.
    end: the token that ends an output, or None if the end has no score.

    States must be tensors `[..., N, size]`, tuples of such tensors, or None. The caller should put the model into
    evaluation mode. The model runs on the device of `context`, if that is a tensor.
    Raises ConfigurationError if a label has no token, or there is no context.
    """

    def __init__(
        self,
        model: StepModel,
        tokens: Sequence[int],
        context: Sequence[int] | Tensor,
        end: int | None = None,
        blank: int = 0,
    ) -> None:
        self.model, self.labels, self.last = decodable(model), len(tokens), end
        self.scores_end = end is not None
        self.context = torch.as_tensor(context, dtype=torch.long)
        if not len(self.context):
            raise ConfigurationError("the language model needs a context of at least one token, such as a line end")
        without = [label for label, token in enumerate(tokens) if token < 0 and label != blank]
        if without:
            raise ConfigurationError(f"label {without[0]} has no token of the language model")
        self.tokens = torch.as_tensor(tokens, dtype=torch.long, device=self.context.device).clamp(min=0)

    @torch.no_grad()
    def start(self) -> tuple[Any, np.ndarray]:
        state = self.model.start(self.context[:-1].unsqueeze(-1))
        return self._scored(*self.model.step(self.context[-1:], state))

    @torch.no_grad()
    def step(self, labels: np.ndarray, states: Any) -> tuple[Any, np.ndarray]:
        return self._scored(*self.model.step(self.tokens[torch.as_tensor(labels).to(self.tokens.device)], states[0]))

    def pick(self, states: Any, rows: np.ndarray) -> Any:
        state, ends = states
        index = torch.as_tensor(rows).to(ends.device)
        return self.model.reorder(state, index.unsqueeze(0)), ends[index]

    def join(self, states: Any, more: Any) -> Any:
        return join_states([states[0], more[0]]), torch.cat([states[1], more[1]])

    def end(self, states: Any) -> np.ndarray:
        return _numbers(states[1])

    def _scored(self, log_probs: Tensor, state: Any) -> tuple[Any, np.ndarray]:
        """Return the states, each with the log-probability of the end, and the scores of the labels."""
        most = log_probs.amax(-1)
        broken = ~(most < torch.inf)
        if bool(broken.any()):
            raise DecodingError(fault(float(most[broken][0])))
        ends = log_probs[:, self.last] if self.last is not None else torch.zeros_like(most)
        return (state, ends), _numbers(log_probs[:, self.tokens])


def label_tokens(labels: Sequence[str], vocabulary: Vocabulary, blank: int = 0) -> list[int]:
    """Return the vocabulary's token for the text of each label, and -1 for the blank.

    Raises ConfigurationError, with the labels, if the vocabulary does not have exactly one token for a label.
    """
    encoded = [vocabulary.encode(text) for text in labels]
    faulty = [
        repr(text)
        for label, (text, tokens) in enumerate(zip(labels, encoded, strict=True))
        if label != blank and (len(tokens) != 1 or vocabulary.unknown(text))
    ]
    if faulty:
        raise ConfigurationError(
            f"the language model's vocabulary does not have one token each for these labels: {', '.join(faulty)}. "
            "Use a language model of characters whose training text contains them"
        )
    return [-1 if label == blank else int(tokens[0]) for label, tokens in enumerate(encoded)]


def _numbers(values: Tensor) -> np.ndarray:
    found: np.ndarray = values.double().cpu().numpy()
    return found
