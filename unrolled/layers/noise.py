"""Regularisers that act inside the recurrence, as cells that wrap another cell."""

from __future__ import annotations

import torch
from torch import Tensor

from unrolled.cells import Cell, State
from unrolled.errors import ConfigurationError
from unrolled.unroll.adapt import WrapperCell, new_state


class RecurrentDropout(WrapperCell):
    """Dropout on the state that recurs, before the cell sees it, with one mask for the whole sequence.

    Units are dropped with probability `rate`, and the others are scaled by 1/(1-rate). `with_draws` appends the mask to
    the input, so that the step stays a plain function of `x [B, I + size]`.
    Source: Gal & Ghahramani 2016, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks".
    """

    def __init__(self, cell: Cell, rate: float) -> None:
        super().__init__(cell)
        self.rate = rate
        self.input_size += cell.state_sizes[cell.recurring]

    def with_draws(self, inputs: Tensor) -> Tensor:
        """Append its sequence's mask to every input of `inputs [T, B, I]`."""
        keep = inputs.new_full((inputs.size(1), self.state_sizes[self.cell.recurring]), 1 - self.rate)
        mask = torch.bernoulli(keep) / (1 - self.rate)
        return torch.cat([inputs, mask.expand(inputs.size(0), -1, -1)], -1)

    def forward(self, x: Tensor, state: State) -> State:
        k = self.cell.recurring
        x, mask = x.split((self.cell.input_size, self.state_sizes[k]), -1)  # type: ignore[no-untyped-call]
        return new_state(self.cell, x, (*state[:k], state[k] * mask, *state[k + 1 :]))


class Zoneout(WrapperCell):
    """Zoneout: each unit of state k keeps its previous value with probability `rates[k]` in each step.

    `with_draws` appends a step's draws to its input, so that the step stays a plain function of
    `x [B, I + sum(state_sizes)]`. Outside training each new state is the expected value.
    Source: Krueger et al. 2017, "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations".
    """

    def __init__(self, cell: Cell, rates: tuple[float, ...], training: bool | None = None) -> None:
        super().__init__(cell)
        self.rates = rates
        self.training = cell.training if training is None else training
        self.input_size += sum(cell.state_sizes) if self.training else 0

    def with_draws(self, inputs: Tensor) -> Tensor:
        """In training, append one uniform draw for each unit and step to `inputs [T, B, I]`."""
        if not self.training:
            return inputs
        draws = torch.rand(*inputs.shape[:2], sum(self.state_sizes), dtype=inputs.dtype, device=inputs.device)
        return torch.cat([inputs, draws], -1)

    def forward(self, x: Tensor, state: State) -> State:
        if not self.training:
            new = new_state(self.cell, x, state)
            return tuple(r * old + (1 - r) * now for r, old, now in zip(self.rates, state, new, strict=True))
        x, *draws = x.split((self.cell.input_size, *self.state_sizes), -1)  # type: ignore[no-untyped-call]
        new = new_state(self.cell, x, state)
        return tuple(
            torch.where(draw < rate, old, now)
            for rate, draw, old, now in zip(self.rates, draws, state, new, strict=True)
        )


def probability(name: str, value: float) -> float:
    """Return `value` if it is a probability below one; otherwise raise ConfigurationError."""
    if isinstance(value, bool) or not 0 <= value < 1:
        raise ConfigurationError(f"{name} must be a probability from 0 to below 1, got {value!r}")
    return float(value)


def zoneout_rates(zoneout: float | tuple[float, ...], states: int) -> tuple[float, ...]:
    """Return one rate for each state. A single number applies to all of them."""
    rates = zoneout if isinstance(zoneout, tuple | list) else (zoneout,) * states
    if len(rates) != states:
        raise ConfigurationError(f"zoneout takes one rate, or {states} for this cell's states; got {len(rates)}")
    return tuple(probability("zoneout", rate) for rate in rates)


def with_noise(cell: Cell, inputs: Tensor, recurrent_dropout: float, zoneout: tuple[float, ...]) -> tuple[Cell, Tensor]:
    """Return the cell and the inputs `[T, B, I]` to unroll it over, with the enabled noise."""
    if recurrent_dropout and cell.training:
        dropping = RecurrentDropout(cell, recurrent_dropout)
        cell, inputs = dropping, dropping.with_draws(inputs)
    if any(zoneout):
        wrapped = Zoneout(cell, zoneout)
        return wrapped, wrapped.with_draws(inputs)
    return cell, inputs
