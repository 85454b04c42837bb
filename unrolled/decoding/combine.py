"""Ensembles of models, and a model's log-probabilities of given outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.decoding.sampling import fault
from unrolled.errors import ConfigurationError, DecodingError
from unrolled.models.contract import Decodable, StepModel, decodable

MEANS = ("probabilities", "log-probabilities")


class Ensemble(Decodable):
    """An ensemble of models with the same vocabulary. For each token it averages the models' predictions.

    mean: whether "probabilities" are averaged, or "log-probabilities", which are then normalised again.
    """

    def __init__(self, models: Sequence[StepModel], mean: str = "probabilities") -> None:
        if not models:
            raise ConfigurationError("an ensemble needs at least one model")
        if mean not in MEANS:
            raise ConfigurationError(f"unknown mean {mean!r}: choose from {', '.join(MEANS)}")
        self.models, self.mean = [decodable(model) for model in models], mean

    def start(self, context: Any) -> list[Any]:
        return [model.start(context) for model in self.models]

    def step(self, token: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:
        results = [model.step(token, part) for model, part in zip(self.models, state, strict=True)]
        if len(results) == 1:
            return results[0][0], [results[0][1]]
        log_probs = torch.stack([log_probs for log_probs, _ in results])
        if self.mean == "probabilities":
            log_probs = torch.logsumexp(log_probs, 0) - torch.tensor(float(len(results))).log()
        else:
            mean = log_probs.mean(0)
            none = mean.amax(-1, keepdim=True) == -torch.inf  # no token is allowed by all models
            log_probs = torch.log_softmax(mean, -1).masked_fill(none, -torch.inf)
        return log_probs, [part for _, part in results]

    def reorder(self, state: list[Any], rows: Tensor) -> list[Any]:
        return [model.reorder(part, rows) for model, part in zip(self.models, state, strict=True)]


@torch.no_grad()
def forced_log_probs(model: StepModel, state: Any, first: Tensor, outputs: Tensor) -> Tensor:
    """Return `log P` `[B, N]` of N given `outputs [T, B, N]` for each of B sentences.

    outputs: tokens including the end. Values below 0 are padding.
    state, first: see `BeamSearch.search`.
    Raises DecodingError, with the step, the sentence and the output, if one of these log-probabilities is NaN or +inf.
    """
    steps, count, each = outputs.shape
    rows = torch.arange(count, device=outputs.device).unsqueeze(-1).expand(-1, each)
    decoder = decodable(model)
    state = decoder.reorder(state, rows)
    token = first.unsqueeze(-1).expand(-1, each).reshape(-1)
    gains = []
    for time in range(steps):
        log_probs, state = decoder.step(token, state)
        target = outputs[time].reshape(-1)
        token = target.clamp(min=0)
        gained = log_probs.gather(-1, token.unsqueeze(-1)).squeeze(-1)
        gains.append(torch.where(target >= 0, gained, torch.zeros_like(gained)))
    if not gains:
        return torch.zeros(count, each, device=outputs.device)
    every = torch.stack(gains).view(steps, count, each)
    total = every.sum(0)
    if not bool((total < torch.inf).all()):
        time, row, k = (~(every < torch.inf)).nonzero()[0].tolist()
        tokens = tuple(outputs[:time, row, k].tolist())
        raise DecodingError(fault(float(every[time, row, k])), step=time, sentence=row, hypothesis=k, tokens=tokens)
    return total
