"""Batches: the data of one update, whose rows can be shared among processes, read in parts, and cut in time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

B = TypeVar("B", bound="Batch")


@dataclass(frozen=True)
class Batch:
    """A dataclass of tensors that share an axis for the rows of a batch.

    A subclass declares its tensors, one of them `targets`. `axes` gives the row axis of a tensor where it is not 1:

        @dataclass(frozen=True)
        class Words(Batch):
            tokens: Tensor          # [T, B]
            lengths: Tensor         # [B]
            targets: Tensor         # [B]
            axes = {"lengths": 0, "targets": 0}

    Targets below 0 are padding: they are not counted, and the loss must ignore them.
    A batch that does not consist of such tensors overrides `size`, `rows`, `uncounted`, `to` and `count`.
    """

    #: The row axis of each tensor for which it is not 1.
    axes: ClassVar[dict[str, int]] = {}

    @property
    def carries(self) -> bool:
        """Whether the state after the last step is the first state of the next batch."""
        return False

    @property
    def count(self) -> int:
        """The number of targets that the loss is a mean over."""
        return int((self._targets >= 0).sum())

    @property
    def size(self) -> int:
        """The number of rows."""
        return self._targets.size(self.axes.get("targets", 1))

    def rows(self, first: int, end: int) -> Self:
        """Return the rows from `first` up to, but not including, `end`."""
        return self._each(lambda name, value: value.narrow(self.axes.get(name, 1), first, end - first))

    def uncounted(self) -> Self:
        """Return the same batch with all targets set to padding."""
        return dataclasses.replace(self, targets=torch.full_like(self._targets, -1))  # type: ignore[call-arg]

    def to(self, device: torch.device | str) -> Self:
        """Return the same batch on a device."""
        return self._each(lambda name, value: value.to(device))

    def steps(self) -> Sequence[Self]:
        """Return the batch cut into parts in time. The state flows from part to part; gradients do not flow back."""
        return (self,)

    def share(self, rank: int, size: int) -> Self:
        """Return the rows of process `rank` of `size` processes.

        If there is no row for it, it gets one row that is not counted: processes wait for each other, so each of them
        must run the model.
        """
        if size == 1:
            return self
        first, end = self.size * rank // size, self.size * (rank + 1) // size
        return self.rows(first, end) if end > first else self.rows(0, 1).uncounted()

    def parts(self, count: int) -> list[tuple[int, int, Self]]:
        """Split the batch into at most `count` parts `(first, end, part)`, where `part` is `rows(first, end)`."""
        if count == 1:
            return [(0, self.size, self)]
        bounds = [*range(0, self.size, -(-self.size // count)), self.size]
        return [(first, end, self.rows(first, end)) for first, end in pairwise(bounds)]

    @property
    def _targets(self) -> Tensor:
        targets: Tensor = self.targets  # type: ignore[attr-defined]
        return targets

    def _each(self, function: Callable[[str, Tensor], Tensor]) -> Self:
        return dataclasses.replace(
            self, **{each.name: function(each.name, getattr(self, each.name)) for each in self._tensors()}
        )

    def _tensors(self) -> list[dataclasses.Field[Any]]:
        return [each for each in dataclasses.fields(self) if isinstance(getattr(self, each.name), Tensor)]


class BatchList(list[B]):
    """The batches of one pass over the data, all of them in memory."""

    def batch(self, number: int) -> B:
        return self[number]


@dataclass(frozen=True)
class Pair(Batch):
    """Inputs and targets, `[T, B]`. T may differ between the two."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Stretch(Pair):
    """The next steps of parallel streams of text: inputs and targets, `[T, B]`.

    backward_length: the most steps that gradients flow back; 0 means all steps.
    carry_state: whether the state is carried to the next stretch.
    """

    backward_length: int = 0
    carry_state: bool = False

    @property
    def carries(self) -> bool:
        return self.carry_state

    def steps(self) -> Sequence[Self]:
        length = self.backward_length or len(self.inputs)
        return [
            dataclasses.replace(self, inputs=self.inputs[k : k + length], targets=self.targets[k : k + length])
            for k in range(0, len(self.inputs), length)
        ]


def by_similar_length(
    lengths: np.ndarray, batch_size: int, draw: np.random.Generator, batches_in_pool: int
) -> list[np.ndarray]:
    """Return the numbers of sequences in batches, in random order; a batch holds sequences of similar `lengths [N]`.

    The sequences are shuffled and cut into pools of `batches_in_pool` batches, and each pool is sorted by length.
    """
    order, pool = draw.permutation(len(lengths)), batches_in_pool * batch_size
    cut: list[np.ndarray] = []
    for first in range(0, len(order), pool):
        some = order[first : first + pool]
        some = some[np.argsort(lengths[some], kind="stable")]
        cut += [some[k : k + batch_size] for k in range(0, len(some), batch_size)]
    return [cut[k] for k in draw.permutation(len(cut))]


def batches_by_length(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Iterate over lists of numbers of sequences, the shortest first; each fits into `most` steps with its padding."""
    some: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda k: lengths[k]):
        if some and lengths[number] * (len(some) + 1) > most:
            yield some
            some = []
        some.append(number)
    if some:
        yield some
