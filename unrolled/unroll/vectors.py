"""The matrices and vectors that a native program reads: computed from parameters, passed by address and strides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unrolled.unroll.graph import Graph

Tensors = Sequence[Tensor]


@dataclass
class Outside:
    """Computes the values outside the loop from the parameters: the prepared values, the derivative's constants, which
    depend on them, and the matrices for the phases after the loop.
    """

    prepare: Graph
    count: int  # the number of prepared values
    prepared: int  # how many of them the constants depend on
    constants: Graph | None = None
    before: Graph | None = None

    def __call__(self, parameters: Tensors) -> list[Tensor]:
        made = list(self.prepare(1, *parameters)[: self.count])
        if self.constants is not None:
            made += self.constants(1, *made[: self.prepared])
        return made if self.before is None else [*made, *self.before(1, *parameters, *made)]


@dataclass(eq=False)
class Vectors:
    """The values that `compute` computes from parameters. `flat` are the numbers of those that are read as one row.

    If all values are views of parameters, such as a transposed weight, a call computes only addresses. `views` then
    has, for each value, the parameter's number and the offset in bytes, and `strides` the value's strides.
    """

    compute: Outside
    flat: tuple[int, ...]
    dtype: torch.dtype
    views: list[tuple[int, int]] | None
    strides: list[tuple[int, ...]]

    @classmethod
    def of(cls, compute: Outside, parameters: Tensors, flat: Sequence[int]) -> Vectors:
        """Build the vectors from example parameters, which give the shapes and dtypes."""
        dtype = next((value.dtype for value in parameters if value.is_floating_point()), torch.float32)
        computed = cls(compute, tuple(flat), dtype, None, [])
        metas = [torch.empty(value.shape, dtype=value.dtype, device="meta") for value in parameters]
        owners = {value.untyped_storage()._cdata: k for k, value in enumerate(metas)}
        views: list[tuple[int, int]] = []
        strides: list[tuple[int, ...]] = []
        try:
            values = compute(metas)
        except RuntimeError:  # it creates CPU tensors, such as a triangle of ones, which are not views of a parameter
            return computed
        for k, value in enumerate(values):
            owner = owners.get(value.untyped_storage()._cdata)
            if owner is None or value.dtype != dtype or (k in flat and not value.is_contiguous()):
                return computed
            views.append((owner, int(value.storage_offset()) * value.element_size()))
            strides.append(tuple(value.stride()))
        return cls(compute, tuple(flat), dtype, views, strides)

    def find(self, parameters: Tensors) -> tuple[list[int], Sequence[tuple[int, ...]], object]:
        """Return addresses, strides, and an object to keep alive while these are in use."""
        if self.views is not None and all(value.is_contiguous() for value in parameters):
            starts = [value.data_ptr() for value in parameters]
            return [starts[k] + offset for k, offset in self.views], self.strides, parameters
        values = self.compute(parameters)
        for k in self.flat:
            values[k] = values[k].to(self.dtype).contiguous()
        return [value.data_ptr() for value in values], [value.stride() for value in values], values
