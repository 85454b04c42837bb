"""Prefix beam search against the enumeration of all paths, a plain version with dictionaries, and itself in pieces."""

import math
from collections import defaultdict
from dataclasses import replace
from itertools import groupby, pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrolled.decoding import CTCBeam, Lexicon, ModelScorer, best_path, label_tokens
from unrolled.decoding import prefixes as prefixes_module
from unrolled.errors import ConfigurationError, DecodingError, ShapeError
from unrolled.models import LanguageModel

NEVER = -math.inf
EVERYTHING = 5000
SEEDS = st.integers(0, 999)


def scores(steps, labels, seed=0, scale=2.0, holes=False):
    """Random frame scores `[T, K]`, with some labels impossible if `holes`."""
    generator = torch.Generator().manual_seed(seed)
    raw = scale * torch.randn(steps, labels, generator=generator)
    if holes:
        impossible = torch.rand(steps, labels, generator=generator) < 0.4
        impossible[torch.arange(steps), torch.randint(labels, (steps,), generator=generator)] = False
        raw = raw.masked_fill(impossible, NEVER)
    return torch.log_softmax(raw, -1)


class Trigram:
    """A random model of tokens, `log P(next | before, token)`. Its state is the token before, `[N, 1]`."""

    def __init__(self, size, seed=0, holes=False):
        self.table = scores(size * size, size, seed, holes=holes).view(size, size, size)
        self.rows = 0

    def start(self, context):
        return context[-1:].T.float() if len(context) else torch.zeros(context.size(1), 1)

    def step(self, token, state):
        self.rows += len(token)
        return self.table[state[:, 0].long(), token], token.unsqueeze(-1).float()

    def log_prob(self, tokens, context):
        history = [*context, *tokens]
        places = range(len(context), len(history))
        return sum(float(self.table[history[k - 2], history[k - 1], history[k]]) for k in places)


def collapse(path, blank):
    return tuple(label for label, _ in groupby(path) if label != blank)


def enumerate_paths(frames, blank):
    """The log-probability of every labelling, and that of its best path."""
    total, best = defaultdict(lambda: NEVER), defaultdict(lambda: NEVER)
    for path in product(range(frames.size(1)), repeat=len(frames)):
        log_prob = sum(float(frames[t, label]) for t, label in enumerate(path))
        labels = collapse(path, blank)
        total[labels] = np.logaddexp(total[labels], log_prob)
        best[labels] = max(best[labels], log_prob)
    return {labels: value for labels, value in total.items() if value > NEVER}, best


def best_with_frames(frames, labels, places, blank):
    """The log-probability of the path that has these labels in exactly these frames."""
    path = [blank] * len(frames)
    for label, (first, last) in zip(labels, places, strict=True):
        path[first : last + 1] = [label] * (last + 1 - first)
    assert collapse(path, blank) == labels
    return sum(float(frames[t, label]) for t, label in enumerate(path))


def same(found, wanted):
    """Whether the results are all of `wanted`, a score by labels, and in order."""
    assert {one.labels for one in found} == set(wanted)
    assert all(a.score >= b.score for a, b in pairwise(found))
    for one in found:
        assert one.score == pytest.approx(wanted[one.labels], abs=1e-4)


SMALL = st.tuples(st.integers(0, 5), st.integers(2, 4)).filter(lambda size: size[1] ** size[0] <= 300)


@given(SMALL, SEEDS, st.booleans(), st.data())
def test_a_beam_of_all_prefixes_is_the_sum_over_all_paths(size, seed, holes, data):
    blank = data.draw(st.integers(0, size[1] - 1))
    frames = scores(*size, seed, holes=holes)
    bonus = data.draw(st.sampled_from([0.0, 0.7, -0.5]))
    beam = CTCBeam(width=EVERYTHING, n_best=EVERYTHING, blank=blank, prune=0, length_bonus=bonus)
    with np.errstate(all="raise", under="ignore"):
        found = beam.result(beam.feed(beam.start(), frames))
    total, best = enumerate_paths(frames, blank)
    same(found, {labels: value + bonus * len(labels) for labels, value in total.items()})
    for one in found:
        assert one.log_prob == pytest.approx(total[one.labels], abs=1e-4)
        assert best_with_frames(frames, one.labels, one.frames, blank) == pytest.approx(best[one.labels], abs=1e-4)
    if not bonus and not holes:
        assert sum(math.exp(one.log_prob) for one in found) == pytest.approx(1)


