"""A classifier of words over the positions of a grid, learned from captions of whole pictures."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

#: Below this logit, the odds of a position are its probability to within float64's precision.
_RARE = -40.0


class WordDetector(nn.Module):
    """The probability of each word in a picture, by multiple instance learning with a noisy-or over positions.

    `p(w) = 1 - prod_j (1 - sigmoid(theta_w . f_j + b_w))`: a word is true of a picture if it is true of at least one
    position. Source: Fang et al. 2015, "From Captions to Visual Concepts and Back", equation 1.

    grid_size: C, the features of a position. words: W. prior: the probability of a word before learning, given to all
        positions of a grid of `positions` together.
    """

    def __init__(self, grid_size: int, words: int, *, prior: float = 0.01, positions: int = 49) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(words, grid_size))
        share = -math.expm1(math.log1p(-prior) / positions)
        self.bias = nn.Parameter(torch.full((words,), math.log(share) - math.log1p(-share)))

    def logits(self, grids: Tensor) -> Tensor:
        """Return the logits of the words at each position, `[B, P, W]`, given grids `[B, P, C]`."""
        return linear(grids, self.weight, self.bias)

    def maps(self, grids: Tensor) -> Tensor:
        """Return the probability of each word at each position, `[B, P, W]`, given grids `[B, P, C]`."""
        return self.logits(grids).sigmoid()

    def probabilities(self, grids: Tensor) -> Tensor:
        """Return the probability of each word, `[B, W]`, given grids `[B, P, C]`."""
        return -torch.expm1(_log_absent(self.logits(grids)))

    def loss(self, grids: Tensor, targets: Tensor) -> Tensor:
        """Return the binary cross-entropy, in nats, summed over the words and averaged over the pictures.

        grids: `[B, P, C]`. targets: which words the captions of a picture contain, `[B, W]`, from 0 to 1.
        """
        logits = self.logits(grids)
        absent = _log_absent(logits)
        losses = -(targets * _log_present(absent, logits) + (1 - targets) * absent)
        return losses.sum() / len(grids)


def _log_absent(logits: Tensor) -> Tensor:
    """Return log(1 - p) over the positions, `[B, W]`."""
    return -softplus(logits).sum(1)


def _log_present(absent: Tensor, logits: Tensor) -> Tensor:
    """Return log p, given log(1 - p); as a sum of odds where 1 - p would be rounded to 1."""
    rare = logits.detach().amax(1) < _RARE
    # Each branch gets values that it can take, because a gradient of NaN times 0 would be NaN.
    safe = torch.where(rare, -1.0, absent)
    near = safe > -math.log(2)
    small, large = torch.where(near, safe, -0.5), torch.where(near, -1.0, safe)
    usual = torch.where(near, torch.log(-torch.expm1(small)), torch.log1p(-torch.exp(large)))
    if not bool(rare.any()):
        return usual
    return torch.where(rare, logits.logsumexp(1), usual)
