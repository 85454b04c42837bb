"""The CRF against enumeration of all sequences of tags."""

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.errors import ConfigurationError, ShapeError
from unrolled.models.crf import CRF, Allowed


def drawn(seed: int, steps: int, batch: int, tags: int, share: float, scale: float = 1.0):
    """A CRF in float64 with random weights and rules, emissions, and lengths; some sequence is always allowed."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

    def mask(*shape):
        return torch.rand(*shape, generator=generator) < share

    allowed = Allowed(mask(tags), mask(tags), mask(tags, tags))
    for part in allowed:  # tag 0 may do everything
        part[(0,) * part.dim()] = True
    crf = CRF(tags, allowed).double()
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.copy_(normal(*parameter.shape))
    lengths = torch.randint(1, steps + 1, (batch,), generator=generator)
    return crf, normal(steps, batch, tags), lengths


def scored(crf: CRF, emissions: torch.Tensor) -> dict[tuple[int, ...], float]:
    """The score of each allowed sequence of tags over `emissions [T, K]`, by the definition."""
    starts, ends, transitions = (value.tolist() for value in crf.parameters())
    found = {}
    for tags in product(range(crf.num_tags), repeat=len(emissions)):
        pairs = list(pairwise(tags))
        if not (crf.allowed_starts[tags[0]] and crf.allowed_ends[tags[-1]]):
            continue
        if not all(crf.allowed_transitions[pair] for pair in pairs):
            continue
        score = starts[tags[0]] + ends[tags[-1]] + sum(float(emissions[t, tag]) for t, tag in enumerate(tags))
        found[tags] = score + sum(transitions[before][after] for before, after in pairs)
    return found


cases = given(
    seed=st.integers(0, 10_000),
    steps=st.integers(1, 5),
    batch=st.integers(1, 3),
    tags=st.integers(1, 4),
    share=st.sampled_from([1.0, 0.7, 0.3]),
    scale=st.sampled_from([1.0, 30.0]),
)


@settings(deadline=None, max_examples=60)
@cases
def test_partition_marginals_and_best_are_those_of_enumeration(seed, steps, batch, tags, share, scale):
    crf, emissions, lengths = drawn(seed, steps, batch, tags, share, scale)
    partition = crf.log_partition(emissions, lengths)
    marginals, best = crf.marginals(emissions, lengths), crf.best(emissions, lengths, n=7)
    for row, length in enumerate(lengths.tolist()):
        scores = scored(crf, emissions[:length, row])
        values = torch.tensor(list(scores.values()), dtype=torch.float64)
        torch.testing.assert_close(partition[row], values.logsumexp(0), rtol=1e-9, atol=1e-9)
        expected = torch.zeros_like(marginals[:, row])
        for path, chance in zip(scores, values.softmax(0), strict=True):
            expected[torch.arange(length), torch.tensor(path)] += chance
        torch.testing.assert_close(marginals[:, row], expected, rtol=1e-9, atol=1e-9)
        ranked = sorted(scores, key=lambda path: -scores[path])[:7]
        assert [tuple(path.tags) for path in best[row]] == ranked
        for path in best[row]:
            assert path.score == pytest.approx(scores[tuple(path.tags)], rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=40)
@cases
def test_what_follows_a_sequence_changes_nothing(seed, steps, batch, tags, share, scale):
    crf, emissions, lengths = drawn(seed, steps, batch, tags, share, scale)
    labels = torch.zeros(steps, batch, dtype=torch.int64)
    outside = torch.arange(steps).unsqueeze(1) >= lengths
    other, wrong = emissions.clone(), labels.clone()
    other[outside] = torch.nan
    wrong[outside] = -1
    loss = crf(emissions, labels, lengths)
    assert torch.equal(crf(other, wrong, lengths), loss)
    assert torch.equal(crf.marginals(other, lengths), crf.marginals(emissions, lengths))
    assert crf.decode(other, lengths) == crf.decode(emissions, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = crf(emissions[:length, row : row + 1], labels[:length, row : row + 1])
        torch.testing.assert_close(loss[row : row + 1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_gradients(share):
    crf, emissions, lengths = drawn(3, 4, 3, 3, share)
    labels = torch.zeros(4, 3, dtype=torch.int64)
    weights = dict(crf.named_parameters())

    def loss(emissions, *parameters):
        named = dict(zip(weights, parameters, strict=True))
        return torch.func.functional_call(crf, named, (emissions, labels, lengths))

    inputs = (emissions.requires_grad_(), *(value.detach().requires_grad_() for value in weights.values()))
    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)


def test_a_sequence_that_breaks_the_rules():
    allowed = Allowed(
        torch.tensor([True, False]), torch.tensor([True, True]), torch.tensor([[True, True], [True, True]])
    )
    crf, emissions = CRF(2, allowed), torch.zeros(3, 1, 2)
    assert crf(emissions, torch.tensor([[1], [0], [0]])).item() == torch.inf
    assert all(path.tags[0] == 0 for path in crf.best(emissions, n=8)[0])
    assert len(crf.best(emissions, n=8)[0]) == 4
    assert crf.marginals(emissions)[0, 0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_values_of_16_bits_are_summed_in_64(dtype):
    crf, emissions, lengths = drawn(5, 5, 3, 4, 0.7, 8.0)
    labels = torch.zeros(5, 3, dtype=torch.int64)
    emissions = emissions.to(dtype)
    expected = crf(emissions.double(), labels, lengths)
    torch.testing.assert_close(crf(emissions, labels, lengths), expected.float())
    weights = crf.to(dtype)
    assert weights(emissions, labels, lengths).dtype == torch.float32
    assert (weights(emissions, labels, lengths) >= 0).all()
    assert weights.decode(emissions, lengths)


def test_long_sequences_in_float32():
    """Sums of ten thousand in float32 would make the probabilities wrong by percents."""
    torch.manual_seed(2)
    crf, emissions = CRF(5), 5 * torch.randn(3000, 1, 5)
    torch.nn.init.normal_(crf.transitions)
    marginals = crf.marginals(emissions)
    assert marginals.dtype == torch.float32
    torch.testing.assert_close(marginals.sum(2), torch.ones(3000, 1))
    with pytest.raises(ConfigurationError, match="NaN"):
        crf.decode(emissions * torch.nan)
    assert crf.decode(emissions[:4], [2]) == crf.decode(emissions[:2])


def test_marginals_in_inference_mode_and_rules_that_allow_nothing():
    with torch.inference_mode():
        assert CRF(2).marginals(torch.zeros(3, 1, 2)).sum(2).tolist() == [[1.0]] * 3
    nothing = Allowed(torch.tensor([True, False]), torch.tensor([True, True]), torch.zeros(2, 2, dtype=torch.bool))
    crf = CRF(2, nothing)
    assert crf.decode(torch.zeros(1, 1, 2)) == [[0]]
    assert crf.log_partition(torch.zeros(2, 1, 2)).item() == -torch.inf
    assert crf.best(torch.zeros(2, 1, 2), n=3) == [[]]
    with pytest.raises(ConfigurationError, match="allow no sequence"):
        crf.decode(torch.zeros(2, 1, 2))


def test_a_net_trains_through_it():
    torch.manual_seed(1)
    crf = CRF(3)
    emissions = torch.zeros(6, 2, 3, requires_grad=True)
    labels = torch.tensor([[0, 1, 2, 0, 1, 2], [2, 1, 0, 2, 1, 0]]).t()
    optimizer = torch.optim.Adam([emissions, *crf.parameters()], lr=0.2)
    for _ in range(30):
        optimizer.zero_grad()
        crf(emissions, labels).sum().backward()
        optimizer.step()
    assert crf.decode(emissions) == labels.t().tolist()


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda crf: crf.log_partition(torch.zeros(3, 2, 4)), ShapeError, r"emissions must be \[T, B, 3\]"),
        (lambda crf: crf.log_partition(torch.zeros(0, 2, 3)), ShapeError, "T at least 1"),
        (lambda crf: crf.decode(torch.zeros(2, 2, 3), torch.tensor([0, 1])), ShapeError, "from 1 to 2"),
        (lambda crf: crf.decode(torch.zeros(2, 2, 3), torch.tensor([1, 3])), ShapeError, "from 1 to 2"),
        (lambda crf: crf.decode(torch.zeros(2, 2, 3), torch.tensor([1])), ShapeError, r"lengths must be \[2\]"),
        (lambda crf: crf(torch.zeros(2, 2, 3), torch.zeros(2, 1)), ShapeError, r"tags must be \[2, 2\]"),
        (lambda crf: crf(torch.zeros(1, 2, 3), torch.tensor([[0, 3]])), ShapeError, "tags must be from 0 to 2"),
        (lambda crf: crf(torch.zeros(1, 2, 3), torch.tensor([[0, -1]])), ShapeError, "tags must be from 0 to 2"),
        (lambda crf: crf.best(torch.zeros(2, 2, 3), n=0), ConfigurationError, "n must be at least 1"),
        (lambda crf: CRF(0), ConfigurationError, "num_tags must be at least 1"),
        (lambda crf: CRF(2, Allowed(*[torch.ones(2, 2)] * 3)), ShapeError, r"allowed.starts must be \[2\] Booleans"),
    ],
)
def test_what_does_not_fit(call, error, said):
    with pytest.raises(error, match=said):
        call(CRF(3))


@given(seed=st.integers(0, 10_000), tags=st.integers(1, 3), share=st.floats(0, 1))
def test_lengths_for_which_the_rules_allow_a_sequence(seed, tags, share):
    draw = torch.Generator().manual_seed(seed)
    rules = [torch.rand(size, generator=draw) < share for size in ((tags,), (tags,), (tags, tags))]
    crf = CRF(tags, Allowed(*rules))
    expected = [bool(crf.best(torch.zeros(length, 1, tags))[0]) for length in range(1, 6)]
    assert crf.possible(5).tolist() == expected
    assert crf.possible(0).tolist() == []


def test_without_rules_it_has_the_same_weights_and_allows_everything():
    crf = CRF(2, Allowed(torch.tensor([True, False]), torch.tensor([True, True]), torch.eye(2, dtype=torch.bool)))
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.copy_(torch.randn_like(parameter))
    free, emissions = crf.without_rules(), torch.randn(3, 1, 2)
    assert free.transitions is crf.transitions
    assert free.possible(3).all()
    plain = CRF(2)
    plain.load_state_dict(crf.state_dict())
    assert free.best(emissions, n=9) == plain.best(emissions, n=9)
    assert len(free.best(emissions, n=9)[0]) == 8
    assert len(crf.best(emissions, n=9)[0]) == 1
