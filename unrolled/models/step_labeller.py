"""Models that score a label for every step: their loss, the best labels, and the probability of each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unrolled.models.crf import CRF, TagPath, require_paths
from unrolled.unroll.padding import steps_inside


class StepLabeller(nn.Module):
    """A model whose `forward(batch)` returns the score of every label for every step, `[T, B, K]`.

    A batch has `lengths [B]`. crf: a CRF that scores sequences of labels by these scores, or None for a softmax at each
    step.
    """

    crf: CRF | None

    def loss(self, batch: Any, targets: Tensor) -> Tensor:
        """Return the negative log-likelihood of the labels `targets [T, B]`, summed over all steps, in nats.

        Targets below 0 are not counted: of a softmax those steps, of a CRF the sequences that have one.
        """
        scores = self(batch)
        if self.crf is None:
            return cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=-1)
        inside = steps_inside(len(targets), batch.lengths).squeeze(2)
        counted = ((targets >= 0) | ~inside).all(0)
        losses = self.crf(scores, targets.clamp_min(0), batch.lengths)
        total: Tensor = losses.where(counted, 0).sum()
        return total

    @torch.no_grad()
    def decode(self, batch: Any, ruled: bool = True) -> list[list[int]]:
        """Return the best labels of each sequence.

        ruled: whether the CRF's rules hold; this is so in the methods below, too.
        Raises ConfigurationError if the CRF's rules allow none.
        """
        scores, crf = self(batch), self._crf(ruled)
        if crf is not None:
            return crf.decode(scores, batch.lengths)
        best = scores.argmax(2).t().tolist()
        return [labels[:length] for labels, length in zip(best, batch.lengths.tolist(), strict=True)]

    @torch.no_grad()
    def best(self, batch: Any, n: int = 1, ruled: bool = True) -> list[list[TagPath]]:
        """Return the `n` best sequences of labels of each sequence, with their log-probabilities, the best first.

        There are fewer if fewer sequences are possible.
        Raises ConfigurationError if the CRF's rules allow none, or if the scores are NaN.
        """
        scores, crf = self(batch), self._crf(ruled)
        if crf is None:  # independent labels are a CRF whose transitions are all 0
            crf = CRF(scores.size(2)).to(scores)
        total = crf.log_partition(scores, batch.lengths).tolist()
        found = crf.best(scores, batch.lengths, n)
        require_paths(found, scores)
        pairs = zip(found, total, strict=True)
        # By rounding, a difference could be above 0.
        return [[TagPath(path.tags, min(path.score - whole, 0.0)) for path in paths] for paths, whole in pairs]

    @torch.no_grad()
    def marginals(self, batch: Any, ruled: bool = True) -> Tensor:
        """Return the probability of every label for every step, `[T, B, K]`; zeros after a sequence's end."""
        scores, crf = self(batch), self._crf(ruled)
        if crf is not None:
            return crf.marginals(scores, batch.lengths)
        found: Tensor = scores.softmax(2) * steps_inside(len(scores), batch.lengths)
        return found

    def _crf(self, ruled: bool) -> CRF | None:
        return self.crf if ruled or self.crf is None else self.crf.without_rules()
