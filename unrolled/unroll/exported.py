"""`unroll` for `torch.export`: a graph of PyTorch's own operators, which any process can load and run.

A program that is saved knows neither this package nor its plans, so none of them may be in the graph. What stays is
`torch.nn`'s own kernel where PyTorch has one for the cell, and else `scan`, PyTorch's operator for a loop whose body is
the cell's step. Both serve any batch size; `scan` also serves any number of steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from unrolled.cells import Cell, State
from unrolled.errors import ConfigurationError, UntraceableError
from unrolled.unroll.adapt import step, title
from unrolled.unroll.kernels import has_kernel, unroll_kernel
from unrolled.unroll.padding import steps_inside
from unrolled.unroll.versions import BEFORE_2_13

#: `scan` lost gradients through time where the first state wanted none.
_LOSES_GRADIENTS = BEFORE_2_13


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
        inside = steps_inside(inputs.size(0), lengths)
        # What lies after a sequence may be NaN. Its first step in that place, as elsewhere, would fix the batch's size.
        read = torch.where(inside, inputs, torch.zeros_like(inputs)), inside
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

    if _LOSES_GRADIENTS:
        raise ConfigurationError("torch.export with strict=True wants PyTorch 2.13: use strict=False")
    return scan(lambda state, now: advance(state, *now), first, read)


def _scan(advance: _Step, first: State, read: tuple[Tensor, ...]) -> tuple[State, Tensor]:
    """`scan` would trace the step by TorchDynamo, whose result depends on what the process traced before."""
    tensors = {**dict(advance.named_parameters()), **dict(advance.named_buffers())}
    states, given = len(first), len(first) + len(read)

    def flat(*values: Tensor) -> list[Tensor]:
        held = dict(zip(tensors, values[given:], strict=True))
        state, output = torch.func.functional_call(advance, held, (values[:states], *values[states:given]))
        return [*state, output]

    graph, constants = _trace(advance.cell, flat, states, (*first, *(part[0] for part in read), *tensors.values()))
    carried = (*tensors.values(), *(constant.clone() for constant in constants))  # a clone belongs to the graph
    first = _lead(first, (*read, *carried))
    *final, outputs = torch.ops.higher_order.scan(graph, list(first), list(read), carried)
    return tuple(final), outputs


def _lead(first: State, others: tuple[Tensor, ...]) -> State:
    """`first`, wanting a gradient where any of the others does, for otherwise theirs would be lost."""
    if not _LOSES_GRADIENTS:
        return first
    others = tuple(other for other in others if other.is_floating_point())
    link = sum((other.reshape(-1)[0] for other in others), start=first[0].new_zeros(()))
    return tuple(torch.where(torch.ones_like(part, dtype=torch.bool), part, link.to(part.dtype)) for part in first)


def _trace(
    cell: Cell, function: Callable, states: int, samples: tuple[Tensor, ...]
) -> tuple[fx.GraphModule, list[Tensor]]:
    """A step's graph, and the tensors that it reads besides its arguments: the graph takes them too, after these.

    They may not stay in it, for a loop's body cannot be saved with tensors of its own.
    UntraceableError if the step does what a graph does not keep.
    """
    from torch._higher_order_ops.utils import reenter_make_fx
    from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    from unrolled.unroll.trace import placeholders, results

    before = [(part, dict(vars(part))) for part in cell.modules()]
    with disable_proxy_modes_tracing(), torch.inference_mode(False):  # whose tensors count no changes
        samples = tuple(sample.clone() for sample in samples)
        versions = [sample._version for sample in samples]
        try:
            made = reenter_make_fx(function)(*samples)
        except GuardOnDataDependentSymNode as error:
            raise _refusal(cell, "branches on a value") from error
    for part, attributes in before:
        for name, value in vars(part).items():
            if name not in attributes or attributes[name] is not value:
                raise _refusal(cell, f"sets {type(part).__name__}.{name}, which no graph keeps")
    if versions != [sample._version for sample in samples]:
        raise _refusal(cell, "changes its input, its state, a parameter or a buffer in place")
    for sample, node in zip(samples[:states], results(made), strict=False):
        if sample.shape != node.meta["val"].shape or sample.dtype != node.meta["val"].dtype:
            raise _refusal(cell, "changes the shape or the type of its state")
    last = placeholders(made)[-1]
    constants: list[Tensor] = []
    for node in made.graph.find_nodes(op="get_attr"):
        value = getattr(made, node.target)
        if not isinstance(value, Tensor):
            continue
        with made.graph.inserting_after(last):
            last = made.graph.placeholder(f"constant_{len(constants)}")
        constants.append(value)
        node.replace_all_uses_with(last)
        made.graph.erase_node(node)
    made.recompile()
    return made, constants


def _refusal(cell: Cell, what: str) -> UntraceableError:
    return UntraceableError(f"torch.export cannot keep the step of {title(cell)}: it {what}")
