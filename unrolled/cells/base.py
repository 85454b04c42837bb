"""The base class of all cells: sizes, names of the states, parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from unrolled.errors import ConfigurationError

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Gate:
    """A gate of a cell, or the candidate that gates let in. Each has its own part of the packed weights.

    activation: "sigmoid" for a gate, "tanh" for a candidate.
    keeps: 1 if the open gate keeps the state, -1 if it overwrites the state, 0 if it does neither.
    bias: the parameter that holds the bias. All gates that name the same parameter have equal parts of it, in order.
    """

    name: str
    activation: str = "sigmoid"
    keeps: int = 0
    bias: str = "bias"


class Cell(nn.Module):
    """One step of a recurrence, `(x, state) -> state`. The output of the step is `state[0]`.

    A subclass names its states, adds its parameters and writes its formula in `forward`:

        class Leaky(Cell):
            def __init__(self, input_size, hidden_size, **options):
                super().__init__(input_size, hidden_size)
                square = (hidden_size, hidden_size)
                self.add_parameters(options, weight_ih=(hidden_size, input_size), weight_hh=square)

            def forward(self, x, state):
                (h,) = state
                return (0.9 * h + 0.1 * torch.tanh(x @ self.weight_ih.T + h @ self.weight_hh.T),)

    Shapes: `x` is `[B, input_size]`, state number k is `[B, state_sizes[k]]`.
    """

    state_names: ClassVar[tuple[str, ...]] = ("h",)
    #: The gates and candidates, in the order of the packed weights. Vanilla cells have none.
    gates: tuple[Gate, ...] = ()
    #: The gates' names in the order in which `forward` computes them, if this is not the order of `gates`.
    gate_order: ClassVar[tuple[str, ...]] = ()
    #: The number of the state that the recurrent weights see. Recurrent dropout acts on it.
    recurring: ClassVar[int] = 0
    #: True if the formula adds `x` itself to a hidden-sized vector (MUT1, MUT2).
    needs_equal_sizes: ClassVar[bool] = False

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        if input_size < 1 or hidden_size < 1:
            raise ConfigurationError(
                f"{type(self).__name__}: input_size ({input_size}) and hidden_size ({hidden_size}) must be at least 1"
            )
        if self.needs_equal_sizes and input_size != hidden_size:
            raise ConfigurationError(
                f"{type(self).__name__} adds its input to a hidden-sized vector: input_size ({input_size}) must equal "
                f"hidden_size ({hidden_size}); make them equal, or let the layer project the input: "
                f"Recurrent(..., input_projection=True)"
            )
        self.input_size = input_size
        self.hidden_size = hidden_size

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The width of each state, in the order of `state_names`."""
        return (self.hidden_size,) * len(self.state_names)

    def gate_bias(self, name: str) -> Tensor | None:
        """Return the part `[H]` of a parameter that is the bias of the gate `name`; None in a cell without biases."""
        (gate,) = (gate for gate in self.gates if gate.name == name)
        whole = getattr(self, gate.bias)
        together = [other.name for other in self.gates if other.bias == gate.bias]
        return None if whole is None else whole.chunk(len(together))[together.index(name)]

    def add_parameters(self, options: dict, /, **shapes: tuple[int, ...]) -> None:
        """Register one parameter for each shape and initialise all of them.

        `options` are the keywords that every cell takes: `bias=True` (False leaves out each parameter whose name starts
        with "bias"), `device=None`, `dtype=None`.
        """
        options = dict(options)
        bias = options.pop("bias", True)
        factory = {"device": options.pop("device", None), "dtype": options.pop("dtype", None)}
        if options:
            raise TypeError(f"{type(self).__name__} got unexpected options: {', '.join(sorted(options))}")
        for name, shape in shapes.items():
            absent = name.startswith("bias") and not bias
            self.register_parameter(name, None if absent else nn.Parameter(torch.empty(shape, **factory)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter from U(-1/√H, 1/√H), as `torch.nn`'s recurrent layers do."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def initial_state(self, batch_size: int, *, like: Tensor) -> State:
        """Return zeros, `[batch_size, size]` for each state, with the dtype and device of `like`."""
        return tuple(like.new_zeros(batch_size, size) for size in self.state_sizes)

    def bind(self, **parameters: Tensor | None) -> Self:
        """Return a shallow copy of this cell that uses other tensors in place of the named parameters."""
        clone = type(self).__new__(type(self))
        clone.__dict__.update(self.__dict__, origin=getattr(self, "origin", self))
        clone.__dict__["_parameters"] = {**self._parameters, **parameters}
        return clone

    def forward(self, x: Tensor, state: State) -> State:
        raise NotImplementedError(f"{type(self).__name__} does not define forward(x, state)")

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}"
