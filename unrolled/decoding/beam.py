"""Beam search over a batch of sentences. Every operation works on the tensors of all sentences and hypotheses at once.

A state has one row for each hypothesis. The rows of a sentence are adjacent. To continue from chosen rows, the search
calls `model.reorder(state, rows [B, n])` for their state; see `unrolled.models.contract`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unrolled.decoding.sampling import fault
from unrolled.errors import ConfigurationError, DecodingError
from unrolled.models.contract import StepModel, decodable

NEVER = -torch.inf
MOST_HYPOTHESES = 10_000
_PARTS = 64


@dataclass(frozen=True)
class Hypothesis:
    """A finished output: its tokens without the end, its log-probability including the end, and its score.

    `score = log_prob / (number of tokens including the end) ** length_penalty`.
    """

    tokens: tuple[int, ...]
    log_prob: float
    score: float
    group: int = 0


@dataclass(frozen=True)
class BeamSearch:
    """Beam search and its settings.

    beam: the beam width: the number of hypotheses kept at each step, over all groups. 1 is greedy search.
    n_best: the number of outputs to return, the best first.
    length_penalty: a hypothesis's log-probability is divided by its length to this power; 0 is off.
    min_length: the fewest tokens of an output, without the end.
    no_repeat: no sequence of this many tokens may occur twice; 0 is off.
    groups: the number of groups in the beam, each of beam / groups hypotheses. At each step they are searched one after
        another.
    diversity: the penalty of a token for each time that an earlier group chooses it at the same step (Hamming).

    A hypothesis is finished when its end is among its group's best candidates. A sentence is finished when each of its
    groups is full of finished hypotheses. At `max_length` every hypothesis must end. If `min_length` and `no_repeat`
    exclude all tokens, the end is allowed. All hypotheses of a sentence are different, also across groups.
    Sources: for the length, Wu et al. 2016 without the offset; for groups, Vijayakumar et al. 2016, "Diverse Beam
    Search".
    """

    beam: int = 5
    n_best: int = 1
    length_penalty: float = 1.0
    min_length: int = 0
    no_repeat: int = 0
    groups: int = 1
    diversity: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("beam", 1), ("n_best", 1), ("groups", 1), ("min_length", 0), ("no_repeat", 0)):
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise ConfigurationError(f"{flag} must be at least {least}, got {getattr(self, name)}", setting=name)
        if self.n_best > self.beam:
            message = f"n-best ({self.n_best}) cannot be above the beam ({self.beam}): widen the beam"
            raise ConfigurationError(message, setting=("n_best", "beam"))
        if self.beam % self.groups:
            message = f"the beam ({self.beam}) must be a multiple of the groups ({self.groups})"
            raise ConfigurationError(message, setting=("beam", "groups"))
        if not 0 <= self.diversity < float("inf"):
            raise ConfigurationError(f"diversity must be 0 or above, got {self.diversity}", setting="diversity")
        if self.beam > MOST_HYPOTHESES:
            raise ConfigurationError(
                f"beam must be at most {MOST_HYPOTHESES:,}, got {self.beam:,}: it would take too long",
                setting="beam",
            )
        require_length_penalty(self.length_penalty)

    @torch.no_grad()
    def search(
        self,
        model: StepModel,
        state: Any,
        first: Tensor,
        end: int,
        max_length: int | Tensor,
        prefix: Tensor | None = None,
        record: list[SearchStep] | None = None,
    ) -> list[list[Hypothesis]]:
        """Return the `n_best` outputs of every sentence. There are fewer, or none, if no others are possible.

        state: the state from `model.start`.
        first: the first token that is fed, `[B]`.
        end: the token that ends an output.
        max_length: the most tokens of an output, without the end: one number, or one for each sentence `[B]`.
        prefix: tokens `[P, B]` that outputs must begin with. Values below 0 fill up shorter prefixes.
        record: a list to which the choices of every step are appended, for `search_trees`.

        Raises DecodingError, with the step, the sentence and the hypothesis, if a log-probability is NaN or +inf. One
        such sentence stops the whole search. Hypotheses that are finished or cannot continue are not checked.
        Raises ConfigurationError if `max_length` or `end` is out of range.
        """
        if not len(first):
            return []
        return _Searching(self, model, state, first, end, max_length, prefix, record).run()


def search_for(
    *,
    beam: int = 5,
    n_best: int = 1,
    length_penalty: float = 1.0,
    min_length: int = 0,
    no_repeat: int = 0,
    groups: int | None = None,
    diversity: float = 0.0,
) -> BeamSearch:
    """Return the search with these options; the default of `groups` is the beam with `diversity`, otherwise 1."""
    if groups is None:
        groups = beam if diversity else 1
    return BeamSearch(
        beam=beam,
        n_best=n_best,
        length_penalty=length_penalty,
        min_length=min_length,
        no_repeat=no_repeat,
        groups=groups,
        diversity=diversity,
    )


@dataclass(frozen=True)
class SearchStep:
    """The choices of one step of a search, for the sentences with the numbers `sentences [B]`.

    alive: the parents, tokens and totals, `[B, G, ·]`, of the hypotheses that continue. Their order is that of the next
        step's parents.
    ended: the parents and totals of the hypotheses that end at this step.

    A total of -inf marks an empty place.
    """

    sentences: Tensor
    alive: tuple[Tensor, Tensor, Tensor]
    ended: tuple[Tensor, Tensor]


@dataclass
class _Chosen:
    """A group's candidates at one step, `[B, ·]`: their parents, tokens and totals. A total of -inf marks none."""

    parent: Tensor
    token: Tensor
    total: Tensor


