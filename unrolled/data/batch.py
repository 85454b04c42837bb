"""What an update is computed from: rows that can be shared among processes, read in parts, and cut in time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor

B = TypeVar("B", bound="Batch")


@dataclass(frozen=True)
class Batch:
    """Tensors that have an axis for the rows in common, as the fields of a dataclass.

    A subclass names its tensors, one of them `targets`, and in `axes` the axis of the rows where it is not 1:

        @dataclass(frozen=True)
        class Words(Batch):
            tokens: Tensor          # [T, B]
            lengths: Tensor         # [B]
            targets: Tensor         # [B]
            axes = {"lengths": 0, "targets": 0}

    Targets below 0 are padding: they are not counted, and the loss must leave them out.
    Data of another form overrides `size`, `rows`, `uncounted`, `to` and `count`.
    """

    #: The axis of the rows, of the tensors where it is not 1.
    axes: ClassVar[dict[str, int]] = {}

    @property
    def carries(self) -> bool:
        """Whether the state after the last step belongs to the first step of the next batch."""
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
        """The rows from `first` to `end`."""
        return self._each(lambda name, value: value.narrow(self.axes.get(name, 1), first, end - first))

    def uncounted(self) -> Self:
        """The same with no target that is counted."""
        return dataclasses.replace(self, targets=torch.full_like(self._targets, -1))  # type: ignore[call-arg]

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""
        return self._each(lambda name, value: value.to(device))

    def steps(self) -> Sequence[Self]:
        """The batch cut in time: gradients do not flow from one part to the part before, the state does."""
        return (self,)

    def share(self, rank: int, size: int) -> Self:
        """The rows of process `rank` of `size`; a row that is not counted if there is none for it.

        Each process must have something to read, since they wait for each other.
        """
        if size == 1:
            return self
        first, end = self.size * rank // size, self.size * (rank + 1) // size
        return self.rows(first, end) if end > first else self.rows(0, 1).uncounted()

    def parts(self, count: int) -> list[tuple[int, int, Self]]:
        """At most `count` parts with the rows from `first` to `end`, as `(first, end, part)`."""
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
    """The batches of one pass over the data, where all of them fit into memory."""

    def batch(self, number: int) -> B:
        return self[number]


@dataclass(frozen=True)
class Pair(Batch):
    """Inputs and targets, `[T, B]`; the two may differ in T."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Stretch(Pair):
    """The next steps of streams of text: inputs and targets, `[T, B]`.

    backward_length: steps that gradients flow back, at most; 0: over all.
    carry_state: whether the state goes on to the next stretch.
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
