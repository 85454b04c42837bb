"""Describes pictures with one run or with an ensemble of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from unrolled.data.caption_tokens import caption_text, caption_tokens
from unrolled.data.pairs import pad
from unrolled.data.tag_batches import Index
from unrolled.decoding import BeamSearch, Ensemble, Sampling, SearchStep, forced_log_probs, generate, search_trees
from unrolled.decoding.tree import Node
from unrolled.errors import ConfigurationError
from unrolled.models.captioner import Captioner, PictureFeatures
from unrolled.tasks.captioning_settings import Noticed
from unrolled.training import Run

#: The most hypotheses that are searched at once.
_ROWS = 512


@dataclass(frozen=True)
class Caption:
    """A caption: its words, the sum of their log-probabilities with the end, and the score that ranks it."""

    words: tuple[str, ...]
    log_prob: float
    score: float

    @property
    def text(self) -> str:
        return caption_text(self.words)


class Member(Protocol):
    """What a describer needs of a run's task."""

    run: Run
    config: Any
    model: Captioner
    device: torch.device
    words: Index
    end: int

    @property
    def noticed(self) -> Noticed: ...


class Describer:
    """An ensemble of captioners with the same words and the same features, used as one model.

    mean: the `mean` of `Ensemble`.

    Raises ConfigurationError if the words or the features of two runs differ.
    """

    def __init__(self, tasks: Sequence[Member], mean: str = "probabilities") -> None:
        first = tasks[0]
        for other in tasks[1:]:
            if other.words.strings != first.words.strings:
                said = f"{other.run.path}: its words are not those of {first.run.path}, so they cannot be an ensemble"
                raise ConfigurationError(said, setting="ensemble")
            if other.noticed.signature != first.noticed.signature:
                said = f"{other.run.path}: it reads features of another encoder than {first.run.path}"
                raise ConfigurationError(said, setting="ensemble")
        self.models = [task.model for task in tasks]
        for model in self.models:
            model.eval()
        self.words, self.end, self.device = first.words, first.end, first.device
        self.model = Ensemble(self.models, mean)
        self.longest = max(task.config.captions.max_length for task in tasks)

    def describe(
        self,
        pictures: PictureFeatures,
        how: BeamSearch,
        prefix: str = "",
        record: list[SearchStep] | None = None,
    ) -> list[list[Caption]]:
        """Return the n best captions of every picture, the best first.

        prefix: text that every caption begins with. record: the `record` of `BeamSearch.search`.
        Raises ConfigurationError if the model does not know a word of the prefix.
        """
        given, found = self._prefix(prefix), []
        size = max(1, _ROWS // how.beam)
        for k in range(0, len(pictures), size):
            some = _part(pictures, k, k + size)
            begun = None if given is None else given.unsqueeze(-1).expand(-1, len(some))
            state, first = self._start(some)
            found += how.search(self.model, state, first, self.end, self.longest, begun, record)
        return [[Caption(self._words(one.tokens), one.log_prob, one.score) for one in some] for some in found]

    def sample(
        self, pictures: PictureFeatures, how: Sampling, count: int = 1, generator: torch.Generator | None = None
    ) -> list[list[Caption]]:
        """Return `count` sampled captions of every picture, with their log-probabilities under the model itself."""
        rows = torch.arange(len(pictures), device=self.device).unsqueeze(-1).expand(-1, count)
        state, first = self._start(pictures)
        tokens = sample_tokens(
            self.model, self.model.reorder(state, rows), first.repeat_interleave(count), self.end, self.longest, how,
            generator,
        )  # fmt: skip
        outputs = pad(tokens, self.end).view(-1, len(pictures), count).to(self.device)
        totals = forced_log_probs(self.model, *self._start(pictures), outputs).flatten().tolist()
        flat = [Caption(self._words(one.tolist()), total, total) for one, total in zip(tokens, totals, strict=True)]
        return [flat[k : k + count] for k in range(0, len(flat), count)]

    def tree(self, picture: PictureFeatures, how: BeamSearch, prefix: str = "") -> Node:
        """Return the tree of the search for the captions of one picture."""
        record: list[SearchStep] = []
        state, first = self._start(picture)
        given = self._prefix(prefix)
        begun = None if given is None else given.unsqueeze(-1)
        found = how.search(self.model, state, first, self.end, self.longest, begun, record)
        return search_trees(record, found, self.end)[0]

    def token_text(self, token: int) -> str:
        """Return the word of a token, as a tree shows it."""
        return self.words.strings[token]

    def attention(self, picture: PictureFeatures, words: Sequence[str]) -> np.ndarray | None:
        """Return where the models look in one picture before each word and the end, `[T + 1, P]`.

        This is the mean over the models that attend; None if none does.
        """
        tokens = torch.tensor([self.end, *(self.words[word] for word in words)], device=self.device).unsqueeze(-1)
        weights = [found[:, 0] for model in self.models if (found := model.attend(picture, tokens)) is not None]
        return torch.stack(weights).mean(0).cpu().numpy() if weights else None

    # -- tokens --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _start(self, pictures: PictureFeatures) -> tuple[list[Any], Tensor]:
        return self.model.start(pictures), torch.full((len(pictures),), self.end, device=self.device)

    def _prefix(self, text: str) -> Tensor | None:
        words = caption_tokens(text)
        unknown = [word for word in words if word not in self.words.number]
        if unknown:
            said = f"the model does not know the word {unknown[0]!r} of the prefix"
            raise ConfigurationError(said, setting="prefix")
        if len(words) > self.longest:
            said = f"the prefix has {len(words)} words, captions have at most {self.longest}"
            raise ConfigurationError(said, setting="prefix")
        return torch.tensor([self.words[word] for word in words], device=self.device) if words else None

    def _words(self, tokens: Sequence[int]) -> tuple[str, ...]:
        return tuple(self.words.strings[token] for token in tokens)


def sample_tokens(
    model: Any,
    state: Any,
    first: Tensor,
    end: int,
    max_length: int,
    how: Sampling,
    generator: torch.Generator | None = None,
) -> list[np.ndarray]:
    """Return sampled captions, without the end, of at most `max_length` tokens, for the rows of `state`.

    first: the first token that is fed, `[N]`.
    """
    steps, open_rows = [], torch.ones(len(first), dtype=torch.bool, device=first.device)
    for token in generate(model, first.unsqueeze(0), how, generator, state):
        steps.append(token)
        open_rows &= token != end
        if len(steps) == max_length or not bool(open_rows.any()):
            break
    found = torch.stack(steps, 1)
    lengths = torch.cumprod((found != end).long(), 1).sum(1).tolist()
    return [row[:length] for row, length in zip(found.cpu().numpy(), lengths, strict=True)]


def _part(pictures: PictureFeatures, first: int, end: int) -> PictureFeatures:
    grid = pictures.grid
    return PictureFeatures(pictures.vector[first:end], None if grid is None else grid[first:end])
