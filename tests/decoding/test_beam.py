"""Beam search against what it must equal: argmax, exhaustive search, one sentence at a time, forced decoding."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.decoding import (
    BeamSearch,
    Ensemble,
    Sampling,
    forced_log_probs,
    generate,
    search_trees,
    tree_json,
)
from unrolled.decoding.beam import best_sums
from unrolled.errors import ConfigurationError
from unrolled.models import EncoderDecoder

VOCABULARY, END = 4, 3
FEW = settings(max_examples=10)


def model(seed=0, vocabulary=VOCABULARY, scale=4.0, **options):
    """A translator of random weights, large enough to make up its mind."""
    torch.manual_seed(seed)
    made = EncoderDecoder(
        vocabulary, vocabulary, "gru", embedding_size=5, hidden_size=6, **{"num_layers": 2, **options}
    ).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(scale)
    return made.eval()


def sources(lengths, seed=0, vocabulary=VOCABULARY):
    torch.manual_seed(seed)
    batch = torch.full((max(lengths), len(lengths)), -1)
    for column, length in enumerate(lengths):
        batch[:length, column] = torch.randint(vocabulary, (length,))
    return batch


def search(how, made, source, max_length=5, **options):
    first = torch.full((source.size(1),), END)
    return how.search(made, made.start(source), first, END, max_length, **options)


def forced(made, source, outputs):
    """The log-probability of each sentence's outputs, by feeding them."""
    each = max(map(len, outputs))
    longest = max(len(one) for some in outputs for one in some) + 1
    given = torch.full((longest, len(outputs), each), -1)
    for row, some in enumerate(outputs):
        for k, one in enumerate(some):
            given[: len(one) + 1, row, k] = torch.tensor([*one, END])
    return forced_log_probs(made, made.start(source), torch.full((len(outputs),), END), given)


MODELS = st.fixed_dictionaries(
    {
        "attention": st.booleans(),
        "bidirectional": st.booleans(),
        "reverse": st.booleans(),
        "num_layers": st.integers(1, 2),
    }
)
LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@FEW
@given(st.integers(0, 99), LENGTHS, MODELS)
def test_a_beam_of_one_is_argmax(seed, lengths, options):
    made, source = model(seed, **options), sources(lengths, seed)
    found = search(BeamSearch(beam=1), made, source, max_length=6)
    first = torch.full((1, len(lengths)), END)
    steps = generate(made, first, Sampling(temperature=0), state=made.start(source))
    written = torch.stack([next(steps) for _ in range(6)]).T.tolist()
    for tokens, (best,) in zip(written, found, strict=True):
        assert list(best.tokens) == tokens[: tokens.index(END)] if END in tokens else tokens


@FEW
@given(st.integers(0, 99), st.integers(1, 3), st.floats(0, 1.5), st.booleans())
def test_a_beam_of_all_outputs_is_exhaustive_search(seed, limit, exponent, attention):
    made, source = model(seed, attention=attention), sources([3, 2], seed)
    everything = [tokens for length in range(limit + 1) for tokens in itertools.product(range(END), repeat=length)]
    log_probs = forced(made, source, [everything, everything])
    how = BeamSearch(beam=VOCABULARY**limit, n_best=min(len(everything), VOCABULARY**limit), length_penalty=exponent)
    for row, found in enumerate(search(how, made, source, limit)):
        scores = [float(p) / (len(o) + 1) ** exponent for p, o in zip(log_probs[row], everything, strict=True)]
        ranked = sorted(scores, reverse=True)[: len(found)]
        assert len(found) == how.n_best
        assert [one.score for one in found] == pytest.approx(ranked)
        assert everything[scores.index(max(scores))] == found[0].tokens


HOW = st.builds(
    lambda groups, width, exponent, least, repeat, diversity: BeamSearch(
        beam=groups * width,
        n_best=groups * width,
        length_penalty=exponent,
        min_length=least,
        no_repeat=repeat,
        groups=groups,
        diversity=diversity,
    ),
    st.integers(1, 3),
    st.integers(1, 4),
    st.floats(0, 1.5),
    st.integers(0, 3),
    st.integers(0, 3),
    st.floats(0, 3),
)


@FEW
@given(st.integers(0, 99), LENGTHS, HOW, MODELS)
def test_a_batch_finds_what_single_sentences_find(seed, lengths, how, options):
    made, source = model(seed, **options), sources(lengths, seed)
    limits = torch.tensor(lengths) + 1
    together = search(how, made, source, limits)
    for column, found in enumerate(together):
        alone = source[: lengths[column], column : column + 1]
        (expected,) = search(how, made, alone, lengths[column] + 1)
        assert [(one.tokens, one.group) for one in found] == [(one.tokens, one.group) for one in expected]
        assert [one.log_prob for one in found] == pytest.approx([one.log_prob for one in expected])


