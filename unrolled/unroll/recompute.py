"""Runs a long sequence in pieces. Keeps only the states between pieces, and computes the rest again in backward.

Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from unrolled.cells import State
from unrolled.errors import ConfigurationError
from unrolled.unroll.fallback import is_followed

#: `run(inputs, state, lengths, followed)` returns the outputs and last states of a piece. `followed` is whether PyTorch
#: must see every operation.
Run = Callable[[Tensor, State, Tensor | None, bool], tuple[Tensor, State]]


def in_segments(
    run: Run,
    parameters: Sequence[Tensor],
    inputs: Tensor,
    state: State,
    lengths: Tensor | None,
    reverse: bool,
    every: int,
) -> tuple[Tensor, State]:
    """Return what `run` returns, computed in pieces of `every` steps. `parameters` are the other tensors that it reads.

    Transforms and forward-mode differentiation run the whole sequence at once, because they compute nothing again.
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ConfigurationError(f"recompute_every must be a whole number of steps, at least 1, got {every!r}")
    if is_followed((inputs, *state, *parameters)):
        return run(inputs, state, lengths, False)
    steps = len(inputs)
    if lengths is not None:  # end with the longest sequence, so that no piece is only padding
        steps = max(1, int(lengths.max()))
    bounds = [(start, min(start + every, steps)) for start in range(0, steps, every)]
    pieces = _Cut(run, bounds[::-1] if reverse else bounds, lengths, len(state))
    outputs, *final = _Pieces.apply(pieces, inputs, *state, *parameters)
    return outputs, tuple(final)


class _Cut:
    """A function to run, and the bounds of the pieces in the order of the run."""

    def __init__(self, run: Run, bounds: list[tuple[int, int]], lengths: Tensor | None, states: int) -> None:
        self.run, self.bounds, self.lengths, self.states = run, bounds, lengths, states

    def __call__(
        self, inputs: Tensor, state: State, bound: tuple[int, int], followed: bool = False
    ) -> tuple[Tensor, State]:
        start, stop = bound
        left = None if self.lengths is None else (self.lengths - start).clamp(0, stop - start)
        return self.run(inputs, state, left, followed)


class _Pieces(torch.autograd.Function):
    """The run over all pieces, under autograd.

    `torch.utils.checkpoint` would hold every piece of the output and of the input's gradient twice.
    """

    @staticmethod
    def forward(ctx, pieces: _Cut, inputs: Tensor, *others: Tensor):
        state: State = others[: pieces.states]
        starts: list[Tensor] = []
        ctx.draws = []  # the user's module may contain dropout
        outputs = None
        for start, stop in pieces.bounds:
            starts += state
            ctx.draws.append(torch.get_rng_state())
            made, state = pieces(inputs[start:stop], state, (start, stop))
            if outputs is None:
                outputs = made.new_empty(len(inputs), *made.shape[1:])
                outputs[max(end for _, end in pieces.bounds) :] = 0
            outputs[start:stop] = made
        ctx.pieces = pieces
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs, *others[pieces.states :], *starts)
        return outputs, *state

    @staticmethod
    def backward(ctx, of_outputs: Tensor | None, *of_final: Tensor | None):
        pieces, needed = ctx.pieces, ctx.needs_input_grad[1:]
        count = len(needed) - 1 - pieces.states
        inputs, *rest = ctx.saved_tensors
        parameters, starts = rest[:count], rest[count:]
        given = (of_outputs, *of_final)
        followed = is_followed(value for value in given if value is not None)
        if followed or torch.is_grad_enabled():  # a higher-order gradient is wanted
            leaves = [inputs, *starts[: pieces.states], *parameters]
            return None, *_differentiable(pieces, ctx.draws, leaves, needed, given, followed)
        chosen = [p for p, needs in zip(parameters, needed[1 + pieces.states :], strict=True) if needs]
        of_inputs = torch.zeros_like(inputs) if needed[0] else None
        sums: list[Tensor | None] = [None] * len(chosen)
        carried: list[Tensor | None] = list(of_final)
        for number in reversed(range(len(pieces.bounds))):
            start, stop = pieces.bounds[number]
            piece = inputs[start:stop].detach().requires_grad_(needed[0])
            first = starts[number * pieces.states : (number + 1) * pieces.states]
            state = tuple(part.detach().requires_grad_() for part in first)
            with torch.enable_grad(), _drawing(ctx.draws[number]):
                made, final = pieces(piece, state, (start, stop))
            of_made = [None if of_outputs is None else of_outputs[start:stop], *carried]
            ends = [(v, g) for v, g in zip((made, *final), of_made, strict=True) if g is not None and v.requires_grad]
            leaves = [*([piece] if needed[0] else []), *state, *chosen]
            found = _gradients(ends, leaves)
            if of_inputs is not None:
                of_piece = found.pop(0)
                if of_piece is not None:
                    of_inputs[start:stop] = of_piece
            carried = found[: pieces.states]
            for k, gradient in enumerate(found[pieces.states :]):
                before = sums[k]
                if gradient is not None:
                    sums[k] = gradient if before is None else before.add_(gradient)
        of_chosen = iter(sums)
        of_parameters = [next(of_chosen) if needs else None for needs in needed[1 + pieces.states :]]
        return None, of_inputs, *carried, *of_parameters


