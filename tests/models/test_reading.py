"""Streams of one text hold each of its tokens once, in place, and begin with what stands before them."""

import numpy as np
import pytest
import torch

from unrolled.models.reading import WarmStreams


@pytest.mark.parametrize(
    ("length", "count", "steps"), [(1, 16, 4), (127, 16, 4), (128, 16, 4), (900, 7, 20), (999, 8, 3)]
)
def test_every_token_is_in_one_place(length, count, steps):
    text = WarmStreams(length, count, steps)
    assert text.count == max(1, min(count, length // (2 * steps)))
    tokens = np.arange(1, length + 1, dtype=np.uint16)
    found, inside = [], []
    for window in text.windows():
        assert window.stop - window.start <= steps
        found.append(text.cut(tokens, window))
        inside.append(text.inside(window))
    found, inside = np.concatenate(found), np.concatenate(inside)
    assert found.dtype == tokens.dtype
    assert np.array_equal(found.T[inside.T], tokens)  # stream after stream, the text
    assert (found[~inside] == 0).all()


def test_streams_begin_with_what_stands_before_them():
    text, tokens = WarmStreams(60, 3, 5), np.arange(60)
    given = []

    def read(early):
        given.append(early)
        last = torch.from_numpy(early[-1]).double().unsqueeze(-1)
        return last + 1, (last + 2, None)

    first, (second, nothing) = text.warm(tokens, read)
    assert given[0].T.tolist()[1:] == [list(range(15, 20)), list(range(35, 40))]
    assert first.flatten().tolist() == [0, 20, 40]  # the first stream begins the text: it remembers nothing
    assert second.flatten().tolist() == [0, 21, 41]
    assert nothing is None


def test_one_stream_needs_no_start():
    assert WarmStreams(9, 16, 5).warm(np.arange(9), lambda early: pytest.fail("nothing stands before it")) is None