@FEW
@given(st.integers(0, 99), LENGTHS, HOW, MODELS)
def test_scores_are_those_of_forced_decoding_and_outputs_differ(seed, lengths, how, options):
    made, source = model(seed, **options), sources(lengths, seed)
    found = search(how, made, source, 5)
    log_probs = forced(made, source, [[one.tokens for one in some] for some in found])
    for row, some in enumerate(found):
        assert some
        assert [one.log_prob for one in some] == pytest.approx(log_probs[row][: len(some)].tolist())
        for one in some:
            assert one.score == pytest.approx(one.log_prob / (len(one.tokens) + 1) ** how.length_penalty)
            assert len(one.tokens) <= 5
        assert len({one.tokens for one in some}) == len(some)


@FEW
@given(st.integers(0, 99), LENGTHS, MODELS, st.integers(1, 4))
def test_padding_never_changes_a_score(seed, lengths, options, more):
    made, source = model(seed, **options), sources(lengths, seed)
    padded = torch.cat([source, torch.full((more, len(lengths)), -1)])
    targets = torch.randint(VOCABULARY, (4, len(lengths), 2))
    first = torch.full((len(lengths),), END)
    longer = torch.cat([targets, torch.full((more, len(lengths), 2), -1)])
    plain = forced_log_probs(made, made.start(source), first, targets)
    torch.testing.assert_close(forced_log_probs(made, made.start(padded), first, longer), plain)
    inputs = torch.cat([first.unsqueeze(0), targets[:-1, :, 0]])
    logits = torch.log_softmax(made(padded, inputs), -1)
    torch.testing.assert_close(logits.gather(-1, targets[:, :, :1]).sum((0, 2)), plain[:, 0])


@FEW
@given(st.integers(0, 99), st.integers(1, 4), st.integers(1, 3), st.floats(0, 5), st.booleans())
def test_every_group_is_there_and_of_its_size(seed, groups, width, diversity, attention):
    made, source = model(seed, vocabulary=7, attention=attention), sources([3, 1, 4], seed, 7)
    how = BeamSearch(beam=groups * width, n_best=groups * width, groups=groups, diversity=diversity)
    first = torch.full((3,), 6)
    for found in how.search(made, made.start(source), first, 6, 6):
        assert sorted(one.group for one in found) == [group for group in range(groups) for _ in range(width)]
        assert len({one.tokens for one in found}) == groups * width


def test_groups_without_diversity_start_with_the_plain_beam_and_diversity_spreads_them():
    made, source = model(3, vocabulary=9, scale=2.0), sources([4, 3, 5], 3, 9)
    first = torch.full((3,), 8)

    def found(**options):
        return BeamSearch(**options).search(made, made.start(source), first, 8, 6)

    plain = found(beam=2, n_best=2)
    grouped = found(beam=6, n_best=6, groups=3, diversity=0.7)
    for alone, some in zip(plain, grouped, strict=True):
        assert [one.tokens for one in some if one.group == 0] == [one.tokens for one in alone]

    def distinct(results):
        return sum(len({one.tokens[:1] for one in some}) for some in results)

    assert distinct(found(beam=6, n_best=6, groups=6, diversity=20.0)) > distinct(found(beam=6, n_best=6))


@FEW
@given(st.integers(0, 99), st.integers(1, 6))
def test_the_first_of_many_is_the_single_best(seed, beam):
    made, source = model(seed), sources([3, 5, 2], seed)
    how = BeamSearch(beam=beam, n_best=beam)
    many, single = search(how, made, source), search(replace(how, n_best=1), made, source)
    assert [some[0] for some in many] == [one for (one,) in single]
    for some in many:
        assert [one.score for one in some] == sorted((one.score for one in some), reverse=True)


@FEW
@given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 4))
def test_no_sequence_repeats_and_none_is_too_short(seed, size, beam):
    made, source = model(seed, vocabulary=8, scale=6.0), sources([4, 2], seed, 8)
    how = BeamSearch(beam=beam, n_best=beam, no_repeat=size, min_length=5)
    for some in how.search(made, made.start(source), torch.full((2,), 7), 7, 9):
        for one in some:
            windows = [one.tokens[k : k + size] for k in range(len(one.tokens) - size + 1)]
            assert len(set(windows)) == len(windows)
            assert 5 <= len(one.tokens) <= 9


def test_where_nothing_else_may_follow_the_output_ends():
    made, source = model(1), sources([4], 1)
    (found,) = search(BeamSearch(beam=4, n_best=4, no_repeat=1, min_length=10), made, source, 20)
    assert found
    assert all(len(one.tokens) == END for one in found)  # each of the three other tokens once


def test_outputs_begin_with_their_prefix():
    made, source = model(2), sources([4, 3, 2], 2)
    prefix = torch.tensor([[0, 2, -1], [0, -1, -1], [0, -1, -1]])
    how = BeamSearch(beam=3, n_best=3, no_repeat=1, length_penalty=0)
    found = search(how, made, source, torch.tensor([5, 5, 5]), prefix=prefix)
    assert all(one.tokens[:3] == (0, 0, 0) for one in found[0])
    assert all(one.tokens[:1] == (2,) for one in found[1])
    assert [one.tokens for one in found[2]] == [one.tokens for one in search(how, made, source[:, 2:], 5)[0]]
    beyond = search(how, made, source, 1, prefix=prefix)
    assert [len(one.tokens) for one in beyond[0]] == [3]


