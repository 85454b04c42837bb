"""The lectures' model: against a NumPy version written out here, and its gradient against numerical differences."""

import math

import numpy as np
import pytest
import torch

from unrolled.decoding import generate
from unrolled.errors import DataError
from unrolled.experiments import min_char_rnn
from unrolled.experiments.min_char_rnn import CLIP, HIDDEN, RATE, STEPS, chunk_loss, initialise, lecture_config, train
from unrolled.models import LanguageModel

TOKENS = np.random.default_rng(0).integers(0, 7, 400)


def make(dtype=torch.float64):
    model = LanguageModel(7, "elman", embedding_size=0, hidden_size=HIDDEN, num_layers=1).to(dtype)
    initialise(model, seed=5)
    return model


def numpy_loss_and_gradients(p, inputs, targets, h):
    """Loss, gradients in the order of `p`, and last state of a vanilla net, by hand."""
    w_xh, w_hh, b_h, w_hy, b_y = p
    hs, probs, loss = [h], [], 0.0
    for x, y in zip(inputs, targets, strict=True):
        hs.append(np.tanh(w_xh[:, x] + w_hh @ hs[-1] + b_h))
        scores = np.exp(w_hy @ hs[-1] + b_y)
        probs.append(scores / scores.sum())
        loss -= math.log(probs[-1][y])
    grads = [np.zeros_like(a) for a in p]
    dh_next = np.zeros_like(h)
    for t in reversed(range(len(inputs))):
        dy = probs[t].copy()
        dy[targets[t]] -= 1
        grads[3] += np.outer(dy, hs[t + 1])
        grads[4] += dy
        raw = (w_hy.T @ dy + dh_next) * (1 - hs[t + 1] ** 2)
        grads[0][:, inputs[t]] += raw
        grads[1] += np.outer(raw, hs[t])
        grads[2] += raw
        dh_next = w_hh.T @ raw
    return loss, grads, hs[-1]


def test_training_follows_the_lectures_update_by_update():
    """For 6 updates, past the end of the text: at ε = 1e-8 rounding errors grow tenfold with each, and drown it later."""
    tokens = TOKENS[:80]
    model = make()
    p = [parameter.detach().numpy().copy() for parameter in model.parameters()]
    assert [a.shape for a in p] == [(100, 7), (100, 100), (100,), (7, 100), (7,)]
    memory = [np.zeros_like(a) for a in p]
    smooth, pointer, wraps, h = -math.log(1 / 7) * STEPS, 0, 0, np.zeros(HIDDEN)
    for at in train(model, torch.from_numpy(tokens), 6, sample_every=1000, seed=0):
        if pointer + STEPS + 1 >= len(tokens):
            wraps += 1
            pointer, h = 0, np.zeros(HIDDEN)
        chunk = tokens[pointer : pointer + STEPS + 1]
        loss, grads, h = numpy_loss_and_gradients(p, chunk[:-1], chunk[1:], h)
        smooth = smooth * 0.999 + loss * 0.001
        for a, g, m in zip(p, grads, memory, strict=True):
            g = np.clip(g, -CLIP, CLIP)
            m += g * g
            a -= RATE * g / np.sqrt(m + 1e-8)
        pointer += STEPS
        assert at.loss == pytest.approx(loss, rel=1e-8)
        assert at.smooth_loss == pytest.approx(smooth, rel=1e-9)
    assert wraps == 1
    for ours, theirs in zip(model.parameters(), p, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=0, atol=1e-6)


def test_gradient_agrees_with_numerical_differences():
    model = make()
    inputs, targets = torch.from_numpy(TOKENS[:STEPS]), torch.from_numpy(TOKENS[1 : STEPS + 1])
    state = torch.randn(1, 1, HIDDEN, dtype=torch.float64)
    loss, _ = chunk_loss(model, inputs, targets, state)
    loss.backward()
    rng = np.random.default_rng(1)
    for parameter in model.parameters():
        flat, gradient = parameter.detach().view(-1), parameter.grad.view(-1)
        for k in rng.choice(flat.numel(), min(10, flat.numel()), replace=False):
            old = flat[k].item()
            sides = []
            for delta in (1e-5, -1e-5):
                flat[k] = old + delta
                with torch.no_grad():
                    sides.append(float(chunk_loss(model, inputs, targets, state)[0]))
            flat[k] = old
            assert gradient[k].item() == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5, abs=1e-8)


def test_hyper_parameters_are_the_lectures():
    config = lecture_config("x.txt", 1)
    assert (config.model.cell, config.model.hidden_size, config.model.embedding_size) == ("elman", (100,), 0)
    assert (config.training.seq_length, config.training.batch_size) == (25, 1)
    assert (config.training.optimizer, config.training.learning_rate) == ("adagrad", 0.1)
    assert (config.training.clip_value, config.training.clip_norm) == (5.0, 0.0)
    weights = torch.cat([p.flatten() for p in make().parameters() if p.dim() > 1])
    assert weights.std().item() == pytest.approx(0.01, rel=0.02)


def test_samples_are_drawn_on_time_and_from_the_state_in_hand(monkeypatch):
    model, seen = make(torch.float32), []

    def recorder(model, prompt, sampling, generator, state):
        seen.append((int(prompt), state))
        return generate(model, prompt, sampling, generator, state)

    monkeypatch.setattr(min_char_rnn, "generate", recorder)
    items = list(train(model, torch.from_numpy(TOKENS), 5, sample_every=2, seed=0))
    assert [at.sample is not None for at in items] == [True, False, True, False, True]
    assert all(len(at.sample) == 200 for at in items[::2])
    assert [token for token, _ in seen] == [int(TOKENS[k * STEPS]) for k in (0, 2, 4)]
    assert seen[0][1] is None
    assert all(state.shape == (1, 1, HIDDEN) and state.abs().sum() > 0 for _, state in seen[1:])


def test_too_short_a_text():
    with pytest.raises(DataError):
        next(train(make(), torch.zeros(20, dtype=torch.long), 1, 100, 0))