@dataclass
class _Finished:
    """The best finished hypotheses `[B, G, K]`: their history `[..., t]`, total, score, and length with the end."""

    history: Tensor
    total: Tensor
    score: Tensor
    length: Tensor

    def parts(self) -> tuple[Tensor, ...]:
        return self.history, self.total, self.score, self.length


class _Searching:
    """One search over B unfinished sentences with G groups of k hypotheses (1 before the first step, then K)."""

    def __init__(
        self,
        how: BeamSearch,
        model: StepModel,
        state: Any,
        first: Tensor,
        end: int,
        max_length: int | Tensor,
        prefix: Tensor | None,
        record: list[SearchStep] | None,
    ) -> None:
        self.how, self.model, self.end, self.prefix, self.record = how, decodable(model), end, prefix, record
        self.width = how.beam // how.groups
        count, device = len(first), first.device
        self.numbers = torch.arange(count, device=device)
        self.limit = torch.as_tensor(max_length, device=device).expand(count)
        if not bool(self.limit.isfinite().all()):
            raise ConfigurationError(f"the greatest length must be finite, got {self.limit.tolist()}")
        if prefix is not None:
            self.limit = torch.maximum(self.limit, (prefix >= 0).sum(0))
        self.state = self.model.reorder(state, self.numbers.unsqueeze(-1).expand(-1, how.groups))
        self.token = first.view(-1, 1, 1).expand(count, how.groups, 1)
        self.history = self.token.new_zeros(count, how.groups, 1, 0)
        self.total: Tensor
        self.done: _Finished
        self.results: dict[int, list[Hypothesis]] = {}

    def run(self) -> list[list[Hypothesis]]:
        count = len(self.numbers)
        time = 0
        while len(self.numbers):
            log_probs, self.state = self.model.step(self.token.reshape(-1), self.state)
            log_probs = log_probs.view(*self.token.shape, -1)
            if not time:
                if not 0 <= self.end < log_probs.size(-1):
                    raise ConfigurationError(f"the end, {self.end}, is none of the {log_probs.size(-1):,} tokens")
                self.total = log_probs.new_zeros(self.token.shape)
                none = log_probs.new_full((count, self.how.groups, self.width), NEVER)
                self.done = _Finished(self.history.expand(-1, -1, self.width, -1), none, none, none.long())
            self._advance(self._checked(log_probs, time), time)
            time += 1
        return [self.results[number] for number in range(count)]

    def _checked(self, log_probs: Tensor, time: int) -> Tensor:
        """Return `log_probs [B, G, k, V]`, with -inf for the values of broken rows that are no longer in use.

        Raises DecodingError if a row in use is broken.
        """
        most = log_probs.amax(-1)
        broken = ~(most < torch.inf)
        if not bool(broken.any()):
            return log_probs
        counted = broken & (self.total > NEVER)
        if bool(counted.any()):
            row, group, k = counted.nonzero()[0].tolist()
            raise DecodingError(
                fault(float(most[row, group, k])),
                step=time,
                sentence=int(self.numbers[row]),
                hypothesis=k,
                group=group if self.how.groups > 1 else None,
                tokens=tuple(self.history[row, group, k].tolist()),
            )
        return log_probs.masked_fill(broken.unsqueeze(-1), NEVER)

    def _advance(self, log_probs: Tensor, time: int) -> None:
        """Take one step of the search, given `log_probs [B, G, k, V]`."""
        scores = self._allowed(log_probs, time)
        all_alive: list[_Chosen] = []
        all_ended: list[_Chosen] = []
        for group in range(self.how.groups):
            alive, ended = self._choose(scores[:, group], group, time, all_alive, all_ended)
            all_alive.append(alive)
            all_ended.append(ended)
        alive, ended = _stack(all_alive), _stack(all_ended)
        if self.record is not None:
            kept = (alive.parent, alive.token, alive.total)
            self.record.append(SearchStep(self.numbers, kept, (ended.parent, ended.total)))
        self._finish(ended, time)
        full = (self.done.score > NEVER).all(-1)
        alive.total = alive.total.masked_fill(full.unsqueeze(-1), NEVER)
        over = (alive.total == NEVER).flatten(1).all(-1) | (time >= self.limit)
        self.history = torch.cat([_take(self.history, alive.parent), alive.token.unsqueeze(-1)], -1)
        self.done.history = torch.nn.functional.pad(self.done.history, (0, 1))
        self.total = alive.total
        self._go_on(alive, over)

    def _allowed(self, log_probs: Tensor, time: int) -> Tensor:
        """Return `log_probs [B, G, k, V]` with -inf for tokens that are not allowed."""
        how, end = self.how, self.end
        too_short, repeating = time < how.min_length, 0 < how.no_repeat <= time
        at_limit = (time >= self.limit).view(-1, 1, 1)
        prefixed, limited = self.prefix is not None and time < len(self.prefix), bool(at_limit.any())
        if not (too_short or repeating or prefixed or limited):
            return log_probs
        scores, ends = log_probs.clone(), log_probs[..., end]
        if too_short:
            scores[..., end] = NEVER
        if repeating:
            scores.masked_fill_(self._repeats(scores), NEVER)
        if too_short or repeating:
            stuck = scores.amax(-1) == NEVER
            scores[..., end] = torch.where(stuck, ends, scores[..., end])
        if prefixed:
            wanted = self.prefix[time][self.numbers]  # type: ignore[index]
            here = (wanted >= 0).view(-1, 1, 1, 1)
            index = wanted.clamp(min=0).view(-1, 1, 1, 1).expand(*scores.shape[:3], 1)
            only = torch.full_like(scores, NEVER).scatter_(-1, index, log_probs.gather(-1, index))
            scores = torch.where(here, only, scores)
        if limited:
            scores.masked_fill_(at_limit.unsqueeze(-1), NEVER)
            scores[..., end] = torch.where(at_limit, ends, scores[..., end])
        return scores

    def _repeats(self, scores: Tensor) -> Tensor:
        """Return which tokens would complete a repeated sequence of `no_repeat` tokens, `[B, G, k, V]`."""
        size = self.how.no_repeat - 1
        followers = self.history[..., size:]
        if size:
            windows = self.history[..., :-1].unfold(-1, size, 1)
            again = (windows == self.history[..., -size:].unsqueeze(-2)).all(-1)
        else:
            again = torch.ones_like(followers, dtype=torch.bool)
        found = torch.zeros_like(scores).scatter_add_(-1, followers, again.to(scores))
        found[..., self.end] = 0
        return found > 0

    def _choose(
        self, scores: Tensor, group: int, time: int, earlier_alive: list[_Chosen], earlier_ended: list[_Chosen]
    ) -> tuple[_Chosen, _Chosen]:
        """Choose a group's K candidates that continue, and those that end, by log-probabilities `[B, k, V]`.

        earlier_alive, earlier_ended: the choices of the earlier groups at this step.
        """
        before = self.total[:, group]
        ranked = self._diversified(scores, group, time, earlier_alive, earlier_ended) if group else scores
        value, parent, token = best_sums(before, ranked, 2 * self.width)
        if group:  # candidates were ranked with the diversity penalty, which their totals do not include
            own = before.gather(1, parent) + scores.flatten(1).gather(1, parent * scores.size(-1) + token)
            total = own.masked_fill(value == NEVER, NEVER)
        else:
            total = value
        place = torch.arange(token.size(1), device=token.device)
        is_end = token == self.end
        ended = _Chosen(parent, token, total.masked_fill(~is_end | (place >= self.width), NEVER))
        # Sort the candidates that do not end to the front, in their order. The places after them stay empty.
        last = place + len(place) * (is_end | (total == NEVER))
        order = last.argsort(-1)[:, : self.width]
        missing = self.width - order.size(1)
        if missing > 0:
            order = torch.nn.functional.pad(order, (0, missing))
        alive = _Chosen(parent.gather(1, order), token.gather(1, order), total.gather(1, order))
        empty = last.gather(1, order) >= len(place)
        if missing > 0:
            empty[:, -missing:] = True
        alive.total = alive.total.masked_fill(empty, NEVER)
        return alive, ended

    def _diversified(
        self, scores: Tensor, group: int, time: int, earlier_alive: list[_Chosen], earlier_ended: list[_Chosen]
    ) -> Tensor:
        """Return `scores [B, k, V]` minus the penalties for earlier groups' tokens, and without their outputs.

        Groups may share a path, but they may not end with the same output.
        """
        before = [*earlier_alive, *earlier_ended]
        token = torch.cat([chosen.token for chosen in before], 1)
        taken = torch.cat([chosen.total for chosen in before], 1) > NEVER
        counts = torch.zeros_like(scores[:, 0]).scatter_add_(1, token, taken.to(scores))
        ranked = scores - self.how.diversity * counts.unsqueeze(1)
        last_chance = (time + 1 >= self.limit).unsqueeze(-1)  # the next step ends all hypotheses
        banned = taken & ((token == self.end) | last_chance)
        histories = [_take(self.history[:, k % group], chosen.parent) for k, chosen in enumerate(before)]
        history = torch.cat(histories, 1)
        same = (self.history[:, group].unsqueeze(2) == history.unsqueeze(1)).all(-1)  # [B, k, M]
        twice = same & banned.unsqueeze(1)
        index = token.unsqueeze(1).expand(-1, scores.size(1), -1)
        return ranked.masked_fill(torch.zeros_like(scores).scatter_add_(2, index, twice.to(scores)) > 0, NEVER)

    def _finish(self, ended: _Chosen, time: int) -> None:
        """Add the ended hypotheses `[B, G, ·]` to the finished ones, and keep the K best of each group."""
        score = ended.total / (time + 1) ** self.how.length_penalty
        new = _Finished(_take(self.history, ended.parent), ended.total, score, torch.full_like(ended.token, time + 1))
        both = [torch.cat(pair, 2) for pair in zip(self.done.parts(), new.parts(), strict=True)]
        best = both[2].topk(self.width, -1).indices
        self.done = _Finished(_take(both[0], best), *(part.gather(-1, best) for part in both[1:]))

    def _go_on(self, alive: _Chosen, over: Tensor) -> None:
        """Reorder the model's state. Remove the sentences that are done once they are a quarter of the batch."""
        before = self.token.size(-1)
        firsts = torch.arange(0, self.token.numel(), before, device=over.device).view(*self.token.shape[:2], 1)
        rows = (firsts + alive.parent).flatten(1)
        self.token = alive.token
        closed = int(over.sum())
        if 4 * closed >= len(over):
            self._conclude(over)
            keep = (~over).nonzero().squeeze(-1)
            self.numbers, self.limit, self.token, rows = (
                part[keep] for part in (self.numbers, self.limit, self.token, rows)
            )
            self.history, self.total = self.history[keep], self.total[keep]
            self.done = _Finished(*(part[keep] for part in self.done.parts()))
        if len(rows):
            self.state = self.model.reorder(self.state, rows)

    def _conclude(self, over: Tensor) -> None:
        """Store the results of the sentences that are done."""
        numbers = self.numbers[over].tolist()
        history, total, score, length = (part[over].tolist() for part in self.done.parts())
        for row, number in enumerate(numbers):
            ranked = []
            for group in range(self.how.groups):
                entries = zip(
                    history[row][group], total[row][group], score[row][group], length[row][group], strict=True
                )
                for rank, (tokens, log_prob, normalised, steps) in enumerate(entries):
                    if normalised > NEVER:
                        found = Hypothesis(tuple(tokens[: steps - 1]), log_prob, normalised, group)
                        ranked.append((rank, -normalised, group, found))
            self.results[number] = [found for *_, found in sorted(ranked, key=lambda entry: entry[:3])][
                : self.how.n_best
            ]


