"""States of any nesting: a tensor, a tuple of states, or None for a state that does not exist yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

#: A tensor `[..., B, H]` with one row per sequence, a tuple of nests, or None. Lists are returned as tuples.
Nest = Any


def map_state(function: Callable[[Tensor], Tensor], state: Nest) -> Nest:
    """Apply `function` to every tensor of a state, for example to detach or move it."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        return function(state)
    return tuple(map_state(function, part) for part in state)


def take_state(state: Nest, first: int, end: int) -> Nest:
    """Return the states of the sequences from `first` to before `end` of a batch."""
    return map_state(lambda part: part.narrow(-2, first, end - first).contiguous(), state)


def pick_state(state: Nest, rows: Tensor) -> Nest:
    """Return the states of the sequences numbered `rows [N]`, in that order. A number may occur several times."""
    return map_state(lambda part: part.index_select(-2, rows), state)


def join_states(parts: Sequence[Nest]) -> Nest:
    """Join the states of a batch's parts, in order: the reverse of `take_state`."""
    if len(parts) == 1 or parts[0] is None:
        return parts[0]
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts), -2)
    return tuple(join_states(inner) for inner in zip(*parts, strict=True))


def flatten(state: Nest) -> tuple[Any, ...]:
    """Return everything that the tuples of a state hold, in order; `(x,)` for an `x` that is not a tuple."""
    if not isinstance(state, tuple | list):
        return (state,)
    return tuple(leaf for part in state for leaf in flatten(part))


def unflatten(leaves: Sequence[Any], like: Nest) -> Nest:
    """Nest the leaves in the form of `like`, whose own leaves may be anything: the reverse of `flatten`.

    Raises ValueError if `like` has a different number of leaves.
    """
    count = len(flatten(like))
    if count != len(leaves):
        raise ValueError(f"{len(leaves)} leaves for a nest of {count}")
    return _nested(iter(leaves), like)


def _nested(leaves: Iterator[Any], like: Nest) -> Nest:
    return tuple(_nested(leaves, part) for part in like) if isinstance(like, tuple | list) else next(leaves)
