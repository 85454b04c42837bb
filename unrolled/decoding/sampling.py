"""Sampling, over any model with `start` and `step`; see `unrolled.models.contract`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unrolled.errors import ConfigurationError, DecodingError
from unrolled.models.contract import StepModel, decodable


@dataclass(frozen=True)
class Sampling:
    """How to choose the next token.

    temperature: log-probabilities are divided by it; 0 takes the most probable token (argmax).
    top_k: keep the k most probable tokens; 0 keeps all.
    top_p: keep the nucleus, the fewest tokens whose probabilities reach p together (Holtzman et al. 2020); 1 keeps all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ConfigurationError(
                f"the temperature must be 0 or above, got {self.temperature}", setting="temperature"
            )
        if self.top_k < 0:
            raise ConfigurationError(f"top-k must be 0 (off) or above, got {self.top_k}", setting="top_k")
        if not 0 < self.top_p <= 1:
            raise ConfigurationError(f"top-p must be above 0 and at most 1, got {self.top_p}", setting="top_p")

    def distribution(self, log_probs: Tensor) -> Tensor:
        """Probabilities `[B, V]` to draw from, made of a model's log-probabilities `[B, V]`.

        DecodingError, with the row, where one holds NaN or +inf, or allows no token.
        """
        most = log_probs.amax(-1, keepdim=True)
        if not bool(most.isfinite().all()):
            row = int((~most.isfinite()).flatten().nonzero()[0])
            raise DecodingError(fault(float(most.flatten()[row])), sentence=row)
        if self.temperature < torch.finfo(log_probs.dtype).tiny:
            return torch.zeros_like(log_probs).scatter_(-1, log_probs.argmax(-1, keepdim=True), 1.0)
        # Subtracting the maximum first keeps tiny temperatures from overflowing.
        scores = (log_probs - most) / self.temperature
        if 0 < self.top_k < scores.size(-1):
            best = scores.topk(self.top_k)
            scores = torch.full_like(scores, -torch.inf).scatter(-1, best.indices, best.values)
        probs = torch.softmax(scores, -1)
        if self.top_p < 1:
            ordered, order = probs.sort(-1, descending=True)
            before = ordered.cumsum(-1) - ordered
            above = before >= self.top_p
            above[..., 0] = False  # the most probable token stays, however small p is
            outside = torch.zeros_like(above).scatter(-1, order, above)
            probs = probs.masked_fill(outside, 0.0)
            probs = probs / probs.sum(-1, keepdim=True)
        return probs

    def draw(self, log_probs: Tensor, draws: Tensor) -> Tensor:
        """Tokens `[B]`, by `draws [B]`, uniform in [0, 1): where the probabilities, summed up in order, exceed them.

        DecodingError as of `distribution`.
        """
        probs = self.distribution(log_probs).to(draws.dtype)
        sums = probs.cumsum(-1)
        tokens = torch.searchsorted(sums, draws.unsqueeze(-1) * sums[:, -1:], right=True).squeeze(-1)
        positive = torch.arange(probs.size(-1), device=probs.device).where(probs > 0, 0)
        return torch.minimum(tokens, positive.max(-1).values)


def fault(most: float) -> str:
    """What is wrong with log-probabilities whose greatest is `most`, which is not finite."""
    return "NaN" if most != most else "+inf" if most > 0 else "-inf for every token"


#: Tokens that a writer makes a call: few enough to look steady on a terminal, enough to make the call's cost small.
_AT_ONCE = 32


@torch.no_grad()
def generate(
    model: StepModel,
    prompt: Tensor,
    sampling: Sampling,
    generator: torch.Generator | None = None,
    state: Any = None,
) -> Iterator[Tensor]:
    """Tokens `[B]`, one step after the other, without end; `prompt [T, B]`, T at least 1, is read first.

    With a `state`, the model goes on from there: the prompt is then the one token `[1, B]` that comes next.
    Dropout is the caller's affair: a module should be in evaluation mode. A model with a `writer` is asked for many
    tokens at once, with its weights as they were at the first; the tokens are the same. DecodingError, with the step
    and the row, where the model's log-probabilities are NaN, +inf, or -inf for every token; the tokens before come
    first.
    """
    made = decodable(model)
    if len(prompt) == 0:
        raise ConfigurationError("a prompt of at least one token is needed to predict the next")
    if state is None:
        state = made.start(prompt[:-1])
    elif len(prompt) != 1:
        raise ConfigurationError("with a state the prompt is one token, the next")
    token = prompt[-1]
    numbers = torch.float32 if token.device.type == "mps" else torch.float64
    writer = made.writer(len(token))
    done = 0
    while True:
        if writer is None:
            log_probs, state = made.step(token, state)
            draws = torch.rand(len(token), generator=generator, dtype=numbers, device=token.device)
            try:
                token = sampling.draw(log_probs, draws)
            except DecodingError as error:
                raise error.at(step=done) from None
            yield token
            done += 1
        else:
            many = torch.rand(_AT_ONCE, len(token), generator=generator, dtype=numbers)
            tokens, state = writer(token, state, sampling, many)
            faults = (tokens < 0).any(1).tolist()
            for chosen, faulty in zip(tokens, faults, strict=True):
                if faulty:
                    raise DecodingError("NaN", step=done, sentence=int((chosen < 0).nonzero()[0]))
                yield chosen
                done += 1
            token = tokens[-1]
