"""The interface between the training loop and what it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unrolled.training.layers import LayerGroup


class Batch(Protocol):
    """The data of one update; `unrolled.data.batch.Batch` implements it."""

    @property
    def count(self) -> int:
        """The number of targets over which the loss is averaged."""
        ...

    @property
    def carries(self) -> bool:
        """Whether the state after the last step belongs to the first step of the next batch."""
        ...

    def share(self, rank: int, size: int) -> Batch:
        """Return what process `rank` of `size` reads; it is never empty."""
        ...

    def parts(self, count: int) -> Sequence[tuple[int, int, Batch]]:
        """Split the batch into at most `count` parts, each with its first row and the row after its last."""
        ...

    def steps(self) -> Sequence[Batch]:
        """Split the batch in time: the state is carried from one segment to the next, gradients do not flow back."""
        ...

    def to(self, device: torch.device) -> Batch: ...


class Batches(Protocol):
    """One pass over the data, in an order that depends only on the number of the pass and the seed."""

    def __len__(self) -> int: ...

    def batch(self, number: int) -> Batch: ...


class Trainable(Protocol):
    """The part of a task that the loop uses."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def counted(self) -> str:
        """What the targets are called, in the plural."""
        ...

    def epoch(self, number: int) -> Batches: ...

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Return groups of layers with learning rates of their own, from the input to the output; none: all alike."""
        ...

    def loss(self, batch: Any, state: Any) -> tuple[Tensor, Any]:
        """Return the loss, summed over the targets that count, and the state after the last step, `[..., B, H]`."""
        ...

    def validate(self, step: int | None = None) -> float | None:
        """Return the mean loss on held-out data after `step` updates, or another value of which less is better.

        None if nothing was held out. The checkpoint with the least value is the best one: the first of equal losses, or
        the last of equal values of another kind.
        """
        ...

    def preview(self, step: int) -> str:
        """Return text that shows the model's progress, without using the global random state."""
        ...

    def describe(self, loss: float) -> str:
        """Return a loss as text, in the units of the task: `loss 1.520 · 2.19 bits/char`."""
        ...

    @property
    def validated(self) -> str:
        """What `validate` returns: "loss", or another value of which less is better."""
        ...

    def describe_validation(self, value: float) -> str:
        """Return a result of `validate` as text."""
        ...
