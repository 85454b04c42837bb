"""`unroll` for `torch.export`: a graph of PyTorch's own operators, which any process can load and run.

A saved program must run without this package, so its graph contains no plans. It contains `torch.nn`'s kernel if
PyTorch has one for the cell. Otherwise it contains `scan`, PyTorch's operator for a loop, with the cell's step as the
body. Both accept any batch size; `scan` also accepts any number of steps.
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

#: `scan` lost gradients through time if the first state did not require a gradient.
_LOSES_GRADIENTS = BEFORE_2_13


def unroll_exported(
    cell: Cell, inputs: Tensor, state: State, lengths: Tensor | None, reverse: bool, backend: str
) -> tuple[Tensor, State]:
    """Compute what `unroll_eager` computes, while `torch.export` traces."""
    # A kernel fixes the number of steps, and TorchDynamo (strict=True) does not say whether it should be dynamic.
    steps_vary = torch.compiler.is_dynamo_compiling() or isinstance(inputs.size(0), torch.SymInt)
    if lengths is None and not steps_vary and has_kernel(cell) and backend != "eager":
        return unroll_kernel(cell, inputs, state, None, reverse)
    read: tuple[Tensor, ...] = (inputs,)
    if lengths is not None:
        inside = steps_inside(inputs.size(0), lengths)
        # The padding may be NaN. Replacing it by the first step, as the other backends do, would fix the batch size.
        read = torch.where(inside, inputs, torch.zeros_like(inputs)), inside
    if reverse:
        read = tuple(part.flip(0) for part in read)
    first = tuple(part.clone(memory_format=torch.contiguous_format) for part in state)
    run = _scan_strict if torch.compiler.is_dynamo_compiling() else _scan
    final, outputs = run(_Step(cell), first, read)
    return outputs.flip(0) if reverse else outputs, final


class _Step(nn.Module):
    """A cell's step as `scan` requires it: its results share no memory with one another or with its arguments."""

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
        raise ConfigurationError("torch.export with strict=True requires PyTorch 2.13: use strict=False")
    return scan(lambda state, now: advance(state, *now), first, read)


def _scan(advance: _Step, first: State, read: tuple[Tensor, ...]) -> tuple[State, Tensor]:
    """Trace the step here, because `scan` would use TorchDynamo, whose result depends on the process's history."""
    tensors = {**dict(advance.named_parameters()), **dict(advance.named_buffers())}
    states, given = len(first), len(first) + len(read)

    def flat(*values: Tensor) -> list[Tensor]:
        held = dict(zip(tensors, values[given:], strict=True))
        state, output = torch.func.functional_call(advance, held, (values[:states], *values[states:given]))
        return [*state, output]

    graph, constants = _trace(advance.cell, flat, states, (*first, *(part[0] for part in read), *tensors.values()))
    carried = (*tensors.values(), *(constant.clone() for constant in constants))  # a clone belongs to the graph
    first = _linked(first, (*read, *carried))
    *final, outputs = torch.ops.higher_order.scan(graph, list(first), list(read), carried)
    return tuple(final), outputs


def _linked(first: State, others: tuple[Tensor, ...]) -> State:
    """Return `first` with a gradient if any of the others requires one; otherwise `scan` loses their gradients."""
    if not _LOSES_GRADIENTS:
        return first
    others = tuple(other for other in others if other.is_floating_point())
    link = sum((other.reshape(-1)[0] for other in others), start=first[0].new_zeros(()))
    return tuple(torch.where(torch.ones_like(part, dtype=torch.bool), part, link.to(part.dtype)) for part in first)


def _trace(
    cell: Cell, function: Callable, states: int, samples: tuple[Tensor, ...]
) -> tuple[fx.GraphModule, list[Tensor]]:
    """Return a step's graph, and the other tensors that it reads, which the graph takes as its last arguments.

    They must be arguments, because the body of a loop cannot be saved with tensors of its own.
    Raises UntraceableError if the step does something that a graph cannot contain.
    """
    from torch._higher_order_ops.utils import reenter_make_fx
    from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    from unrolled.unroll.trace import placeholders, results

    before = [(part, dict(vars(part))) for part in cell.modules()]
    with disable_proxy_modes_tracing(), torch.inference_mode(False):  # inference tensors have no version
        samples = tuple(sample.clone() for sample in samples)
        versions = [sample._version for sample in samples]
        try:
            graph = reenter_make_fx(function)(*samples)
        except GuardOnDataDependentSymNode as error:
            raise _refusal(cell, "branches on a value") from error
    for part, attributes in before:
        for name, value in vars(part).items():
            if name not in attributes or attributes[name] is not value:
                raise _refusal(cell, f"sets {type(part).__name__}.{name}, which a graph cannot keep")
    if versions != [sample._version for sample in samples]:
        raise _refusal(cell, "changes its input, its state, a parameter or a buffer in place")
    for sample, node in zip(samples[:states], results(graph), strict=False):
        if sample.shape != node.meta["val"].shape or sample.dtype != node.meta["val"].dtype:
            raise _refusal(cell, "changes the shape or the type of its state")
    last = placeholders(graph)[-1]
    constants: list[Tensor] = []
    for node in graph.graph.find_nodes(op="get_attr"):
        value = getattr(graph, node.target)
        if not isinstance(value, Tensor):
            continue
        with graph.graph.inserting_after(last):
            last = graph.graph.placeholder(f"constant_{len(constants)}")
        constants.append(value)
        node.replace_all_uses_with(last)
        graph.graph.erase_node(node)
    graph.recompile()
    return graph, constants


def _refusal(cell: Cell, what: str) -> UntraceableError:
    return UntraceableError(f"torch.export cannot capture the step of {title(cell)}: it {what}")
