"""However a batch is shared, parted and cut in time, each of its targets is counted once."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unrolled.data.batch import Batch, BatchList, Pair, Stretch, by_similar_length


@dataclass(frozen=True)
class Words(Batch):
    """Ragged rows: padded tokens, the length of each, a class a row, and a setting that no row owns."""

    tokens: Tensor
    lengths: Tensor
    targets: Tensor
    smoothing: float = 0.1
    axes: ClassVar = {"lengths": 0, "targets": 0}


def words(rows):
    lengths = torch.arange(rows) % 4 + 1
    tokens = torch.arange(4).unsqueeze(1) * 100 + torch.arange(rows)
    return Words(tokens, lengths, torch.arange(rows) - 1)  # the first row is padding


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 5))
def test_shares_and_parts_hold_every_row_once(rows, size, count):
    whole = words(rows)
    assert whole.count == rows - 1
    assert whole.size == rows
    found = []
    for rank in range(size):
        share = whole.share(rank, size)
        assert share.size >= 1
        assert share.smoothing == 0.1
        parts = share.parts(count)
        assert len(parts) <= count
        assert [part[0] for part in parts] == [0, *(part[1] for part in parts[:-1])]
        assert parts[-1][1] == share.size
        for first, end, part in parts:
            assert torch.equal(part.tokens, share.tokens[:, first:end])
            assert torch.equal(part.lengths, share.lengths[first:end])
            found += [row for row, target in zip(part.tokens[0].tolist(), part.targets, strict=True) if target >= 0]
    assert sorted(found) == list(range(1, rows))


@given(st.integers(1, 20), st.integers(0, 25), st.booleans())
def test_a_stretch_is_cut_where_gradients_end(length, backward_length, carry):
    tokens = torch.arange(length).unsqueeze(1).expand(-1, 3)
    stretch = Stretch(tokens, tokens + 1, backward_length, carry)
    steps = stretch.steps()
    assert torch.equal(torch.cat([step.inputs for step in steps]), stretch.inputs)
    assert torch.equal(torch.cat([step.targets for step in steps]), stretch.targets)
    assert {len(step.inputs) for step in steps[:-1]} <= {backward_length}
    assert all(step.carries == carry for step in steps)
    assert sum(step.count for step in steps) == stretch.count == 3 * length


def test_other_batches_are_one_step_and_carry_nothing():
    pair = Pair(torch.zeros(3, 2), torch.tensor([[1, 0], [2, -1]]))
    assert (list(pair.steps()), pair.carries, pair.count, pair.size) == ([pair], False, 3, 2)
    assert pair.uncounted().count == 0
    assert pair.to("meta").inputs.device.type == "meta"
    assert BatchList([pair]).batch(0) is pair
    with pytest.raises(IndexError):
        BatchList([pair]).batch(1)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=80), st.integers(1, 7), st.integers(1, 4), st.integers(0, 9))
def test_batches_of_similar_lengths(lengths, size, pool, seed):
    batches = by_similar_length(np.array(lengths), size, np.random.default_rng(seed), pool)
    assert sorted(k for batch in batches for k in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= size for batch in batches)
    again = by_similar_length(np.array(lengths), size, np.random.default_rng(seed), pool)
    assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in again]
    if len(lengths) <= pool * size:  # one pool: no length of one batch lies between those of another
        spans = sorted((min(lengths[k] for k in batch), max(lengths[k] for k in batch)) for batch in batches)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
