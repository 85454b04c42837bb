"""Self-critical training: captions are sampled, and rewarded for being better than the greedy one.

Source: Rennie et al. 2017, "Self-critical Sequence Training for Image Captioning". The gradient of the expected reward
is that of `-Σ (r(sample) - b) log p(sample)` for any baseline b that does not depend on the sample: the reward of the
greedy caption, or the mean reward of the picture's other samples (Luo 2020, "A Better Variant of Self-Critical Sequence
Training"). The reward is CIDEr-D, in which the end mark counts as a token: otherwise captions learn to stop in the
middle.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unrolled.data.pairs import pad
from unrolled.decoding import Sampling
from unrolled.metrics.cider import CiderD
from unrolled.models.captioner import Captioner, PictureFeatures
from unrolled.tasks.describer import sample_tokens


class SelfCritical:
    """The reward of captions, and the loss of sampled ones.

    references: the captions of every picture of training, as tokens without the end. end: the token that ends one.
    baseline: what a sample is compared with: "greedy", or the other "samples" of its picture.
    """

    def __init__(
        self, references: Sequence[Sequence[Sequence[int]]], end: int, max_length: int, baseline: str = "greedy"
    ) -> None:
        self.end, self.max_length, self.baseline = end, max_length, baseline
        self.references = [[tuple(caption) for caption in some] for some in references]
        self.cider = CiderD(self.references, end)

    def rewards(self, captions: Sequence[np.ndarray], pictures: Sequence[int]) -> np.ndarray:
        """Return CIDEr-D, from 0 to 10, of captions without the end; one of the greatest length has no end."""
        closed = [
            (*caption.tolist(), self.end) if len(caption) < self.max_length else tuple(caption.tolist())
            for caption in captions
        ]
        return self.cider.score(closed, [self.references[picture] for picture in pictures])

    def loss(self, model: Captioner, features: PictureFeatures, pictures: Sequence[int], count: int) -> Tensor:
        """Return the loss of `count` sampled captions of each picture, summed over their tokens.

        The model's dropout is off while it samples, and on for the gradient, if it is in training mode.
        """
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                state = model.start(features)
                rows = torch.arange(len(features), device=features.vector.device).unsqueeze(-1)
                first = torch.full((len(features),), self.end, device=features.vector.device)
                greedy = self._sample(model, state, first, Sampling(temperature=0)) if self.baseline == "greedy" else []
                several = model.reorder(state, rows.expand(-1, count))
                sampled = self._sample(model, several, first.repeat_interleave(count), Sampling())
        finally:
            model.train(training)
        numbers = [picture for picture in pictures for _ in range(count)]
        rewards = self.rewards(sampled, numbers)
        if self.baseline == "greedy":
            better = rewards - np.repeat(self.rewards(greedy, pictures), count)
        else:
            each = rewards.reshape(-1, count)
            better = ((each * count - each.sum(1, keepdims=True)) / (count - 1)).ravel()
        targets = pad(sampled, self.end)
        for column, caption in enumerate(sampled):
            if len(caption) == self.max_length:  # it was cut, so its end was not chosen
                targets[len(caption), column] = -1
        targets = targets.to(features.vector.device)
        inputs = torch.cat([targets.new_full((1, targets.size(1)), self.end), targets[:-1]])
        weights = torch.from_numpy(better).to(features.vector)
        return model.loss(features, inputs, targets, weights=weights)

    def _sample(self, model: Captioner, state: object, first: Tensor, how: Sampling) -> list[np.ndarray]:
        return sample_tokens(model, state, first, self.end, self.max_length, how)
