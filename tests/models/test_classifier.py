"""A classifier: poolings by their definitions, padding, losses, frames in place of tokens."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from unrolled.data.class_batches import ClassBatch, make_batch
from unrolled.errors import ConfigurationError
from unrolled.models import Classifier
from unrolled.models.classifier import log_odds
from unrolled.models.poolings import POOLINGS, Pooling
from unrolled.tasks.classifying_settings import POOLING_NAMES


def pooled_alone(pooling, outputs, length):
    """The definition, for one sequence `[T, C]` without padding."""
    if pooling.kind == "last":
        half = outputs.size(1) // 2 if pooling.directions == 2 else outputs.size(1)
        return torch.cat([outputs[-1, :half], outputs[0, half:]])
    if pooling.kind == "mean":
        return outputs.mean(0)
    if pooling.kind == "max":
        return outputs.max(0).values
    if pooling.kind == "attention":
        scores = torch.stack([pooling.score(torch.tanh(pooling.hidden(output))) for output in outputs])
        return sum(weight * output for weight, output in zip(scores.softmax(0), outputs, strict=True))
    parts = (Pooling(kind, outputs.size(1), pooling.directions) for kind in ("last", "mean", "max"))
    return torch.cat([pooled_alone(part, outputs, length) for part in parts])


@given(st.sampled_from(POOLINGS), st.integers(1, 2), st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_poolings(kind, directions, lengths):
    pooling = Pooling(kind, 4, directions)
    outputs = torch.randn(max(lengths) + 1, len(lengths), 4)
    found = pooling(outputs, torch.tensor(lengths))
    assert found.shape == (len(lengths), pooling.output_size)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(found[row], pooled_alone(pooling, outputs[:length, row], length))


@pytest.mark.parametrize("kind", POOLINGS)
def test_an_empty_sequence_is_zeros(kind):
    assert not Pooling(kind, 4)(torch.randn(3, 2, 4), torch.tensor([0, 0])).any()


def test_settings_name_the_poolings():
    assert POOLING_NAMES == POOLINGS


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("cell", "bidirectional"), [("gru", False), ("lstm", True), ("elman", True)])
def test_padding_changes_nothing(pooling, cell, bidirectional):
    model = Classifier(9, 3, cell, hidden_size=[6, 4], pooling=pooling, bidirectional=bidirectional).eval()
    texts = [torch.randint(9, (length,)).numpy() for length in (5, 1, 8)]
    together = model(make_batch(texts))
    for row, text in enumerate(texts):
        torch.testing.assert_close(together[row], model(make_batch([text]))[0], rtol=1e-4, atol=1e-5)
    longer = make_batch([*texts, torch.zeros(12, dtype=torch.long).numpy()]).rows(0, 3)
    poisoned = ClassBatch(longer.inputs.clone(), longer.lengths, longer.targets)
    for row, text in enumerate(texts):
        poisoned.inputs[len(text) :, row] = 7
    torch.testing.assert_close(model(poisoned), together, rtol=1e-4, atol=1e-5)


def test_frames_take_the_place_of_tokens():
    model = Classifier(3, 2, "gru", embedding_size=0, hidden_size=5, pooling="mean").eval()
    frames = torch.randn(4, 2, 3)
    frames[2:, 1] = math.nan  # padding is not read
    scores = model(ClassBatch(frames, torch.tensor([4, 2]), torch.zeros(2)))
    assert scores.isfinite().all()
    assert model.embedding is None


def test_the_losses():
    batch = ClassBatch(torch.randint(9, (5, 4)), torch.tensor([5, 4, 1, 2]), torch.tensor([0, 2, -1, 1]))
    weights = torch.tensor([0.5, 1.0, 2.0])
    model = Classifier(9, 3, class_weights=weights, dropout=0.0)
    scores = model(batch)
    parts = [weights[k] * cross_entropy(scores[row], torch.tensor(k)) for row, k in ((0, 0), (1, 2), (3, 1))]
    torch.testing.assert_close(model.loss(batch, batch.targets), sum(parts))
    assert "class_weights" not in model.state_dict()
    several = Classifier(9, 3, multi=True, class_weights=weights, dropout=0.0)
    targets = torch.tensor([[1, 0, 1], [0, 0, 0], [-1, -1, -1], [1, 1, 1]])
    scores, total = several(batch), 0.0
    for row in (0, 1, 3):
        for k in range(3):
            loss = binary_cross_entropy_with_logits(scores[row, k], targets[row, k].float())
            total += loss * (weights[k] if targets[row, k] else 1)
    torch.testing.assert_close(several.loss(batch, targets), total)
    chances = several.probabilities(scores)
    torch.testing.assert_close(log_odds(scores, True), torch.log(chances / (1 - chances)), rtol=1e-4, atol=1e-5)


def test_log_odds():
    scores = torch.randn(5, 4)
    chances = scores.softmax(1)
    torch.testing.assert_close(log_odds(scores), torch.log(chances / (1 - chances)), rtol=1e-4, atol=1e-5)


def test_an_unknown_pooling():
    with pytest.raises(ConfigurationError, match="`pooling`: unknown value 'sum', choose from last, mean"):
        Classifier(9, 3, pooling="sum")
