"""A linear-chain conditional random field: scores whole sequences of tags over the scores of single ones.

Source: Lafferty, McCallum & Pereira 2001, "Conditional Random Fields"; over recurrent nets: Huang, Xu & Yu 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unrolled.errors import ConfigurationError, ShapeError
from unrolled.unroll.padding import steps_inside

#: Stands for minus infinity in sums whose gradient is taken: that of `logsumexp` is NaN if all its values are infinite.
_NEVER = -1e30


class Allowed(NamedTuple):
    """The tags that may start a sequence, end it, and follow one another, as Booleans.

    starts, ends: `[K]`. transitions: `[K, K]`, from the row's tag to the column's.
    """

    starts: Tensor
    ends: Tensor
    transitions: Tensor


class TagPath(NamedTuple):
    """A sequence of tags and its score, whose log-probability is `score - log_partition`."""

    tags: list[int]
    score: float


class CRF(nn.Module):
    """A linear-chain CRF over `K` tags: `P(y | e) = exp(score(e, y)) / Σ_y' exp(score(e, y'))`.

    The score of a sequence is the sum of its emissions `e_t[y_t]`, of `transitions[y_(t-1), y_t]`, and of `starts[y_1]`
    and `ends[y_T]`. Emissions are any scores of tags, such as the readout of a recurrent layer.

    allowed: the tags that may start, end and follow one another; all by default. A sequence that breaks these rules has
        the probability 0.

    Shapes: `emissions [T, B, K]`, `tags [T, B]`, `lengths [B]` from 1 to T (all T by default). Values after a
    sequence's length are never read.
    """

    allowed_starts: Tensor
    allowed_ends: Tensor
    allowed_transitions: Tensor

    def __init__(self, num_tags: int, allowed: Allowed | None = None) -> None:
        super().__init__()
        if num_tags < 1:
            raise ConfigurationError(f"num_tags must be at least 1, got {num_tags}")
        self.num_tags = num_tags
        self.starts = nn.Parameter(torch.zeros(num_tags))
        self.ends = nn.Parameter(torch.zeros(num_tags))
        self.transitions = nn.Parameter(torch.zeros(num_tags, num_tags))
        everything = Allowed(*(torch.ones_like(part, dtype=torch.bool) for part in self.parameters()))
        for name, mask, parameter in zip(Allowed._fields, allowed or everything, self.parameters(), strict=True):
            if mask.shape != parameter.shape or mask.dtype != torch.bool:
                raise ShapeError(
                    f"allowed.{name} must be {list(parameter.shape)} Booleans, got {list(mask.shape)} {mask.dtype}"
                )
            self.register_buffer(f"allowed_{name}", mask.clone(), persistent=False)

    def extra_repr(self) -> str:
        return f"num_tags={self.num_tags}"

    def forward(self, emissions: Tensor, tags: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the negative log-likelihood of each sequence of tags, `[B]`; infinity if it is not allowed."""
        dtype = torch.promote_types(emissions.dtype, torch.float32)
        emissions, lengths = self._check(emissions, lengths)  # once for both
        return (self.log_partition(emissions, lengths) - self.score(emissions, tags, lengths)).to(dtype)

    def score(self, emissions: Tensor, tags: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the score of each sequence of tags, `[B]`, float64; minus infinity if it is not allowed."""
        emissions, lengths = self._check(emissions, lengths)
        if tags.shape != emissions.shape[:2]:
            raise ShapeError(f"tags must be {list(emissions.shape[:2])}, got {list(tags.shape)}")
        starts, ends, transitions = self._masked(emissions.dtype)
        inside = steps_inside(len(emissions), lengths).squeeze(2)
        tags = tags.where(inside, 0)
        if tags.device.type == "cpu" and tags.numel() and not 0 <= int(tags.min()) <= int(tags.max()) < self.num_tags:
            raise ShapeError(f"tags must be from 0 to {self.num_tags - 1} within the lengths")
        last = tags.gather(0, (lengths - 1).unsqueeze(0)).squeeze(0)
        single = emissions.gather(2, tags.unsqueeze(2)).squeeze(2)
        pairs = transitions[tags[:-1], tags[1:]]
        # Not times `inside`: minus infinity times 0 is NaN.
        single, pairs = (value.where(mask, 0) for value, mask in ((single, inside), (pairs, inside[1:])))
        return starts[tags[0]] + single.sum(0) + pairs.sum(0) + ends[last]

    def log_partition(self, emissions: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the logarithm of the sum of `exp(score)` over all sequences of tags, `[B]`, float64."""
        emissions, lengths = self._check(emissions, lengths)
        starts, ends, transitions = self._masked(emissions.dtype, _NEVER)
        inside = steps_inside(len(emissions), lengths)
        by_target = transitions.t().unsqueeze(0)
        alpha = starts + emissions[0]
        for now, mask in zip(emissions[1:].unbind(0), inside[1:].unbind(0), strict=True):
            following = torch.logsumexp(alpha.unsqueeze(1) + by_target, 2) + now
            alpha = following.where(mask, alpha)
        total = torch.logsumexp(alpha + ends, 1)
        return total.where(total > _NEVER / 2, -torch.inf)

    def marginals(self, emissions: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the probability of every tag at every step, `[T, B, K]`; zeros after a sequence's length.

        They are the gradient of the log-partition with respect to the emissions. They carry no gradient themselves.
        """
        with torch.inference_mode(False), torch.enable_grad():
            wide = emissions.detach().clone().to(_wide(emissions)).requires_grad_()
            (found,) = torch.autograd.grad(self.log_partition(wide, lengths).sum(), wide)
        return found.to(torch.promote_types(emissions.dtype, torch.float32))

    @torch.no_grad()
    def decode(self, emissions: Tensor, lengths: Tensor | None = None) -> list[list[int]]:
        """Return the best sequence of tags for each of the B sequences, by the algorithm of Viterbi.

        Raises ConfigurationError if no sequence is allowed or emissions are NaN.
        """
        found = self.best(emissions, lengths)
        require_paths(found, emissions)
        return [paths[0].tags for paths in found]

    @torch.no_grad()
    def best(self, emissions: Tensor, lengths: Tensor | None = None, n: int = 1) -> list[list[TagPath]]:
        """Return the `n` best sequences of tags for each of the B sequences, the best first.

        There are fewer if fewer sequences are allowed. Source: Seshadri & Sundberg 1994, "List Viterbi decoding".
        """
        if n < 1:
            raise ConfigurationError(f"n must be at least 1, got {n}")
        emissions, lengths = self._check(emissions, lengths)
        starts, ends, transitions = self._masked(emissions.dtype)
        batch, tags = emissions.shape[1:]
        # scores [B, K, n]: of the best ways to arrive at a tag, the best first; those that do not exist are -inf.
        scores = emissions.new_full((batch, tags, n), -torch.inf)
        scores[:, :, 0] = starts + emissions[0]
        history, origins = [scores], []
        for now in emissions[1:]:
            arriving = (scores.unsqueeze(3) + transitions.unsqueeze(1)).flatten(1, 2)  # [B, K·n, K]
            scores, origin = arriving.topk(min(n, arriving.size(1)), 1)
            scores = nn.functional.pad(scores.transpose(1, 2), (0, n - scores.size(1)), value=-torch.inf)
            scores = scores + now.unsqueeze(2)
            history.append(scores)
            origins.append(origin.transpose(1, 2))
        last = torch.stack(history)[lengths - 1, torch.arange(batch, device=lengths.device)]  # [B, K, n]
        totals, places = (last + ends.unsqueeze(1)).flatten(1).topk(min(n, tags * n), 1)
        back = torch.stack(origins).cpu().numpy() if origins else None
        found: list[list[TagPath]] = []
        for row, length in enumerate(lengths.tolist()):
            paths = zip(totals[row].tolist(), places[row].tolist(), strict=True)
            found.append([_path(score, place, back, row, length, n) for score, place in paths if score > -torch.inf])
        return found

    def possible(self, longest: int) -> Tensor:
        """Return whether the rules allow a sequence of each length from 1 to `longest`, `[longest]` Booleans."""
        transitions = self.allowed_transitions.cpu().numpy()
        reached, ends = self.allowed_starts.cpu().numpy(), self.allowed_ends.cpu().numpy()
        found = []
        for _ in range(longest):
            found.append(bool((reached & ends).any()))
            reached = transitions[reached].any(0)
        return torch.tensor(found, dtype=torch.bool)

    def without_rules(self) -> CRF:
        """Return a CRF with the same weights, not copies of them, that allows every sequence."""
        free = CRF(self.num_tags).to(self.starts.device)
        free.starts, free.ends, free.transitions = self.starts, self.ends, self.transitions
        return free

    def _masked(self, dtype: torch.dtype, never: float = -torch.inf) -> tuple[Tensor, Tensor, Tensor]:
        """Return starts, ends and transitions with `never` for what is not allowed."""
        return (
            self.starts.to(dtype).masked_fill(~self.allowed_starts, never),
            self.ends.to(dtype).masked_fill(~self.allowed_ends, never),
            self.transitions.to(dtype).masked_fill(~self.allowed_transitions, never),
        )

    def _check(self, emissions: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return emissions and lengths after checking them.

        Sums over thousands of steps in float32 would make probabilities wrong by percents.
        """
        if emissions.dim() != 3 or emissions.size(2) != self.num_tags or not len(emissions):
            said = f"emissions must be [T, B, {self.num_tags}] with T at least 1, got {list(emissions.shape)}"
            raise ShapeError(said)
        steps, batch = emissions.shape[:2]
        emissions = emissions.to(_wide(emissions))
        if lengths is None:
            return emissions, torch.full((batch,), steps, dtype=torch.int64, device=emissions.device)
        lengths = torch.as_tensor(lengths)
        if lengths.shape != (batch,):
            raise ShapeError(f"lengths must be [{batch}], got {list(lengths.shape)}")
        if batch and (int(lengths.min()) < 1 or int(lengths.max()) > steps):
            raise ShapeError(f"lengths must be from 1 to {steps}, got {lengths.tolist()}")
        return emissions, lengths.to(emissions.device, torch.int64)


def require_paths(found: Sequence[Sequence[TagPath]], emissions: Tensor) -> None:
    """Raise ConfigurationError if `CRF.best` found no path for one of the sequences."""
    if not all(found):
        nan = bool(emissions.isnan().any())
        raise ConfigurationError("emissions are NaN" if nan else "the CRF's rules allow no sequence of this length")


def _wide(emissions: Tensor) -> torch.dtype:
    """Return the type to compute sums in: float64, where the device has it."""
    return torch.float32 if emissions.device.type == "mps" else torch.float64


def _path(score: float, place: int, back: Any, row: int, length: int, n: int) -> TagPath:
    """Follow the origins of the end of a path, `place` among K·n, back to its start."""
    tags = [place // n]
    for step in reversed(range(length - 1)):
        place = int(back[step, row, place // n, place % n])
        tags.append(place // n)
    return TagPath(tags[::-1], score)