@given(SMALL, SEEDS, st.booleans(), st.sampled_from([0.0, 0.6, 2.0]), st.data())
def test_with_a_language_model(size, seed, holes, weight, data):
    labels = size[1]
    blank = data.draw(st.integers(0, labels - 1))
    tokens = data.draw(st.permutations(range(labels + 1)))[:labels]
    end = data.draw(st.sampled_from([None, labels]))
    model, context = Trigram(labels + 1, seed, holes), [1, 0]
    scorer = ModelScorer(model, [-1 if k == blank else token for k, token in enumerate(tokens)], context, end, blank)
    frames = scores(*size, seed)
    beam = CTCBeam(EVERYTHING, EVERYTHING, blank, scorer, lm_weight=weight, length_bonus=0.3, prune=0)
    state = beam.feed(beam.start(), frames)
    found = beam.result(state)
    wanted, lm = {}, {}
    for output, value in enumerate_paths(frames, blank)[0].items():
        text = [tokens[label] for label in output] + ([] if end is None else [end])
        lm[output] = model.log_prob(text, context)
        score = value + (weight * lm[output] if weight else 0) + 0.3 * len(output)
        if score > NEVER:
            wanted[output] = score
    same(found, wanted)
    for one in found:
        assert one.lm_log_prob == pytest.approx(lm[one.labels], abs=1e-4)
    if end is not None and weight:  # a part of a stream has no end yet
        part = {one.labels: one.lm_log_prob for one in beam.result(state, final=False)}
        for output in wanted:
            assert part[output] == pytest.approx(model.log_prob([tokens[k] for k in output], context), abs=1e-4)


WORDS = st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=3), min_size=1, max_size=3)


def spells(output, words, separator):
    """Whether an output consists of words, with one separator between two and perhaps one at the end."""
    if separator is None:
        return not output or list(output) in words
    parts = [list(part) for is_end, part in groupby(output, lambda label: label == separator) if not is_end]
    ends = [len(list(part)) for is_end, part in groupby(output, lambda label: label == separator) if is_end]
    return all(part in words for part in parts) and set(ends) <= {1} and output[:1] != (separator,)


@given(st.integers(0, 4), WORDS, SEEDS, st.booleans(), st.integers(3, 4))
def test_with_a_lexicon(steps, words, seed, single, labels):
    separator = None if single else 3
    labels = labels if single else 4
    frames = scores(steps, labels, seed)
    beam = CTCBeam(EVERYTHING, EVERYTHING, lexicon=Lexicon(words, separator), prune=0)
    total, _ = enumerate_paths(frames, 0)
    wanted = {output: value for output, value in total.items() if spells(output, words, separator)}
    state = beam.feed(beam.start(), frames)
    same(beam.result(state), wanted)
    unfinished = {one.labels for one in beam.result(state, final=False)}
    assert unfinished >= set(wanted)
    beginnings = {tuple(word[:k]) for word in words for k in range(len(word) + 1)}
    assert single is False or unfinished <= beginnings


def plain_beam(frames, width, lm, weight, bonus, allowed, prune):
    """Prefix beam search with a dictionary from each prefix to its two log-probabilities; the blank is 0."""

    def score(prefix, mass):
        return np.logaddexp(*mass) + weight * lm(prefix) + bonus * len(prefix)

    beam = {(): (0.0, NEVER)}
    for frame in frames.double().tolist():
        floor = min(math.log(prune) if prune else NEVER, max(frame))
        new = defaultdict(lambda: [NEVER, NEVER])
        for prefix, (by_blank, by_label) in beam.items():
            new[prefix][0] = np.logaddexp(new[prefix][0], np.logaddexp(by_blank, by_label) + frame[0])
            if prefix:
                new[prefix][1] = np.logaddexp(new[prefix][1], by_label + frame[prefix[-1]])
            for label in range(1, len(frame)):
                longer = (*prefix, label)
                if frame[label] >= floor and allowed(longer):
                    before = by_blank if prefix[-1:] == (label,) else np.logaddexp(by_blank, by_label)
                    new[longer][1] = np.logaddexp(new[longer][1], before + frame[label])
        ranked = sorted(new.items(), key=lambda item: -score(*item))[:width]
        beam = {prefix: mass for prefix, mass in ranked if score(prefix, mass) > NEVER}
    return {prefix: score(prefix, mass) for prefix, mass in beam.items()}


