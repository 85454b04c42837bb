"""Cells stacked in depth and run in both directions: the code that all layers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from unrolled.cells import Cell, State
from unrolled.errors import ConfigurationError, ShapeError
from unrolled.layers.dropout import dropout
from unrolled.layers.nest import Nest, flatten, map_state, unflatten
from unrolled.layers.noise import Zoneout, with_noise
from unrolled.unroll import check_inputs, check_lengths, unroll
from unrolled.unroll.adapt import Foreign, WithOutput, step
from unrolled.unroll.embedded import Embedded, Hoisted, feed
from unrolled.unroll.fallback import is_followed
from unrolled.unroll.padding import without_padding
from unrolled.unroll.versions import is_exporting

#: What a layer takes and returns for one state name: `[L·D, B, H]`, or one `[B, H_l]` per layer where widths differ.
Stacked = Tensor | tuple[Tensor, ...]
Layer = TypeVar("Layer")
Final = TypeVar("Final")


@dataclass(frozen=True)
class Regularisation:
    """The regularisation of a stack in training: dropout between layers and in the recurrence, and zoneout rates."""

    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    zoneout: tuple[float, ...] = ()


def through(
    layers: Sequence[Layer] | nn.ModuleList,
    projections: Sequence[nn.Module] | nn.ModuleList,
    inputs: Tensor | Embedded | Hoisted,
    run: Callable[[int, Layer, Any], tuple[Tensor, Final]],
) -> tuple[Tensor, list[Final]]:
    """Run layer after layer: `run(number, layer, inputs)` returns a layer's outputs and its final state.

    The next layer reads the outputs. Returns the last layer's outputs and all final states.
    projections: the modules that each layer's inputs go through first; empty for none.
    """
    finals = []
    for number, layer in enumerate(layers):
        if projections:
            project = projections[number]
            inputs = project(inputs) if isinstance(inputs, Tensor) else inputs.through(project)
        inputs, final = run(number, layer, inputs)  # type: ignore[arg-type]
        finals.append(final)
    assert isinstance(inputs, Tensor)  # the last layer's outputs
    return inputs, finals


class Stack(WithOutput):
    """A stack of cells as one cell, for use outside training. Each cell reads the output of the one below.

    cells: from the lowest to the highest. projections: the modules that each cell's input goes through first.
    zoneout: one rate for each state.

    The state is one tuple with the states of all layers, the lowest layer's first: `state_names` are
    ("h1", "c1", "h2", "c2"). `sizes` has one tuple of sizes per layer: `unflatten(state, stack.sizes)` gives the state
    layer by layer.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        projections: nn.ModuleList,
        zoneout: tuple[float, ...] = (),
    ) -> None:
        nn.Module.__init__(self)
        self.layers = nn.ModuleList(Zoneout(c, zoneout, training=False) if any(zoneout) else c for c in cells)
        self.projections = projections
        first = projections[0]
        self.input_size = first.in_features if isinstance(first, nn.Linear) else cells[0].input_size
        self.hidden_size = output_size(cells[-1])
        self.sizes = tuple(cell.state_sizes for cell in cells)
        self.state_names = tuple(  # type: ignore[misc]
            f"{name}{number}" for number, cell in enumerate(cells, 1) for name in cell.state_names
        )
        self.training = False

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return flatten(self.sizes)

    def initial_state(self, batch_size: int, *, like: Tensor) -> State:
        return flatten([cell.initial_state(batch_size, like=like) for cell in self.layers])  # type: ignore[operator]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        states = unflatten(state, self.sizes)
        output, new = through(self.layers, self.projections, x, lambda k, cell, x: step(cell, x, states[k]))
        return output, flatten(new)


def output_size(cell: Cell) -> int:
    """Return the width of a cell's output: that of its first state, unless a user module has its own output."""
    return (isinstance(cell, Foreign) and cell.own_output) or cell.state_sizes[0]


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
    """Run `cells[layer][direction]` over `inputs [T, B, I]`. The states taken and returned are listed by layer."""
    projects = len(projections) > 0 and not isinstance(projections[0], nn.Identity)
    if isinstance(inputs, Embedded):
        lengths = check_lengths(inputs.tokens, lengths)
        inputs = inputs.read(lengths) if projects or inputs.repeats else inputs
    elif isinstance(inputs, Tensor) and projects and lengths is not None and inputs.dim() == 3:
        lengths = check_lengths(inputs, lengths)
        inputs = without_padding(inputs, lengths)

    def run(layer: int, directions: Sequence[Cell], inputs: Tensor | Embedded | Hoisted) -> tuple[Tensor, list[State]]:
        outputs, finals = [], []
        for direction, cell in enumerate(directions):
            start = states[layer * len(directions) + direction]
            inner, fed = (cell, inputs) if isinstance(inputs, Tensor) else feed(cell, inputs, backend)
            check_inputs(inner, fed)  # before draws are appended to them
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
        together = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
        if layer + 1 < len(cells) and noise.dropout and cells[layer + 1][0].training:
            together = dropout(together, noise.dropout)
        return together, finals

    outputs, finals = through(cells, projections, inputs, run)
    return outputs, [state for directions in finals for state in directions]


