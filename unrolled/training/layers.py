"""Groups of layers that learn at rates of their own, and from a step of their own on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class LayerGroup:
    """Parameters with a learning rate of their own.

    factor: what the learning rate of a step is multiplied by. start: the first step that trains them; before it they
    are frozen.
    """

    parameters: Sequence[nn.Parameter]
    factor: float = 1.0
    start: int = 0


def freeze(groups: Sequence[dict[str, Any]], step: float) -> None:
    """Make autograd leave out the parameters of an optimiser's groups that `step` does not train."""
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(step >= group["start"])


def drop_frozen(groups: Sequence[dict[str, Any]], step: int) -> None:
    """Drop the gradients of the parameters that `step` does not train, so that the optimiser leaves them alone."""
    for group in groups:
        if step < group["start"]:
            for parameter in group["params"]:
                parameter.grad = None
