"""The segmenter: padding changes nothing, and frame by frame it says bit for bit what it says at once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.data.frame_batches import collate
from unrolled.models import Segmenter

FORMS = [{}, {"crf": True, "cell": "lstm"}, {"bidirectional": False}, {"bidirectional": False, "num_layers": 2}]


def model(**options):
    torch.manual_seed(0)
    return Segmenter(3, 4, **{"hidden_size": 6, **options})


def frames(*lengths, seed=0):
    draw = np.random.default_rng(seed)
    return [draw.normal(size=(length, 3)).astype(np.float32) for length in lengths]


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_padding_changes_nothing(form, lengths):
    net = model(**form).eval()
    given_frames = frames(*lengths)
    labels = [[k % 4 for k in range(length)] for length in lengths]
    batch = collate(given_frames, labels)
    alone = [collate([one], [own]) for one, own in zip(given_frames, labels, strict=True)]
    with torch.no_grad():
        total = float(net.loss(batch, batch.targets))
        assert total == pytest.approx(sum(float(net.loss(one, one.targets)) for one in alone), rel=1e-5)
        for row, one in enumerate(alone):
            torch.testing.assert_close(
                net.marginals(batch)[: lengths[row], row], net.marginals(one)[:, 0], atol=1e-5, rtol=1e-5
            )
    assert [len(row) for row in net.decode(batch)] == lengths


@pytest.mark.parametrize("layers", [1, 2])
@settings(max_examples=10, deadline=None)
@given(length=st.integers(1, 30), cut=st.integers(0, 30))
def test_in_pieces_it_says_bit_for_bit_what_it_says_at_once(layers, length, cut):
    net = model(bidirectional=False, num_layers=layers).eval()
    batch = collate(frames(length, seed=length))
    with torch.no_grad():
        wanted = net(batch)
    first, state = net.feed(batch.frames[:cut])
    second, _ = net.feed(batch.frames[cut:], state)
    assert torch.equal(torch.cat([first, second]), wanted)
    one_by_one, state = [], None
    for frame in batch.frames.split(1):
        scores, state = net.feed(frame, state)
        one_by_one.append(scores)
    assert torch.equal(torch.cat(one_by_one), wanted)


def test_which_models_stream_and_what_is_not_counted():
    assert model(bidirectional=False).streams
    assert not model().streams
    assert not model(bidirectional=False, crf=True).streams
    for crf in (False, True):
        net = model(crf=crf).eval()
        batch = collate(frames(4, 4), [[0, 1, 2, 3], [0, -1, 2, 3]])
        alone = collate(frames(4), [[0, 1, 2, 3]])
        with torch.no_grad():
            both, one = float(net.loss(batch, batch.targets)), float(net.loss(alone, alone.targets))
        assert both == pytest.approx(one) if crf else both > one
