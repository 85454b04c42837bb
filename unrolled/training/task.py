"""What the training loop must know of the thing that it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Batch(Protocol):
    """What one update is computed from; `unrolled.data.batch.Batch` is made for it."""

    @property
    def count(self) -> int:
        """The number of targets that the loss is a mean over."""
        ...

    @property
    def carries(self) -> bool:
        """Whether the state after the last step belongs to the first step of the next batch."""
        ...

    def share(self, rank: int, size: int) -> Batch:
        """What process `rank` of `size` reads; never nothing."""
        ...

    def parts(self, count: int) -> Sequence[tuple[int, int, Batch]]:
        """At most `count` parts to be read one after the other, each with its first row and the one after its last."""
        ...

    def steps(self) -> Sequence[Batch]:
        """The batch cut in time: gradients do not flow from one part to the part before, the state does."""
        ...

    def to(self, device: torch.device) -> Batch: ...


class Batches(Protocol):
    """One pass over the data, in an order that depends on its number alone."""

    def __len__(self) -> int: ...

    def batch(self, number: int) -> Batch: ...


class Trainable(Protocol):
    """A task as the loop sees it."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def counted(self) -> str:
        """What the targets are called, in the plural."""
        ...

    def epoch(self, number: int) -> Batches: ...

    def loss(self, batch: Any, state: Any) -> tuple[Tensor, Any]:
        """The loss summed over the targets that count, and the state after the last step: tensors `[..., B, H]`."""
        ...

    def validate(self, step: int | None = None) -> float | None:
        """The mean loss on held-out data, after `step` updates of training; None if there is none."""
        ...

    def preview(self, step: int) -> str:
        """Something to look at; must not touch the global random generator."""
        ...

    def describe(self, loss: float) -> str:
        """A loss in the words of the task, `loss 1.520 · 2.19 bits/char`."""
        ...
