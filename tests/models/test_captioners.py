"""The decoders of captions against their formulas, and what all of them have in common."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import log_softmax, normalize

from unrolled.decoding import BeamSearch
from unrolled.errors import ShapeError
from unrolled.models.captioner import Captioner, PictureFeatures, Trace
from unrolled.models.captioners import CAPTIONERS

KINDS = sorted(CAPTIONERS)
END = 11


def make(kind: str, cell: str = "lstm", **options: object) -> Captioner:
    torch.manual_seed(3)
    sizes = {"embedding_size": 6, "hidden_size": 8, "dropout": 0.0, **options}
    model = CAPTIONERS[kind](END + 1, 5, 4, cell, **sizes).double().eval()  # type: ignore[arg-type]
    # Several tests compute the same from vectors as they are.
    assert model.mean.eq(0).all()
    assert model.deviation.eq(1).all()
    return model


def pictures(count: int = 2) -> PictureFeatures:
    draw = torch.Generator().manual_seed(5)
    vector = torch.randn(count, 5, generator=draw, dtype=torch.double)
    return PictureFeatures(vector, torch.randn(count, 9, 4, generator=draw, dtype=torch.double))


def captions(steps: int, columns: int) -> torch.Tensor:
    tokens = torch.randint(0, END, (steps, columns), generator=torch.Generator().manual_seed(7))
    return torch.cat([torch.full((1, columns), END), tokens])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", ["lstm", "gru", "relu", "mut1"])
@pytest.mark.parametrize("layers", [1, 2])
def test_steps_equal_the_whole(kind: str, cell: str, layers: int) -> None:
    model, inputs = make(kind, cell, num_layers=layers), captions(4, 6)
    whole = log_softmax(model(pictures(), inputs), -1)
    with torch.no_grad():
        state = model.reorder(model.start(pictures()), torch.tensor([[0, 0, 0], [1, 1, 1]]))
        for time, token in enumerate(inputs):
            log_probs, state = model.step(token, state)
            torch.testing.assert_close(log_probs, whole[time], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_batch_and_the_padding_change_nothing(kind: str) -> None:
    model, inputs = make(kind), captions(4, 2)
    together = model(pictures(), inputs)
    for row in range(2):
        alone = PictureFeatures(pictures().vector[row : row + 1], pictures().grid[row : row + 1])  # type: ignore[index]
        short = inputs[:3, row : row + 1]
        torch.testing.assert_close(model(alone, short), together[:3, row : row + 1], rtol=0, atol=1e-10)
    padded = inputs.clone()
    padded[3:, 1] = -1
    torch.testing.assert_close(model(pictures(), padded)[:3], together[:3], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_beam_of_one_is_the_argmax(kind: str) -> None:
    model = make(kind, "gru", unknown=0)
    with torch.no_grad():
        state, token, wanted = model.start(pictures(1)), torch.tensor([END]), []
        for _ in range(6):
            log_probs, state = model.step(token, state)
            token = log_probs.argmax(-1)
            if int(token) == END:
                break
            wanted.append(int(token))
    first = torch.tensor([END])
    (found,) = BeamSearch(beam=1).search(model, model.start(pictures(1)), first, END, 6)
    assert list(found[0].tokens) == wanted
    assert 0 not in wanted


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_weight(kind: str) -> None:
    model = make(kind, num_layers=2).train()
    inputs = captions(3, 4)
    targets = torch.cat([inputs[1:], torch.full((1, 4), END)])
    model.loss(pictures(), inputs, targets).backward()
    lacking = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    # ReLU and softmax may hide a bias: the energy of attention does not depend on a constant.
    unused = {"picture.weight", "picture.bias"} if model.reads_grid else set()
    assert set(lacking) <= unused


@pytest.mark.parametrize("kind", ["chen-zitnick", "show-attend-tell"])
def test_the_gradient_of_the_loss_is_right(kind: str) -> None:
    model = make(kind, "gru").train()
    inputs = captions(2, 2)
    targets = torch.cat([inputs[1:], torch.full((1, 2), END)])
    targets[2, 1] = -1

    def loss(vector: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return model.loss(PictureFeatures(vector, grid), inputs, targets)

    given_vector, given_grid = pictures().vector.requires_grad_(), pictures().grid.requires_grad_()  # type: ignore[union-attr]
    assert torch.autograd.gradcheck(loss, (given_vector, given_grid))


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_normalised(kind: str) -> None:
    model, inputs, given_pictures = make(kind), captions(2, 2), pictures()
    wanted = model(given_pictures, inputs)
    mean, deviation = torch.arange(5.0), torch.arange(1.0, 6.0)
    grid_mean, grid_deviation = torch.arange(4.0), torch.arange(2.0, 6.0)
    moments = {"mean": mean, "deviation": deviation, "grid_mean": grid_mean, "grid_deviation": grid_deviation}
    model.normalise_by(moments)
    grid = given_pictures.grid * grid_deviation + grid_mean if model.reads_grid else None
    found = model(PictureFeatures(given_pictures.vector * deviation + mean, grid), inputs)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def _embedded(model: Captioner, inputs: torch.Tensor) -> torch.Tensor:
    return model.embedding(inputs)


def test_plain_is_the_formula_of_the_lectures() -> None:
    model, inputs = make("plain", "elman"), captions(3, 2)
    cell = model.layers.cells[0][0]  # type: ignore[union-attr,index]
    names = dict(cell.named_parameters())
    over_input = next(value for name, value in names.items() if value.shape == (8, 12))
    over_state = next(value for name, value in names.items() if value.shape == (8, 8))
    biases = [value for value in names.values() if value.dim() == 1]
    v, h = model.picture(pictures().vector), torch.zeros(2, 8, dtype=torch.double)
    for time, x in enumerate(_embedded(model, inputs)):
        h = torch.tanh(x @ over_input[:, :6].T + h @ over_state.T + v @ over_input[:, 6:].T + sum(biases))
        torch.testing.assert_close(model(pictures(), inputs)[time], model.readout(h), rtol=0, atol=1e-10)


def test_karpathy_li_reads_the_picture_once() -> None:
    model, inputs = make("karpathy-li", "relu"), captions(3, 2)
    names = dict(model.layers.cells[0][0].named_parameters())  # type: ignore[union-attr,index]
    over_input = next(value for value in names.values() if value.shape == (8, 12))
    over_state = next(value for value in names.values() if value.shape == (8, 8))
    biases = [value for value in names.values() if value.dim() == 1]
    v, h = model.picture(pictures().vector), torch.zeros(2, 8, dtype=torch.double)
    for time, x in enumerate(_embedded(model, inputs)):
        picture = v @ over_input[:, 6:].T if time == 0 else 0.0
        h = torch.relu(x @ over_input[:, :6].T + h @ over_state.T + sum(biases) + picture)
        torch.testing.assert_close(model(pictures(), inputs)[time], model.readout(h), rtol=0, atol=1e-10)


def test_show_and_tell_reads_the_picture_as_the_first_word() -> None:
    model, inputs = make("show-and-tell"), captions(3, 2)
    first = model.picture(pictures().vector).unsqueeze(0)
    outputs, _ = model.layers.run(torch.cat([first, _embedded(model, inputs)]))  # type: ignore[operator,union-attr]
    torch.testing.assert_close(model(pictures(), inputs), model.readout(outputs[1:]), rtol=0, atol=1e-10)


def test_lrcn_reads_the_picture_in_its_last_layer() -> None:
    model, inputs = make("lrcn", num_layers=2), captions(3, 2)
    words, _ = model.lower.run(_embedded(model, inputs))  # type: ignore[operator,union-attr]
    v = model.picture(pictures().vector).expand(4, -1, -1)
    outputs, _ = model.last.run(torch.cat([words, v], -1))  # type: ignore[operator,union-attr]
    torch.testing.assert_close(model(pictures(), inputs), model.readout(outputs), rtol=0, atol=1e-10)


def test_m_rnn_adds_the_picture_after_the_recurrence() -> None:
    model, inputs = make("m-rnn", "relu"), captions(3, 2)
    x = _embedded(model, inputs)
    r, _ = model.layers.run(x)  # type: ignore[operator,union-attr]
    v = model.from_picture(model.picture(pictures().vector))  # type: ignore[operator]
    m = 1.7159 * torch.tanh(2 / 3 * (model.from_words(torch.cat([x, r], -1)) + v))  # type: ignore[operator]
    torch.testing.assert_close(model(pictures(), inputs), model.readout(m), rtol=0, atol=1e-10)


def test_chen_zitnick_rebuilds_the_picture_from_words_alone() -> None:
    model, inputs = make("chen-zitnick", "elman").train(), captions(3, 2)
    trace = Trace()
    model(pictures(), inputs, None, trace)
    memories, _ = model.visual.run(_embedded(model, inputs))  # type: ignore[operator,union-attr]
    rebuilt = model.rebuild(memories)  # type: ignore[operator]
    torch.testing.assert_close(trace.rebuilt, rebuilt, rtol=0, atol=1e-10)
    counted = torch.tensor([[True, True], [True, True], [True, False], [True, False]])
    wanted = sum(
        (rebuilt[t, n] - normalize(pictures().vector[n], dim=0)).square().sum()
        for t in range(4)
        for n in range(2)
        if counted[t, n]
    )
    torch.testing.assert_close(model.penalty(trace, counted, pictures()), wanted)


def test_show_attend_tell_is_asked_to_look_everywhere_once() -> None:
    model, inputs = make("show-attend-tell").train(), captions(3, 2)
    trace = Trace()
    model(pictures(), inputs, None, trace)
    weights = torch.stack(trace.weights)
    assert weights.shape == (4, 2, 9)
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, 2, dtype=torch.double))
    counted = torch.tensor([[True, True], [True, True], [True, False], [True, False]])
    wanted = (1 - weights[:, 0].sum(0)).square().sum() + (1 - weights[:2, 1].sum(0)).square().sum()
    torch.testing.assert_close(model.penalty(trace, counted, pictures()), wanted)
    torch.testing.assert_close(model.attend(pictures(), inputs), weights)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(KINDS), st.integers(1, 3), st.integers(1, 3), st.data())
def test_weighted_losses_are_weighted_cross_entropies(kind: str, count: int, each: int, data: st.DataObject) -> None:
    model = make(kind).train()
    lengths = data.draw(st.lists(st.integers(0, 4), min_size=count * each, max_size=count * each))
    targets = torch.full((max(lengths) + 1, len(lengths)), -1)
    for column, length in enumerate(lengths):
        targets[:length, column], targets[length, column] = 3, END
    inputs = torch.cat([torch.full((1, len(lengths)), END), targets[:-1]])
    weights = torch.tensor(data.draw(st.lists(st.floats(-2, 2), min_size=len(lengths), max_size=len(lengths))))
    found = model.loss(pictures(count), inputs, targets, weights=weights.double())
    log_probs = log_softmax(model(pictures(count), inputs), -1)
    wanted = sum(
        -weights[column] * log_probs[time, column, token]
        for column in range(len(lengths))
        for time, token in enumerate(targets[:, column].tolist())
        if token >= 0
    )
    torch.testing.assert_close(found, torch.as_tensor(wanted).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_features_that_do_not_fit_are_errors(kind: str) -> None:
    model = make(kind)
    with pytest.raises(ShapeError, match=r"vectors \[2, 4\] do not fit"):
        model.start(PictureFeatures(torch.zeros(2, 4, dtype=torch.double)))
    if model.reads_grid:
        with pytest.raises(ShapeError, match="got no grid"):
            model.start(PictureFeatures(pictures().vector))
    with pytest.raises(ShapeError, match="3 captions cannot be divided evenly among 2 pictures"):
        model(pictures(), captions(2, 3))
