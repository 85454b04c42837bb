"""Cells stacked in depth and run in both directions: the part that every layer shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from unrolled.cells import Cell, State
from unrolled.errors import ConfigurationError, ShapeError
from unrolled.layers.dropout import dropout
from unrolled.layers.noise import with_noise
from unrolled.unroll import check_inputs, check_lengths, unroll
from unrolled.unroll.embedded import Embedded, Hoisted, feed
from unrolled.unroll.fallback import is_followed
from unrolled.unroll.padding import without_padding

#: What a layer takes and returns for one state name: `[L·D, B, H]`, or one `[B, H_l]` a layer where widths differ.
Stacked = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Regularisation:
    """What a stack drops while it trains: between layers, inside the recurrence, and of each update."""

    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    zoneout: tuple[float, ...] = ()


def run_stack(
    cells: Sequence[Sequence[Cell]],
    inputs: Tensor | Embedded | Hoisted,
    states: Sequence[State | None],
    lengths: Tensor | None,
    noise: Regularisation,
    backend: str,
    projections: Sequence[nn.Module] = (),
    recompute_every: int | None = None,
) -> tuple[Tensor, list[State]]:
    """Run `cells[layer][direction]` over `inputs [T, B, I]`; states in and out are listed layer by layer."""
    finals: list[State] = []
    projects = bool(projections) and not isinstance(projections[0], nn.Identity)
    if isinstance(inputs, Embedded):
        lengths = check_lengths(inputs.tokens, lengths)
        inputs = inputs.read(lengths) if projects or inputs.repeats else inputs
    elif isinstance(inputs, Tensor) and projects and lengths is not None and inputs.dim() == 3:
        lengths = check_lengths(inputs, lengths)
        inputs = without_padding(inputs, lengths)
    for layer, directions in enumerate(cells):
        if isinstance(inputs, Tensor):
            if layer and noise.dropout and directions[0].training:
                inputs = dropout(inputs, noise.dropout)
            inputs = projections[layer](inputs) if projections else inputs
        elif projections:
            inputs = inputs.through(projections[layer])
        outputs = []
        for direction, cell in enumerate(directions):
            start = states[layer * len(directions) + direction]
            inner, fed = (cell, inputs) if isinstance(inputs, Tensor) else feed(cell, inputs, backend)
            check_inputs(inner, fed)  # before draws lie behind them
            noisy, fed = with_noise(inner, fed, noise.recurrent_dropout, noise.zoneout)
            output, final = unroll(
                *(noisy, fed, start),
                lengths=lengths,
                reverse=direction == 1,
                backend=backend,
                recompute_every=recompute_every,
            )
            outputs.append(output)
            finals.append(final)
        inputs = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
    assert isinstance(inputs, Tensor)  # the last layer's outputs
    return inputs, finals


def map_state(function: Callable[[Tensor], Tensor], hx):
    """Apply `function` to every tensor of a layer's state, whatever its nesting: to detach or to move it."""
    if hx is None:
        return None
    if isinstance(hx, Tensor):
        return function(hx)
    return tuple(map_state(function, part) for part in hx)


def take_state(hx, first: int, end: int):
    """The states of sequences `first` to `end` of a batch; None stays None."""
    return None if hx is None else map_state(lambda part: part.narrow(-2, first, end - first).contiguous(), hx)


def join_states(parts: Sequence):
    """The reverse of `take_state`: the state of a batch from those of its parts, in order."""
    if len(parts) == 1 or parts[0] is None:
        return parts[0]
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts), -2)
    return tuple(join_states(inner) for inner in zip(*parts, strict=True))


def stack_states(finals: list[State]) -> tuple[Stacked, ...]:
    """The final states, one entry a state name."""
    by_name = list(zip(*finals, strict=True))
    return tuple(torch.stack(parts) if len({p.size(-1) for p in parts}) == 1 else parts for parts in by_name)


def unstack_states(hx: Stacked | Sequence[Stacked] | None, names: tuple[str, ...], count: int) -> list[State | None]:
    """The reverse of `stack_states`, for `count` layers and directions; a single state has no tuple around it."""
    if hx is None:
        return [None] * count
    by_name = (hx,) if len(names) == 1 else tuple(hx)
    if len(by_name) != len(names) or any(len(part) != count for part in by_name):
        raise ShapeError(
            f"hx must hold ({', '.join(names)}), each over {count} layers and directions, "
            f"got {[len(part) for part in by_name]}"
        )
    return [tuple(part[k] for part in by_name) for k in range(count)]


