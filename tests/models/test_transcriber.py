"""The transcriber: its loss by enumeration, padding that changes nothing, and streams that are exact."""

from itertools import groupby, pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.data.frame_batches import collate
from unrolled.models import Transcriber

FORMS = [
    {"front": "join", "bidirectional": True},
    {"front": "join", "bidirectional": False},
    {"front": "convolve", "bidirectional": True, "cell": "gru"},
    {"front": "join", "bidirectional": False, "cell": "elman", "num_layers": 1},
]


def model(input_size=6, labels=4, seed=0, **options):
    torch.manual_seed(seed)
    return Transcriber(input_size, labels, **{"hidden_size": 7, "num_layers": 2, "stride": 2, **options})


def frames(*lengths, width=6, seed=0):
    draw = np.random.default_rng(seed)
    return [draw.normal(size=(length, width)).astype(np.float32) for length in lengths]


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_sums_over_all_paths(form):
    net = model(labels=3, **form).eval()
    batch = collate(frames(7, 5), [[1, 1], [2]])
    found, blanks = net.loss(batch, batch.targets)
    scores, lengths = net(batch)
    wanted, blank = 0.0, 0
    for row, (length, target) in enumerate(zip(lengths.tolist(), ([1, 1], [2]), strict=True)):
        probabilities = scores[:length, row].detach().double().exp()
        paths = [path for path in product(range(3), repeat=length) if collapse(path) == target]
        total = sum(float(torch.stack([probabilities[t, k] for t, k in enumerate(path)]).prod()) for path in paths)
        wanted -= np.log(total) if paths else 0  # no path: no loss
        blank += int((scores[:length, row].argmax(1) == 0).sum())
    assert (form["front"] == "convolve") == (int(lengths[0]) == 2)  # too few steps for the repeated label
    assert float(found.detach()) == pytest.approx(wanted, rel=1e-4)
    assert float(blanks) == pytest.approx(blank / int(lengths.sum()))


def collapse(path):
    return [label for label, _ in groupby(path) if label]


def test_a_sequence_too_short_for_its_labels_has_no_gradient():
    net = model(labels=3)
    batch = collate(frames(2), [[1, 1, 2]])
    total, _ = net.loss(batch, batch.targets)
    total.backward()
    assert float(total.detach()) == 0
    assert all(p.grad is None or float(p.grad.abs().max()) == 0 for p in net.parameters())
    empty = collate(frames(4), [[]])
    assert float(net.loss(empty, empty.targets)[0].detach()) > 0


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=12, deadline=None)
@given(lengths=st.lists(st.integers(1, 17), min_size=1, max_size=4), rubbish=st.sampled_from([0.0, 1e4, float("nan")]))
def test_padding_changes_nothing(form, lengths, rubbish):
    net = model(**form).eval()
    given_frames = frames(*lengths)
    batch = collate(given_frames)
    for row, length in enumerate(lengths):
        batch.frames[length:, row] = rubbish
    with torch.no_grad():
        scores, steps = net(batch)
        for row, one in enumerate(given_frames):
            alone, (length,) = net(collate([one]))
            assert int(steps[row]) == int(length) == len(alone)
            torch.testing.assert_close(scores[: len(alone), row], alone[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", [form for form in FORMS if not form["bidirectional"]])
@settings(max_examples=12, deadline=None)
@given(length=st.integers(1, 40), cuts=st.lists(st.integers(0, 20), max_size=5))
def test_in_pieces_it_says_bit_for_bit_what_it_says_at_once(form, length, cuts):
    net = model(**form).eval()
    assert net.streams
    (one,) = frames(length, seed=length)
    whole = collate([one])
    with torch.no_grad():
        wanted, _ = net(whole)
    state, found = None, []
    ends = [0, *sorted({min(2 * cut, length) for cut in cuts}), length]
    for first, end in pairwise(ends):
        scores, state = net.feed(whole.frames[first:end], state)
        found.append(scores)
    assert torch.equal(torch.cat(found), wanted)


def test_as_a_cell_it_is_what_it_is_in_training():
    net = model(bidirectional=False, dropout=0.0)
    batch = collate(frames(9, 4))
    trained, steps = net(batch)
    with torch.no_grad():
        used, _ = net.eval()(batch)
    for row, length in enumerate(steps.tolist()):
        torch.testing.assert_close(used[:length, row], trained[:length, row].detach(), atol=1e-5, rtol=1e-5)
    assert not model(bidirectional=True).streams
    assert not model(front="convolve", bidirectional=False).streams


def test_gradients():
    net = model(input_size=3, labels=3, dropout=0.0, num_layers=1).double()
    batch = collate(frames(6, 4, width=3), [[1, 2], [1]])
    inputs = batch.frames.double().requires_grad_()

    def loss(values):
        scores, steps = net(type(batch)(values, batch.lengths, batch.targets))
        return torch.nn.functional.ctc_loss(
            scores, batch.targets.clamp_min(0).t(), steps, torch.tensor([2, 1]), reduction="sum"
        )

    assert torch.autograd.gradcheck(loss, (inputs,), atol=1e-6)
