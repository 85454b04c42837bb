"""Sampling from any model with `start` and `step`; see `unrolled.models.contract`."""

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
    """Sampling of the next token and its settings.

    temperature: log-probabilities are divided by it; 0 takes the most probable token (argmax).
    top_k: keep the k most probable tokens; 0 keeps all.
    top_p: keep the nucleus, the fewest tokens whose total probability reaches p (Holtzman et al. 2020); 1 keeps all.
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
        """Return the probabilities `[B, V]` to draw from, given a model's log-probabilities `[B, V]`.

        Raises DecodingError, with the row, if a row holds NaN or +inf or allows no token.
        """
        most = log_probs.amax(-1, keepdim=True)
        if not bool(most.isfinite().all()):
            row = int((~most.isfinite()).flatten().nonzero()[0])
            raise DecodingError(fault(float(most.flatten()[row])), sentence=row)
        if self.temperature < torch.finfo(log_probs.dtype).tiny:
            return torch.zeros_like(log_probs).scatter_(-1, log_probs.argmax(-1, keepdim=True), 1.0)
        # The maximum is subtracted first, so that tiny temperatures do not overflow.
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
        """Draw tokens `[B]` by inverse transform sampling with `draws [B]`, which are uniform in [0, 1).

        Raises DecodingError like `distribution`.
        """
        probs = self.distribution(log_probs).to(draws.dtype)
        sums = probs.cumsum(-1)
        tokens = torch.searchsorted(sums, draws.unsqueeze(-1) * sums[:, -1:], right=True).squeeze(-1)
        positive = torch.arange(probs.size(-1), device=probs.device).where(probs > 0, 0)
        return torch.minimum(tokens, positive.max(-1).values)


def fault(most: float) -> str:
    """Describe what is wrong with log-probabilities whose maximum `most` is not finite."""
    return "NaN" if most != most else "+inf" if most > 0 else "-inf for every token"


#: How many tokens a writer generates in one call. Few enough for steady output on a terminal, and enough to make the
#: cost of a call small.
_AT_ONCE = 32


@torch.no_grad()
def generate(
    model: StepModel,
    prompt: Tensor,
    sampling: Sampling,
    generator: torch.Generator | None = None,
    state: Any = None,
) -> Iterator[Tensor]:
    """Yield tokens `[B]`, one step after another, without end.

    prompt: tokens `[T, B]` that are read first, T at least 1.
    state: a state to continue from. The prompt must then be the one next token, `[1, B]`.

    The caller should put the model into evaluation mode, which turns dropout off. A model with a `writer` generates
    many tokens per call, with the weights that it has at the first token. The tokens are the same.
    Raises DecodingError, with the step and the row, if the model's log-probabilities are NaN, +inf, or -inf for every
    token. The tokens of earlier steps are yielded first.
    """
    decoder = decodable(model)
    if len(prompt) == 0:
        raise ConfigurationError("the prompt is empty: give at least one token")
    if state is None:
        state = decoder.start(prompt[:-1])
    elif len(prompt) != 1:
        raise ConfigurationError(f"with a state the prompt must be the one next token, got {len(prompt)} tokens")
    token = prompt[-1]
    numbers = torch.float32 if token.device.type == "mps" else torch.float64
    writer = decoder.writer(len(token))
    done = 0
    while True:
        if writer is None:
            log_probs, state = decoder.step(token, state)
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