@given(st.integers(1, 12), st.integers(2, 5), SEEDS, st.integers(1, 9), st.booleans(), st.booleans(), st.data())
def test_a_narrow_beam_is_the_plain_one(steps, labels, seed, width, with_model, with_words, data):
    frames = scores(steps, labels, seed)
    prune = data.draw(st.sampled_from([0.0, 0.05, 0.3]))
    model = Trigram(labels, seed)
    words = [[label] for label in range(1, labels)] + [[1, 1, label] for label in range(1, labels)]
    beam = CTCBeam(
        width,
        width,
        language_model=ModelScorer(model, range(labels), [0, 0]) if with_model else None,
        lm_weight=0.4,
        length_bonus=0.2,
        lexicon=Lexicon(words) if with_words else None,
        prune=prune,
    )
    beginnings = {tuple(word[:k]) for word in words for k in range(4)}
    wanted = plain_beam(
        frames,
        width,
        (lambda prefix: model.log_prob(prefix, [0, 0])) if with_model else lambda prefix: 0.0,
        0.4,
        0.2,
        lambda prefix: not with_words or prefix in beginnings,
        prune,
    )
    same(beam.result(beam.feed(beam.start(), frames), final=False), wanted)


LANGUAGE_MODEL = None


def language_model():
    global LANGUAGE_MODEL
    if LANGUAGE_MODEL is None:
        torch.manual_seed(0)
        LANGUAGE_MODEL = LanguageModel(6, "lstm", embedding_size=4, hidden_size=8, num_layers=2).eval()
    return LANGUAGE_MODEL


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), SEEDS, st.integers(1, 8), st.booleans(), st.booleans())
def test_pieces_are_the_whole_bit_for_bit(cuts, seed, width, with_model, with_words):
    frames = scores(sum(cuts), 6, seed)
    beam = CTCBeam(
        width,
        width,
        language_model=ModelScorer(language_model(), range(6), [5], end=5) if with_model else None,
        lexicon=Lexicon([[1], [2, 1], [3, 3, 4]], 5) if with_words else None,
    )
    state = beam.start()
    for piece in frames.split(cuts):
        before = state
        state = beam.feed(state, piece)
        beam.result(state)
        assert beam.result(beam.feed(before, piece)) == beam.result(state)  # a state can be fed more than once
    assert state.time == len(frames)
    assert beam.result(state) == beam.result(beam.feed(beam.start(), frames))
    assert beam.result(state) == beam.result(beam.feed(beam.start(), frames.numpy()))


@given(SEEDS, st.integers(1, 8), st.booleans())
def test_a_short_memory_changes_nothing(seed, width, with_model):
    frames = scores(60, 5, seed)
    scorer = ModelScorer(Trigram(5, seed), range(5), [0]) if with_model else None
    beam = CTCBeam(width, width, language_model=scorer)
    wanted = beam.feed(beam.start(), frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes_module, "_FEWEST", 1)
        found = beam.feed(beam.start(), frames)
    assert beam.result(found) == beam.result(wanted)
    assert found.history.size <= wanted.history.size


def test_a_long_stream_needs_little_memory():
    beam = CTCBeam(8, language_model=ModelScorer(Trigram(5), range(5), [0]), lm_weight=0.1)
    state = beam.start()
    first = state.history
    silence = torch.log_softmax(torch.tensor([[9.0, 1.0, 0.0, 0.0, 0.0]]), -1).expand(300, 5)
    for seed in range(60):
        state = beam.feed(beam.feed(state, scores(20, 5, seed)), silence)
    assert state.history is not first
    (best,) = beam.result(state)
    assert state.history.size <= state.history.limit <= 4 * 2 * (len(best.labels) + 100)
    assert len(state.scored.scores) <= 5 * 8 + 8


def test_a_prefix_is_scored_once():
    model = Trigram(4)
    beam = CTCBeam(EVERYTHING, EVERYTHING, language_model=ModelScorer(model, range(4), [0]), prune=0)
    state = beam.feed(beam.start(), scores(4, 4))
    # Every prefix of three frames, but not those of four, which nothing extends.
    before = enumerate_paths(scores(4, 4)[:3], 0)[0]
    assert model.rows == len(state.scored.rows) == len(before)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=4), SEEDS)
def test_a_batch_is_its_sequences_one_by_one(lengths, seed):
    frames = scores(max(lengths) * len(lengths), 5, seed).view(max(lengths), len(lengths), 5)
    beam = CTCBeam(6, 3)
    found = beam.decode(frames, torch.tensor(lengths))
    assert found == [beam.decode(frames[:n, row : row + 1])[0] for row, n in enumerate(lengths)]


def test_no_frames_and_only_blanks():
    beam = CTCBeam(4, 4)
    for frames in (torch.zeros(0, 3), torch.tensor([[0.0, NEVER, NEVER]] * 5)):
        (found,) = beam.result(beam.feed(beam.start(), frames))
        assert (found.labels, found.frames, found.score) == ((), (), 0.0)
    assert beam.decode(torch.zeros(3, 0, 2)) == []


