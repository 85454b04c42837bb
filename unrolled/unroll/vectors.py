"""What a native program reads of the parameters: matrices and vectors, by address and strides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unrolled.unroll.graph import Graph

Tensors = Sequence[Tensor]


@dataclass
class Outside:
    """What is computed of the parameters outside the loop: prepared values, constants of the derivative made of them,
    and what the phases after the loop multiply with.
    """

    prepare: Graph
    count: int  # of the prepared values
    prepared: int  # how many of those the constants are made of
    constants: Graph | None = None
    before: Graph | None = None

    def __call__(self, parameters: Tensors) -> list[Tensor]:
        made = list(self.prepare(1, *parameters)[: self.count])
        if self.constants is not None:
            made += self.constants(1, *made[: self.prepared])
        return made if self.before is None else [*made, *self.before(1, *parameters, *made)]


@dataclass(eq=False)
class Vectors:
    """Values made of parameters by `compute`; `flat` numbers those that are read as one row.

    Where all of them are views of parameters, as a transposed weight is, nothing is computed at a call but addresses:
    of each, `views` has the parameter's number and the bytes from its start, `strides` its strides.
    """

    compute: Outside
    flat: tuple[int, ...]
    dtype: torch.dtype
    views: list[tuple[int, int]] | None
    strides: list[tuple[int, ...]]

    @classmethod
    def of(cls, compute: Outside, parameters: Tensors, flat: Sequence[int]) -> Vectors:
        """`parameters` are examples, of which shape and dtype count."""
        dtype = next((value.dtype for value in parameters if value.is_floating_point()), torch.float32)
        computed = cls(compute, tuple(flat), dtype, None, [])
        metas = [torch.empty(value.shape, dtype=value.dtype, device="meta") for value in parameters]
        owners = {value.untyped_storage()._cdata: k for k, value in enumerate(metas)}
        views: list[tuple[int, int]] = []
        strides: list[tuple[int, ...]] = []
        try:
            values = compute(metas)
        except RuntimeError:  # it makes values of its own, on the CPU, as for a triangle: no view of a parameter
            return computed
        for k, value in enumerate(values):
            owner = owners.get(value.untyped_storage()._cdata)
            if owner is None or value.dtype != dtype or (k in flat and not value.is_contiguous()):
                return computed
            views.append((owner, int(value.storage_offset()) * value.element_size()))
            strides.append(tuple(value.stride()))
        return cls(compute, tuple(flat), dtype, views, strides)

    def find(self, parameters: Tensors) -> tuple[list[int], Sequence[tuple[int, ...]], object]:
        """Addresses, strides, and what must live as long as those are used."""
        if self.views is not None and all(value.is_contiguous() for value in parameters):
            starts = [value.data_ptr() for value in parameters]
            return [starts[k] + offset for k, offset in self.views], self.strides, parameters
        values = self.compute(parameters)
        for k in self.flat:
            values[k] = values[k].to(self.dtype).contiguous()
        return [value.data_ptr() for value in values], [value.stride() for value in values], values
