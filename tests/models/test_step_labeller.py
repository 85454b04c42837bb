"""A model of steps against enumeration of all sequences of labels, with a softmax and with a CRF."""

from itertools import product
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.errors import ConfigurationError
from unrolled.models.crf import CRF, Allowed
from unrolled.models.step_labeller import StepLabeller


class Given(StepLabeller):
    """Scores that the batch holds."""

    def __init__(self, crf=None):
        super().__init__()
        self.crf = crf

    def forward(self, batch):
        return batch.scores


def crf_of(labels):
    crf = CRF(labels)
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return crf


@pytest.mark.parametrize("with_crf", [False, True])
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    labels=st.integers(1, 3),
    n=st.integers(1, 100),
)
def test_the_best_are_those_of_enumeration(with_crf, seed, lengths, labels, n):
    torch.manual_seed(seed)
    model = Given(crf_of(labels) if with_crf else None)
    scores = torch.randn(max(lengths), len(lengths), labels)
    batch = SimpleNamespace(scores=scores, lengths=torch.tensor(lengths))
    best, marginals = model.best(batch, n), model.marginals(batch)
    for row, length in enumerate(lengths):
        one = SimpleNamespace(scores=scores[:length, row : row + 1], lengths=torch.tensor([length]))
        every = list(product(range(labels), repeat=length))
        with torch.no_grad():
            chances = [-float(model.loss(one, torch.tensor(path).unsqueeze(1))) for path in every]
        assert sum(torch.tensor(chances).exp()) == pytest.approx(1, rel=1e-5)
        expected = sorted(chances, reverse=True)[:n]
        assert [path.score for path in best[row]] == pytest.approx(expected, rel=1e-4, abs=1e-5)
        known = dict(zip(every, chances, strict=True))
        assert [known[tuple(path.tags)] for path in best[row]] == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert len({tuple(path.tags) for path in best[row]}) == min(n, len(every))
        assert max(path.score for path in best[row]) <= 0
        if n >= len(every):
            first = sum(torch.tensor(path.score).exp() for path in best[row] if path.tags[0] == 0)
            assert float(first) == pytest.approx(float(marginals[0, row, 0]), rel=1e-4, abs=1e-5)


def test_it_says_that_no_sequence_is_possible():
    nothing = Allowed(torch.tensor([True, False]), torch.tensor([False, True]), torch.ones(2, 2, dtype=torch.bool))
    model = Given(CRF(2, nothing))
    batch = SimpleNamespace(scores=torch.zeros(2, 2, 2), lengths=torch.tensor([2, 1]))
    for ask in (model.best, model.decode):
        with pytest.raises(ConfigurationError, match="the CRF's rules allow no sequence of this length"):
            ask(batch)
    batch = SimpleNamespace(scores=torch.full((2, 1, 2), torch.nan), lengths=torch.tensor([2]))
    for model in (Given(), Given(CRF(2))):
        with pytest.raises(ConfigurationError, match="emissions are NaN"):
            model.best(batch)
