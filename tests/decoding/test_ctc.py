"""Best-path decoding against a plain loop over frames."""

import math
from itertools import groupby

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrolled.decoding import best_path
from unrolled.errors import DecodingError, ShapeError


def scores(steps, count, labels, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(scale * torch.randn(steps, count, labels, generator=generator), -1)


def by_loop(frames, blank):
    """Labels, frames and confidences of `frames [T, K]`, one frame after another."""
    runs = [
        (label, [t for t, _ in some])
        for label, some in groupby(enumerate(frames.argmax(-1).tolist()), key=lambda pair: pair[1])
    ]
    runs = [(label, times) for label, times in runs if label != blank]
    sure = [sum(math.exp(frames[t, label]) for t in times) / len(times) for label, times in runs]
    return [label for label, _ in runs], [(times[0], times[-1]) for _, times in runs], sure


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 4), st.integers(0, 99), st.data())
def test_it_is_the_plain_loop(lengths, labels, seed, data):
    blank = data.draw(st.integers(0, labels - 1))
    frames = scores(max(lengths), len(lengths), labels, seed)
    found = best_path(frames, torch.tensor(lengths), blank)
    assert len(found) == len(lengths)
    for row, (one, length) in enumerate(zip(found, lengths, strict=True)):
        wanted, places, sure = by_loop(frames[:length, row], blank)
        assert list(one.labels) == wanted
        assert list(one.frames) == places
        assert one.confidence == pytest.approx(sure, abs=1e-6)
        assert one.log_prob == pytest.approx(float(frames[:length, row].amax(-1).sum()), abs=1e-4)
        assert best_path(frames[:length, row : row + 1], blank=blank) == [one]


def test_repeats_and_blanks():
    path = torch.tensor([1, 1, 0, 1, 2, 2, 0, 0])
    (found,) = best_path(torch.log_softmax(9 * torch.nn.functional.one_hot(path, 3).float(), -1).unsqueeze(1))
    assert found.labels == (1, 1, 2)
    assert found.frames == ((0, 1), (3, 3), (4, 5))


def test_no_frames_and_only_blanks():
    assert [one.labels for one in best_path(torch.zeros(0, 2, 3))] == [(), ()]
    blank = torch.tensor([0.0, -torch.inf]).expand(4, 1, 2)
    (found,) = best_path(blank)
    assert (found.labels, found.log_prob) == ((), 0.0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_broken_frames_are_named(bad):
    frames = scores(4, 2, 3)
    frames[2, 1] = bad
    with pytest.raises(DecodingError) as error:
        best_path(frames)
    assert (error.value.step, error.value.sentence) == (2, 1)
    assert best_path(frames, torch.tensor([4, 2]))[1].log_prob < 0


@pytest.mark.parametrize(
    ("shape", "lengths", "blank"),
    [((4, 3), None, 0), ((4, 1, 3), None, 3), ((4, 1, 3), [5], 0), ((4, 1, 3), [1, 2], 0), ((4, 1, 3), [-1], 0)],
)
def test_shapes_that_do_not_fit(shape, lengths, blank):
    with pytest.raises(ShapeError):
        best_path(torch.zeros(shape), None if lengths is None else torch.tensor(lengths), blank)
