"""Nested states: what is taken apart comes together again."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrolled.layers.nest import flatten, join_states, map_state, pick_state, take_state, unflatten

NESTS = st.recursive(
    st.integers(1, 3) | st.none(), lambda parts: st.lists(parts, max_size=3).map(tuple), max_leaves=8
).map(lambda nest: map_leaves(lambda size: None if size is None else torch.randn(2, 5, size), nest))


def map_leaves(function, nest):
    return tuple(map_leaves(function, part) for part in nest) if isinstance(nest, tuple) else function(nest)


def same(one, other):
    if isinstance(one, tuple):
        return isinstance(other, tuple) and len(one) == len(other) and all(map(same, one, other))
    return other is None if one is None else torch.equal(one, other)


@given(NESTS)
def test_leaves_are_nested_again(state):
    leaves = flatten(state)
    assert not any(isinstance(leaf, tuple) for leaf in leaves)
    assert same(unflatten(leaves, state), state)
    assert flatten(unflatten(range(len(leaves)), state)) == tuple(range(len(leaves)))
    with pytest.raises(ValueError, match=f"{len(leaves) + 1} leaves for a nest of {len(leaves)}"):
        unflatten([*leaves, None], state)


@given(NESTS)
def test_rows_are_taken_and_joined(state):
    parts = [take_state(state, 0, 2), take_state(state, 2, 3), take_state(state, 3, 5)]
    assert same(join_states(parts), state)
    picked = pick_state(state, torch.tensor([4, 0, 0]))
    assert same(picked, map_state(lambda part: part[:, [4, 0, 0]], state))


def test_lists_come_back_as_tuples():
    assert map_state(torch.neg, [torch.ones(1), [None]]) == (-torch.ones(1), (None,))