def by_name(states: Sequence[State]) -> Stacked | tuple[Stacked, ...]:
    """Convert the states of layers and directions to what a layer returns: a tensor or tuple for each state name.

    If there is only one state name, the result is not wrapped in a tuple.
    """
    found = tuple(
        torch.stack(parts) if len({part.size(-1) for part in parts}) == 1 else parts
        for parts in zip(*states, strict=True)
    )
    return found[0] if len(found) == 1 else found


def by_layer(hx: Stacked | Sequence[Stacked] | None, names: tuple[str, ...], count: int) -> list[State | None]:
    """List a state by layer and direction, `count` of them: the reverse of `by_name`. If `hx` is None, so is each."""
    if hx is None:
        return [None] * count
    named = (hx,) if len(names) == 1 else tuple(hx)
    if len(named) != len(names) or any(len(part) != count for part in named):
        raise ShapeError(
            f"hx must hold ({', '.join(names)}), each over {count} layers and directions, "
            f"got {[len(part) for part in named]}"
        )
    return [tuple(part[k] for part in named) for k in range(count)]


@dataclass
class LayerBatch:
    """Inputs in the engine's layout, and methods that return results in the caller's layout.

    `inputs` is `[T, B, I]`, embedded, or hoisted. `lengths` is `[B]` or None.
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
    ) -> LayerBatch:
        if isinstance(given, Hoisted):
            values = given.values.transpose(0, 1) if batch_first else given.values
            return cls(Hoisted(given.cell, values), lengths, batch_first, True, None)
        if isinstance(given, Embedded):
            tokens = given.tokens.t() if batch_first else given.tokens
            return cls(Embedded(given.table, tokens), lengths, batch_first, True, None)
        if isinstance(given, PackedSequence):
            if is_exporting():
                raise ConfigurationError(
                    "torch.export cannot keep a PackedSequence: pass the padded input, and its lengths as `lengths`"
                )
            if lengths is not None:
                raise ShapeError("a PackedSequence has its own lengths; do not pass `lengths` with it")
            inputs, lengths = pad_packed_sequence(given)
            return cls(inputs, lengths, batch_first, True, given)
        if given.dim() == 2:
            if lengths is not None:
                raise ShapeError("lengths need a batch, but the input is one sequence, [T, I]")
            return cls(given.unsqueeze(1), None, batch_first, False, None)
        return cls(given.transpose(0, 1) if batch_first else given, lengths, batch_first, True, None)

    def close_outputs(self, outputs: Tensor) -> Tensor | PackedSequence:
        if self.packed is not None:
            order = self.packed.sorted_indices
            sequences = outputs if order is None else outputs.index_select(1, order)
            if is_followed([sequences]):  # packing has no forward-mode derivative, indexing has one
                inside = torch.arange(sequences.size(1)) < self.packed.batch_sizes.unsqueeze(-1)
                return self.packed._replace(data=sequences[inside.nonzero(as_tuple=True)])
            assert self.lengths is not None
            lengths = self.lengths if order is None else self.lengths[order.cpu()]
            return self.packed._replace(data=pack_padded_sequence(sequences, lengths).data)
        if not self.batched:
            return outputs.squeeze(1)
        return outputs.transpose(0, 1) if self.batch_first else outputs

    def open_state(self, hx: Nest) -> Nest:
        """Add a batch axis to the state of an unbatched sequence."""
        return hx if self.batched else map_state(lambda part: part.unsqueeze(-2), hx)

    def close_state(self, hx: Nest) -> Nest:
        return hx if self.batched else map_state(lambda part: part.squeeze(-2), hx)


def run_layer(
    cells: Sequence[Sequence[Cell]],
    batch: LayerBatch,
    hx: Stacked | Sequence[Stacked] | None,
    noise: Regularisation,
    backend: str,
    projections: Sequence[nn.Module] = (),
    recompute_every: int | None = None,
) -> tuple[Tensor | PackedSequence, Stacked | tuple[Stacked, ...]]:
    """Call `run_stack`, and convert input and state between the caller's forms and the engine's."""
    states = by_layer(batch.open_state(hx), cells[0][0].state_names, sum(map(len, cells)))
    outputs, finals = run_stack(
        cells, batch.inputs, states, batch.lengths, noise, backend, projections, recompute_every
    )
    return batch.close_outputs(outputs), batch.close_state(by_name(finals))
