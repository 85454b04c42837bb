"""Pooling: the outputs of all steps of a sequence as one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unrolled.unroll.padding import steps_inside

#: What `Pooling` knows, by name.
POOLINGS = ("last", "mean", "max", "attention", "concat")


class Pooling(nn.Module):
    """Summarises the outputs `[T, B, C]` of sequences of `lengths [B]` as `[B, output_size]`; padding has no influence.

    kind: "last", what each direction has computed after its last step; "mean" or "max" over the steps; "attention", a
        mean with learned weights, softmax(v · tanh(W h_t + b)) (Yang et al. 2016); "concat", the last, the mean and the
        maximum (Howard & Ruder 2018).
    directions: 2 if the second half of an output comes from a layer that reads backwards, whose last step is the first.

    An empty sequence is summarised as zeros.
    """

    def __init__(self, kind: str, size: int, directions: int = 1) -> None:
        super().__init__()
        self.kind, self.size, self.directions = kind, size, directions
        self.output_size = 3 * size if kind == "concat" else size
        if kind == "attention":
            self.hidden, self.score = nn.Linear(size, size), nn.Linear(size, 1, bias=False)

    def forward(self, outputs: Tensor, lengths: Tensor) -> Tensor:
        inside = steps_inside(len(outputs), lengths)
        outputs = outputs.where(inside, 0)
        if self.kind == "last":
            return self._last(outputs, lengths)
        if self.kind == "mean":
            return self._mean(outputs, lengths)
        if self.kind == "max":
            return self._max(outputs, inside)
        if self.kind == "attention":
            scores = self.score(torch.tanh(self.hidden(outputs))).masked_fill(~inside, torch.finfo(outputs.dtype).min)
            weighted: Tensor = scores.softmax(0) * outputs
            return weighted.sum(0)
        return torch.cat([self._last(outputs, lengths), self._mean(outputs, lengths), self._max(outputs, inside)], 1)

    def _last(self, outputs: Tensor, lengths: Tensor) -> Tensor:
        rows = torch.arange(outputs.size(1), device=outputs.device)
        last = outputs[(lengths - 1).clamp_min(0), rows]
        if self.directions == 1:
            return last
        half = self.size // 2
        return torch.cat([last[:, :half], outputs[0, :, half:]], 1)

    @staticmethod
    def _mean(outputs: Tensor, lengths: Tensor) -> Tensor:
        return outputs.sum(0) / lengths.clamp_min(1).unsqueeze(1)

    @staticmethod
    def _max(outputs: Tensor, inside: Tensor) -> Tensor:
        best = outputs.masked_fill(~inside, -torch.inf).amax(0)
        return best.where(inside[0], 0)