def test_an_ensemble_averages():
    models, source = [model(seed) for seed in range(3)], sources([3, 2])
    first = torch.full((2,), END)
    single = [torch.log_softmax(one(source, first.unsqueeze(0))[0], -1) for one in models]
    for mean, expected in (
        ("probabilities", torch.stack(single).exp().mean(0).log()),
        ("log-probabilities", torch.log_softmax(torch.stack(single).mean(0), -1)),
    ):
        together = Ensemble(models, mean)
        torch.testing.assert_close(together.step(first, together.start(source))[0], expected)
    how = BeamSearch(beam=3, n_best=3)
    alone, thrice = search(how, models[0], source), search(how, Ensemble([models[0]] * 3), source)
    assert [[one.tokens for one in some] for some in alone] == [[one.tokens for one in some] for some in thrice]
    assert len(search(how, Ensemble(models), source)[0]) == 3
    with pytest.raises(ConfigurationError, match="at least one"):
        Ensemble([])


class Bigrams:
    """A model with a state of a tensor, and no `reorder` of its own: which token follows which, and what was read."""

    def __init__(self, seed):
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.log_softmax(2 * torch.randn(VOCABULARY, VOCABULARY, generator=generator).double(), -1)

    def start(self, context):
        return (context.sum(0) % VOCABULARY).view(1, -1, 1).double()

    def step(self, token, state):
        moved = (state[0, :, 0].long() + token) % VOCABULARY
        return self.table[moved], state + 1


def test_a_model_needs_no_more_than_start_and_step():
    made, source = Bigrams(4), sources([3, 2, 5], 4)
    found = search(BeamSearch(beam=4, n_best=4), made, source)
    log_probs = forced(made, source, [[one.tokens for one in some] for some in found])
    for some, expected in zip(found, log_probs, strict=True):
        assert [one.log_prob for one in some] == pytest.approx(expected[: len(some)].tolist())


@pytest.mark.parametrize("groups", [1, 2])
def test_a_recorded_search_is_a_tree(groups):
    made, source = model(6), sources([3, 4], 5)
    record = []
    how = BeamSearch(beam=4, n_best=4, groups=groups, diversity=0.5, min_length=2)
    found = search(how, made, source, record=record)
    assert found == search(how, made, source)
    trees = search_trees(record, found, END)
    stored = json.loads(tree_json(trees, str))
    for tree, some in zip(stored, found, strict=True):
        leaves = {}

        def walk(node, tokens, leaves=leaves):
            for child in node["children"]:
                assert child["total"] == pytest.approx(node["total"] + child["log_prob"])
                if child["ended"]:
                    if child["rank"] is not None:
                        leaves[child["rank"]] = (tokens, child["total"], child["score"])
                else:
                    walk(child, (*tokens, child["token"]))

        walk(tree, ())
        assert len(leaves) == len(some)
        for rank, one in enumerate(some):
            assert leaves[rank] == (one.tokens, pytest.approx(one.log_prob), pytest.approx(one.score))


@pytest.mark.parametrize(
    "bad",
    [
        {"beam": 0},
        {"n_best": 0},
        {"n_best": 6},
        {"groups": 2},
        {"min_length": -1},
        {"no_repeat": -1},
        {"diversity": -1.0},
        {"diversity": float("nan")},
        {"length_penalty": float("inf")},
        {"length_penalty": -11.0},
        {"beam": 1_000_000},
    ],
)
def test_impossible_searches(bad):
    with pytest.raises(ConfigurationError):
        BeamSearch(**bad)


@FEW
@given(st.integers(0, 99), st.integers(1, 4), st.integers(1, 700), st.integers(1, 30), st.booleans())
def test_the_best_of_many_sums_are_those_of_sorting(seed, rows, size, count, impossible):
    generator = torch.Generator().manual_seed(seed)
    totals, scores = torch.randn(3, rows, generator=generator), torch.randn(3, rows, size, generator=generator)
    if impossible:
        scores[torch.rand(scores.shape, generator=generator) < 0.9] = -torch.inf
    sums, row, column = best_sums(totals, scores, count)
    expected = (totals.unsqueeze(-1) + scores).flatten(1).sort(-1, descending=True).values[:, :count]
    assert torch.equal(sums, expected)
    places = row * size + column
    assert torch.equal((totals.unsqueeze(-1) + scores).flatten(1).gather(1, places), sums)
    assert all(len(set(some)) == len(some) for some in places.tolist())


def test_no_sentences_at_all():
    made = model(0)
    assert BeamSearch().search(made, None, torch.zeros(0, dtype=torch.long), END, 5) == []
