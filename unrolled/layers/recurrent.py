"""`Recurrent`: any cell, stacked, in one or both directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from unrolled.cells import Cell, State, find_cell
from unrolled.errors import ConfigurationError
from unrolled.layers.noise import probability, zoneout_rates
from unrolled.layers.stack import (
    LayerBatch,
    Regularisation,
    Stack,
    Stacked,
    by_layer,
    output_size,
    run_layer,
    run_stack,
)
from unrolled.layers.wrap import as_cell
from unrolled.unroll.adapt import Foreign
from unrolled.unroll.embedded import Embedded, Hoisted, KeptRows, keep_rows


class Recurrent(nn.Module):
    """Layers of any cell: `Recurrent(PeepholeLSTMCell, 64, 256, num_layers=2)`, or `Recurrent("peephole", 64, 256)`.

    cell_class: a `Cell` class, a function `(input_size, hidden_size, **options) -> Cell`, or a name. The name is from
        `CELLS`, or names a user's cell: `"leaky.py:Leaky"`. The class may also be any other `torch.nn` module that maps
        `(x, state)` to a state or to `(output, state)`: `torch.nn.LSTMCell`.
    hidden_size: one width for all layers, or one for each layer: `[512, 256]`.
    dropout: on the outputs of every layer except the last, as in `torch.nn`.
    recurrent_dropout: on the previous output inside the recurrence, one mask per sequence.
    zoneout: the probability that a unit keeps its value for a step: one rate, or one for each of the cell's states.
    input_projection: put a linear layer before every layer whose input size differs from its hidden size. MUT1 and MUT2
        need it.
    recompute_every: for long sequences, see `unrolled.unroll`: less memory in exchange for some time.
    options: passed to the cell's constructor (`forget_bias=1.0`, `full=True`, `device=`, `dtype=`).

    `forward(input, hx=None, *, lengths=None)` takes `[T, B, I]` (`[B, T, I]` with `batch_first`), `[T, I]`, a
    PackedSequence, rows of a table as `Embedded(table, tokens)`, or what `keep_rows` caches of them. It returns
    `(output, hx)`. `output [T, B, D·H]` has the form of the input. `hx` is one tensor `[L·D, B, H]`, or for cells with
    several states a tuple with one for each state. Where widths differ, each tensor is a tuple over layers.
    """

    def __init__(
        self,
        cell_class: Callable[..., Cell] | str,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int | None = None,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, ...] = 0.0,
        batch_first: bool = False,
        input_projection: bool = False,
        backend: str = "auto",
        recompute_every: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        make = find_cell(cell_class) if isinstance(cell_class, str) else cell_class
        if isinstance(make, nn.Module) or not callable(make):
            raise ConfigurationError(
                "Recurrent takes a class, or a function (input_size, hidden_size) -> cell, because every layer and "
                f"direction has its own weights; got a {type(make).__name__}"
            )
        widths = [hidden_size] * (num_layers or 1) if isinstance(hidden_size, int) else list(hidden_size)
        if not widths or (num_layers is not None and num_layers != len(widths)):
            raise ConfigurationError(f"num_layers={num_layers} does not fit hidden_size={hidden_size}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, len(widths)
        self.bidirectional, self.batch_first, self.backend = bidirectional, batch_first, backend
        self.recompute_every = recompute_every
        directions = 2 if bidirectional else 1
        factory = {key: options[key] for key in ("device", "dtype") if key in options}
        self.cells = nn.ModuleList()
        self.projections = nn.ModuleList()
        size = input_size
        for width in widths:
            project = input_projection and size != width
            self.projections.append(nn.Linear(size, width, **factory) if project else nn.Identity())
            size = width if project else size
            cells = [as_cell(make(size, width, **options), size, width) for _ in range(directions)]
            self.cells.append(nn.ModuleList(cells))
            own_output = isinstance(cells[0], Foreign) and cells[0].own_output is not None
            if own_output and (recurrent_dropout or zoneout):
                raise ConfigurationError("zoneout and recurrent_dropout need a cell whose output is its first state")
            size = output_size(cells[0]) * directions
        self.output_size = size
        self.state_names = cells[0].state_names
        self.noise = Regularisation(
            probability("dropout", dropout),
            probability("recurrent_dropout", recurrent_dropout),
            zoneout_rates(zoneout, len(self.state_names)),
        )

    def forward(
        self,
        input: Tensor | PackedSequence | Embedded | Hoisted,
        hx: Stacked | Sequence[Stacked] | None = None,
        *,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, Stacked | tuple[Stacked, ...]]:
        batch = LayerBatch.open(input, self.batch_first, lengths)
        cells: Any = list(self.cells)
        return run_layer(cells, batch, hx, self.noise, self.backend, list(self.projections), self.recompute_every)

    def run(
        self,
        inputs: Tensor | Embedded | Hoisted,
        states: Sequence[State | None] | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, list[State]]:
        """Run as `forward` does, on time-major `inputs [T, B, I]`, with states listed by layer, each `[B, size]`."""
        cells: Any = list(self.cells)
        first = by_layer(None, self.state_names, sum(map(len, cells))) if states is None else states
        projections = list(self.projections)
        return run_stack(cells, inputs, first, lengths, self.noise, self.backend, projections, self.recompute_every)

    def by_layer(self, hx: Stacked | Sequence[Stacked] | None) -> list[State | None]:
        """Convert a state from `forward`'s form to `run`'s form: one state for each layer and direction."""
        return by_layer(hx, self.state_names, sum(map(len, self.cells)))  # type: ignore[arg-type]

    def stack(self) -> Stack:
        """Return the layers as one cell, for use outside training, with the same parameters.

        Raises ConfigurationError if they are bidirectional, because one direction reads the sequence from its end.
        """
        if self.bidirectional:
            raise ConfigurationError("a bidirectional layer reads a sequence from both ends: it cannot be one cell")
        return Stack([directions[0] for directions in self.cells], self.projections, self.noise.zoneout)  # type: ignore[index]

    def keep_rows(self, table: Tensor, scale: float = 1.0) -> KeptRows | None:
        """Cache what the first layer computes from each row of `scale * table`, for steps that need no gradient.

        `layer(kept.at(tokens), state)` then equals `layer(scale * table[tokens], state)`. Returns None for
        bidirectional layers, and where native code cannot be used.
        """
        if self.bidirectional:
            return None
        return keep_rows(self.cells[0][0], table, scale, self.projections[0], self.backend)  # type: ignore[index]

    def extra_repr(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, bidirectional={self.bidirectional}"
        )
