"""`unroll` for `torch.export`: a graph of PyTorch's own operators, which any process can load and run.

A program that is saved knows neither this package nor its plans, so none of them may be in the graph. What stays is
`torch.nn`'s own kernel where PyTorch has one for the cell, and else `scan`, PyTorch's operator for a loop whose body is
the cell's step. Both serve any batch size; `scan` also serves any number of steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unrolled.cells import Cell, State
from unrolled.unroll.adapt import step
from unrolled.unroll.kernels import has_kernel, unroll_kernel

#: From the state and what a step reads, `(state, x)` or `(state, x, moves)`, the new state and the output.
Step = Callable[..., tuple[State, Tensor]]


def unroll_exported(
    cell: Cell, inputs: Tensor, state: State, lengths: Tensor | None, reverse: bool, backend: str
) -> tuple[Tensor, State]:
    """As `unroll_eager`, while `torch.export` traces."""
    # A kernel fixes the number of steps, and TorchDynamo (strict=True) does not tell whether that is to be dynamic.
    steps_vary = torch.compiler.is_dynamo_compiling() or isinstance(inputs.size(0), torch.SymInt)
    if lengths is None and not steps_vary and has_kernel(cell) and backend != "eager":
        return unroll_kernel(cell, inputs, state, None, reverse)
    read: tuple[Tensor, ...] = (inputs,)
    if lengths is not None:
        time = torch.arange(inputs.size(0), device=inputs.device).unsqueeze(-1)
        inside = (time < lengths).unsqueeze(-1)
        read = torch.where(inside, inputs, torch.zeros_like(inputs)), inside  # what lies after a sequence may be NaN
    if reverse:
        read = tuple(part.flip(0) for part in read)
    first = tuple(part.clone(memory_format=torch.contiguous_format) for part in state)
    run = _scan_strict if torch.compiler.is_dynamo_compiling() else _scan
    final, outputs = run(_Step(cell), first, read)
    return outputs.flip(0) if reverse else outputs, final


class _Step(nn.Module):
    """A cell's step as `scan` wants it: results that share no memory with one another, nor with what was given."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, state: State, x: Tensor, moves: Tensor | None = None) -> tuple[State, Tensor]:
        output, new = step(self.cell, x, state)
        if moves is None:
            return tuple(part.clone() for part in new), output.clone()
        held = tuple(torch.where(moves, after, before) for after, before in zip(new, state, strict=True))
        return held, torch.where(moves, output, torch.zeros_like(output))


def _scan_strict(advance: _Step, first: State, read: tuple[Tensor, ...]) -> tuple[State, Tensor]:
    from torch._higher_order_ops import scan

    return scan(lambda state, now: advance(state, *now), first, read)


def _scan(advance: _Step, first: State, read: tuple[Tensor, ...]) -> tuple[State, Tensor]:
    """`scan` would trace the step by TorchDynamo, whose result depends on what the process traced before; this does not."""
    tensors = {**dict(advance.named_parameters()), **dict(advance.named_buffers())}
    states, given = len(first), len(first) + len(read)

    def flat(*values: Tensor) -> list[Tensor]:
        held = dict(zip(tensors, values[given:], strict=True))
        state, output = torch.func.functional_call(advance, held, (values[:states], *values[states:given]))
        return [*state, output]

    *final, outputs = torch.ops.higher_order.scan(flat, list(first), list(read), tuple(tensors.values()))
    return tuple(final), outputs