@contextmanager
def _drawing(state: Tensor) -> Iterator[None]:
    """Draw random numbers from the generator state `state`, and restore the caller's state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(state)
        yield


class _Gate:
    """A switch: whether gradients pass."""

    is_open = False


class _Through(torch.autograd.Function):
    """The identity. It passes the gradient on only while the gate is open.

    If the input or the state was computed from the same parameters, they also have a gradient through it. That gradient
    is not a piece's, and must not be added to the piece's gradient.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor, gate: _Gate) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.gate = inputs[1]

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient if ctx.gate.is_open else None, None


def _differentiable(
    pieces: _Cut,
    draws: Sequence[Tensor],
    leaves: Sequence[Tensor],
    needed: Sequence[bool],
    given: Sequence[Tensor | None],
    followed: bool,
) -> list[Tensor | None]:
    """Return the gradients of `leaves` through all pieces at once, which saves no memory.

    If higher-order gradients are wanted, the result is part of autograd's graph. For `followed` see `Run`.
    """
    further = torch.is_grad_enabled()
    gate = _Gate()
    with torch.enable_grad():
        first = [_Through.apply(leaf, gate) for leaf in leaves[: 1 + pieces.states]]
    leaves = [*first, *leaves[1 + pieces.states :]]
    inputs, state = first[0], tuple(first[1:])
    outputs: list[Tensor] = []
    for draw, (start, stop) in zip(draws, pieces.bounds, strict=True):
        with torch.enable_grad(), _drawing(draw):
            made, state = pieces(inputs[start:stop], state, (start, stop), followed)
        outputs.append(made)
    if pieces.bounds[0][0] > pieces.bounds[-1][0]:
        outputs.reverse()
    with torch.enable_grad():
        after = len(inputs) - sum(map(len, outputs))
        values = (torch.cat([*outputs, outputs[0].new_zeros(after, *outputs[0].shape[1:])]), *state)
    ends = [(v, g) for v, g in zip(values, given, strict=True) if g is not None and v.requires_grad]
    wanted = [leaf for leaf, needs in zip(leaves, needed, strict=True) if needs]
    found = iter(_gradients(ends, wanted, create_graph=further))
    gate.is_open = True
    return [next(found) if needs else None for needs in needed]


def _gradients(
    ends: Sequence[tuple[Tensor, Tensor]], leaves: Sequence[Tensor], create_graph: bool = False
) -> list[Tensor | None]:
    """Return the gradients of the leaves. `ends` pairs outputs with their gradients."""
    if not ends:
        return [None] * len(leaves)
    values, given = zip(*ends, strict=True)
    return list(torch.autograd.grad(values, leaves, given, create_graph=create_graph, allow_unused=True))
