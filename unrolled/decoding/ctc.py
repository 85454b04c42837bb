"""Best-path decoding of CTC frame scores: the most probable label of every frame, without repeats and blanks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unrolled.decoding.sampling import fault
from unrolled.errors import DecodingError, ShapeError


@dataclass(frozen=True)
class BestPath:
    """The labels on the most probable path of a sequence. This path need not give the most probable labels.

    labels: the labels without blanks, each repetition counted once.
    frames: the first and the last frame of each label, counted from 0.
    confidence: the mean probability of each label over its frames.
    log_prob: the log-probability of the path.
    """

    labels: tuple[int, ...]
    frames: tuple[tuple[int, int], ...]
    confidence: tuple[float, ...]
    log_prob: float


@torch.no_grad()
def best_path(log_probs: Tensor, lengths: Tensor | None = None, blank: int = 0) -> list[BestPath]:
    """Return the best path of every sequence (Graves et al. 2006, "Connectionist Temporal Classification", 3.2).

    log_probs: log-probabilities of the labels in each frame, `[T, B, K]`.
    lengths: the number of frames of each sequence, `[B]`. Default: T.

    If several labels of a frame have the same log-probability, the lowest label is taken.
    Raises DecodingError, with the frame as its step, if a frame holds NaN or +inf or has -inf for every label.
    Raises ShapeError if a shape, a length or the blank does not fit.
    """
    lengths = checked_lengths(log_probs, lengths, blank)
    steps, count, _ = log_probs.shape
    if not steps:
        return [BestPath((), (), (), 0.0) for _ in range(count)]
    inside = torch.arange(steps, device=lengths.device) < lengths.unsqueeze(-1)  # [B, T]
    most, label = log_probs.transpose(0, 1).max(-1)
    check_frames(most, inside)
    most = most.double().masked_fill(~inside, 0.0)
    label = label.masked_fill(~inside, blank)
    change = label[:, 1:] != label[:, :-1]
    edge = torch.ones_like(label[:, :1], dtype=torch.bool)
    spoken = label != blank
    # Both lists are in the order of sequences and frames, so their n-th entries belong to the same label.
    row, first = (torch.cat([edge, change], 1) & spoken).nonzero(as_tuple=True)
    last = (torch.cat([change, edge], 1) & spoken).nonzero(as_tuple=True)[1]
    sums = torch.nn.functional.pad(most.exp().cumsum(1), (1, 0))
    mean = ((sums[row, last + 1] - sums[row, first]) / (last + 1 - first)).clamp(max=1.0)
    each = torch.bincount(row, minlength=count).tolist()
    parts = zip(*(torch.split(part, each) for part in (label[row, first], first, last, mean)), strict=True)
    return [
        BestPath(tuple(labels.tolist()), tuple(zip(a.tolist(), b.tolist(), strict=True)), tuple(sure.tolist()), total)
        for (labels, a, b, sure), total in zip(parts, most.sum(1).tolist(), strict=True)
    ]


def checked_lengths(log_probs: Tensor, lengths: Tensor | None, blank: int) -> Tensor:
    """Return the lengths `[B]` of sequences in `log_probs [T, B, K]`. Raises ShapeError if the arguments do not fit."""
    if log_probs.dim() != 3:
        raise ShapeError(f"frame scores must be [T, B, K], got {list(log_probs.shape)}")
    steps, count, labels = log_probs.shape
    if not 0 <= blank < labels:
        raise ShapeError(f"the blank is label {blank}, but the frame scores have {labels} labels")
    if lengths is None:
        return torch.full((count,), steps, device=log_probs.device)
    lengths = lengths.to(log_probs.device)
    if lengths.shape != (count,) or bool(((lengths < 0) | (lengths > steps)).any()):
        raise ShapeError(f"lengths must be {count} numbers from 0 to {steps}, got {lengths.tolist()}")
    return lengths


def check_frames(most: Tensor, inside: Tensor) -> None:
    """Raise DecodingError if the largest log-probability of a frame, `most [B, T]`, is not finite where `inside`."""
    broken = ~most.isfinite() & inside
    if bool(broken.any()):
        row, frame = broken.nonzero()[0].tolist()
        raise DecodingError(fault(float(most[row, frame])), step=frame, sentence=row)