@dataclass
class Batch:
    """Inputs in the engine's layout, and how to give results back in the caller's.

    `inputs` is `[T, B, I]`, or embedded, or hoisted; `lengths [B]` or None.
    """

    inputs: Tensor | Embedded | Hoisted
    lengths: Tensor | None
    batch_first: bool
    batched: bool
    packed: PackedSequence | None

    @classmethod
    def open(
        cls,
        given: Tensor | PackedSequence | Embedded | Hoisted,
        batch_first: bool,
        lengths: Tensor | None = None,
    ) -> Batch:
        if isinstance(given, Hoisted):
            values = given.values.transpose(0, 1) if batch_first else given.values
            return cls(Hoisted(given.cell, values), lengths, batch_first, True, None)
        if isinstance(given, Embedded):
            tokens = given.tokens.t() if batch_first else given.tokens
            return cls(Embedded(given.table, tokens), lengths, batch_first, True, None)
        if isinstance(given, PackedSequence):
            if torch.compiler.is_exporting():
                raise ConfigurationError(
                    "torch.export cannot keep a PackedSequence: give the padded input, and its lengths as `lengths`"
                )
            if lengths is not None:
                raise ShapeError("a PackedSequence carries its own lengths; give one or the other")
            inputs, lengths = pad_packed_sequence(given)
            return cls(inputs, lengths, batch_first, True, given)
        if given.dim() == 2:
            if lengths is not None:
                raise ShapeError("lengths belong to a batch; the input is one sequence, [T, I]")
            return cls(given.unsqueeze(1), None, batch_first, False, None)
        return cls(given.transpose(0, 1) if batch_first else given, lengths, batch_first, True, None)

    def close_outputs(self, outputs: Tensor) -> Tensor | PackedSequence:
        if self.packed is not None:
            order = self.packed.sorted_indices
            sequences = outputs if order is None else outputs.index_select(1, order)
            if is_followed([sequences]):  # packing has no forward-mode derivative, picking has
                inside = torch.arange(sequences.size(1)) < self.packed.batch_sizes.unsqueeze(-1)
                return self.packed._replace(data=sequences[inside.nonzero(as_tuple=True)])
            assert self.lengths is not None
            lengths = self.lengths if order is None else self.lengths[order.cpu()]
            return self.packed._replace(data=pack_padded_sequence(sequences, lengths).data)
        if not self.batched:
            return outputs.squeeze(1)
        return outputs.transpose(0, 1) if self.batch_first else outputs

    def open_state(self, part: Stacked) -> Stacked:
        """A state of an unbatched sequence has no batch axis; put one in."""
        if self.batched:
            return part
        return part.unsqueeze(-2) if isinstance(part, Tensor) else tuple(p.unsqueeze(-2) for p in part)

    def close_state(self, part: Stacked) -> Stacked:
        if self.batched:
            return part
        return part.squeeze(-2) if isinstance(part, Tensor) else tuple(p.squeeze(-2) for p in part)


def run_layer(
    cells: Sequence[Sequence[Cell]],
    batch: Batch,
    hx: Stacked | Sequence[Stacked] | None,
    noise: Regularisation,
    backend: str,
    projections: Sequence[nn.Module] = (),
    recompute_every: int | None = None,
) -> tuple[Tensor | PackedSequence, Stacked | tuple[Stacked, ...]]:
    """`run_stack` between a caller's forms of input and state and the engine's."""
    names = cells[0][0].state_names
    if hx is not None and not batch.batched:
        hx = batch.open_state(hx) if len(names) == 1 else tuple(batch.open_state(part) for part in hx)  # type: ignore[arg-type]
    states = unstack_states(hx, names, sum(map(len, cells)))
    outputs, finals = run_stack(
        cells, batch.inputs, states, batch.lengths, noise, backend, projections, recompute_every
    )
    final = tuple(batch.close_state(part) for part in stack_states(finals))
    return batch.close_outputs(outputs), final[0] if len(final) == 1 else final