def require_length_penalty(exponent: float) -> None:
    """Raise ConfigurationError if the exponent is so large that a length's power may overflow."""
    if not abs(exponent) <= 10:
        message = f"the length penalty (`length_penalty`) must be from -10 to 10, got {exponent}"
        raise ConfigurationError(message, setting="length_penalty")


def best_sums(totals: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the `count` largest of `totals [B, k] + scores [B, k, V]` as `(sums, rows, columns)`, or all if fewer.

    Every _PARTS-th column of a row forms a part. The largest sums lie in the parts with the largest maxima, or in the
    columns after the last full part. This takes half the time of `topk` over everything.
    """
    rows, size = scores.shape[1:]
    depth = size // _PARTS
    if depth < 2 or count > rows * _PARTS:
        sums = (totals.unsqueeze(-1) + scores).flatten(1)
        best = sums.topk(min(count, sums.size(1)))
        return best.values, best.indices // size, best.indices % size
    parts = scores[..., : depth * _PARTS].unflatten(-1, (depth, _PARTS))  # type: ignore[no-untyped-call]
    maxima = parts.amax(-2) + totals.unsqueeze(-1)
    part = maxima.flatten(1).topk(count, sorted=False).indices
    first = part // _PARTS * size + part % _PARTS
    inside = first.unsqueeze(-1) + torch.arange(0, depth * _PARTS, _PARTS, device=part.device)
    start = torch.arange(0, rows * size, size, device=part.device).unsqueeze(-1)
    remainder = start + torch.arange(depth * _PARTS, size, device=part.device)
    places = torch.cat([inside.flatten(1), remainder.flatten().expand(len(part), -1)], 1)
    sums = scores.flatten(1).gather(1, places) + totals.gather(1, places // size)
    best = sums.topk(count)
    places = places.gather(1, best.indices)
    return best.values, places // size, places % size


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Return `values [..., k, t]` at `index [..., n]` along the second to last axis."""
    return values.gather(-2, index.unsqueeze(-1).expand(*index.shape, values.size(-1)))


def _stack(groups: list[_Chosen]) -> _Chosen:
    return _Chosen(*(torch.stack([getattr(one, name) for one in groups], 1) for name in ("parent", "token", "total")))