def test_ties_give_the_same_result_every_time():
    frames = torch.full((6, 4), math.log(1 / 4))
    beam = CTCBeam(5, 5, prune=0)
    found = beam.result(beam.feed(beam.start(), frames))
    assert len({one.labels for one in found}) == 5
    assert beam.result(beam.feed(beam.start(), frames)) == found


def test_certain_frames_give_the_best_path():
    path = torch.tensor([0, 1, 1, 0, 1, 2, 2, 0])
    frames = torch.log_softmax(30 * torch.nn.functional.one_hot(path, 3).float(), -1)
    (best,) = best_path(frames.unsqueeze(1))
    (found,) = CTCBeam(4).decode(frames.unsqueeze(1))[0]
    assert (found.labels, found.frames) == (best.labels, best.frames) == ((1, 1, 2), ((1, 2), (4, 4), (5, 6)))
    assert found.log_prob == pytest.approx(best.log_prob, abs=1e-6)


def test_nothing_is_found_if_nothing_is_possible():
    only = torch.log(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))
    beam = CTCBeam(lexicon=Lexicon([[1]]))
    state = beam.feed(beam.start(), only)
    assert beam.result(state) == []
    assert beam.result(beam.feed(state, only)) == []
    assert beam.feed(state, only).time == 6


def test_the_best_label_is_never_pruned():
    frames = torch.log(torch.tensor([[0.3, 0.4, 0.3]]))
    (found,) = CTCBeam(prune=0.9).decode(frames.unsqueeze(1))[0]
    assert found.labels == (1,)


@pytest.mark.parametrize("bad", [math.nan, math.inf, NEVER])
def test_broken_frames_are_named(bad):
    frames = scores(8, 3).view(4, 2, 3).clone()
    frames[2, 1] = bad
    beam = CTCBeam()
    with pytest.raises(DecodingError) as error:
        beam.decode(frames)
    assert (error.value.step, error.value.sentence) == (2, 1)
    with pytest.raises(DecodingError) as error:
        beam.feed(beam.feed(beam.start(), frames[:2, 1]), frames[2:, 1])
    assert error.value.step == 2


def test_a_broken_language_model_is_named():
    model = Trigram(3)
    model.table[:, 1] = math.nan
    beam = CTCBeam(language_model=ModelScorer(model, range(3), [0]))
    with pytest.raises(DecodingError, match="NaN"):
        beam.feed(beam.start(), scores(3, 3))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", 0),
        ("width", 10**9),
        ("n_best", 17),
        ("n_best", 0),
        ("blank", -1),
        ("prune", 1.0),
        ("prune", -0.1),
        ("lm_weight", -1.0),
        ("lm_weight", math.inf),
        ("length_bonus", math.nan),
    ],
)
def test_settings_out_of_range(name, value):
    with pytest.raises(ConfigurationError) as error:
        replace(CTCBeam(), **{name: value})
    assert error.value.setting == name


def test_parts_that_do_not_fit():
    for beam in (
        CTCBeam(blank=3),
        CTCBeam(language_model=ModelScorer(Trigram(4), range(4), [0])),
        CTCBeam(lexicon=Lexicon([[1], [3]])),
        CTCBeam(lexicon=Lexicon([[1]]), blank=1),
    ):
        with pytest.raises(ConfigurationError):
            beam.feed(beam.start(), scores(2, 3))
    beam = CTCBeam()
    with pytest.raises(ShapeError, match=r"\[t, 3\]"):
        beam.feed(beam.feed(beam.start(), scores(2, 3)), scores(2, 4))
    with pytest.raises(ShapeError):
        beam.feed(beam.start(), torch.zeros(3))


@pytest.mark.parametrize("words", [[], [[]], [[1, 2]], [[-1]]])
def test_lexicons_that_are_none(words):
    with pytest.raises(ConfigurationError):
        Lexicon(words, separator=2)


class Letters:
    """A vocabulary of a few characters."""

    def encode(self, text):
        return np.array(["ab c".index(letter) for letter in text if letter in "ab c"])

    def unknown(self, text):
        return [letter for letter in text if letter not in "ab c"]


def test_labels_are_mapped_to_tokens():
    assert label_tokens(["<blank>", "c", " ", "a"], Letters()) == [-1, 3, 2, 0]
    assert label_tokens(["c", ""], Letters(), blank=1) == [3, -1]
    for wrong in ("d", "ab", "", "ad"):
        with pytest.raises(ConfigurationError, match=repr(wrong)):
            label_tokens(["", "a", wrong], Letters())
    with pytest.raises(ConfigurationError, match="label 1 has no token"):
        ModelScorer(Trigram(3), [-1, -1, 0], [0])
    with pytest.raises(ConfigurationError, match="context"):
        ModelScorer(Trigram(3), [-1, 1, 0], [])
