"""Models that give NaN, +inf, or no token at all: an error that says where, or fewer outputs, and always an end."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decoding.test_beam import END, VOCABULARY, Bigrams, forced, search, sources
from unrolled.decoding import BeamSearch, Ensemble, Sampling, forced_log_probs, generate
from unrolled.errors import ConfigurationError, DecodingError, DivergenceError
from unrolled.models import EncoderDecoder, LanguageModel

NAN, INF = float("nan"), float("inf")
VALUES = {NAN: "NaN", INF: r"\+inf"}
HOWS = [
    BeamSearch(beam=1),
    BeamSearch(beam=4, n_best=4),
    BeamSearch(beam=4, groups=2, diversity=0.5),
    BeamSearch(beam=4, groups=4, diversity=0.5),
    BeamSearch(beam=3, no_repeat=1, min_length=2),
]


class Faulty(Bigrams):
    """Bigrams whose log-probabilities are `value` where `where(sentence, step, token)`; the state is both, a row."""

    def __init__(self, where, value, seed=0):
        super().__init__(seed)
        self.where, self.value = where, value
        self.table[:, END] -= 3  # outputs are long

    def start(self, context):
        return torch.stack([torch.arange(context.size(1)), torch.zeros(context.size(1), dtype=torch.long)], -1)

    def step(self, token, state):
        log_probs = self.table[token].clone()
        for row, ((sentence, step), last) in enumerate(zip(state.tolist(), token.tolist(), strict=True)):
            chosen = self.where(sentence, step, last)
            if chosen is not False:
                log_probs[row, slice(None) if chosen is True else chosen] = self.value
        return log_probs, state + torch.tensor([0, 1])


def beyond(sentence, step):
    return lambda row, time, token: row == sentence and time >= step


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("step", [0, 2])
def test_a_search_names_step_sentence_and_hypothesis(how, value, step):
    made = Faulty(beyond(1, step), value)
    with pytest.raises(DecodingError, match=f"{VALUES[value]} at step {step}, sentence 1, .*hypothesis 0") as caught:
        search(how, made, sources([3, 3, 3]), 6)
    error = caught.value
    assert (error.step, error.sentence, error.hypothesis) == (step, 1, 0)
    assert len(error.tokens) == step
    assert isinstance(error, DivergenceError)
    again = pickle.loads(pickle.dumps(error))  # as from another process
    assert (str(again), again.at(step=9).tokens) == (str(error), error.tokens)


def test_one_token_of_one_hypothesis_is_enough():
    made = Faulty(lambda sentence, step, token: 1 if (sentence, step, token) == (0, 1, 2) else False, NAN)
    with pytest.raises(DecodingError, match=r"step 1, sentence 0, hypothesis \d .*after tokens \[2\]"):
        search(BeamSearch(beam=3, n_best=3), made, sources([3, 2]), 6)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("value", VALUES)
def test_what_counts_no_more_may_be_anything(how, value):
    """A short sentence is over at its limit, and stays in the batch until a quarter of it is over."""
    limits = torch.tensor([1, 6, 6, 6, 6, 6])
    source = sources([2] * 6)
    found = search(how, Faulty(beyond(0, 2), value), source, limits)
    assert found == search(how, Faulty(beyond(9, 0), value), source, limits)


@pytest.mark.parametrize("mean", ["probabilities", "log-probabilities"])
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("place", [0, 1])
def test_one_member_of_an_ensemble_is_enough(mean, value, place):
    models = [Faulty(beyond(9, 0), value), Faulty(beyond(9, 0), value, 1)]
    models[place] = Faulty(beyond(1, 2), value)
    together = Ensemble(models, mean)
    with pytest.raises(DecodingError, match=r"at step 2, sentence 1, hypothesis 0"):
        search(BeamSearch(beam=2), together, sources([2, 2]), 6)


@pytest.mark.parametrize("value", VALUES)
def test_scores_of_given_outputs_name_the_output(value):
    outputs = [[(0, 1), (0,)], [(1,), (0, 2, 1)]]
    made = Faulty(lambda sentence, step, token: (sentence, step, token) == (1, 2, 2), value)
    with pytest.raises(DecodingError, match=VALUES[value]) as caught:
        forced(made, sources([2, 2]), outputs)
    error = caught.value
    assert (error.step, error.sentence, error.hypothesis, error.tokens) == (2, 1, 1, (0, 2))
    padding = Faulty(beyond(0, 3), value)  # longer than any output of that sentence
    assert forced(padding, sources([2, 2]), outputs).isfinite().all()


def test_given_outputs_may_be_impossible():
    made = Faulty(lambda sentence, step, token: 1 if step == 1 else False, -INF)
    scores = forced(made, sources([2]), [[(0, 1), (0, 2)]])
    assert scores[0, 0] == -INF
    assert scores[0, 1].isfinite()
    assert forced_log_probs(made, made.start(sources([2])), torch.tensor([END]), torch.zeros(0, 1, 2)).tolist() == [
        [0, 0]
    ]


@pytest.mark.parametrize("how", HOWS)
def test_where_no_token_is_allowed_there_are_fewer_outputs(how):
    source = sources([2, 2])
    found = search(how, Faulty(beyond(0, 0), -INF), source)
    assert found[0] == []
    assert found[1]
    some = search(how, Faulty(lambda sentence, step, token: (sentence, token) == (0, 1), -INF), source)
    assert all(1 not in one.tokens for one in some[0])  # after which nothing comes
    never = search(how, Faulty(lambda *_: END, -INF), source)
    assert never == [[], []]


def test_models_that_share_no_token_allow_none():
    halves = [Faulty(lambda *_, k=k: torch.arange(VOCABULARY) % 2 == k, -INF) for k in (0, 1)]
    assert search(BeamSearch(beam=2), Ensemble(halves, "log-probabilities"), sources([2])) == [[]]


@settings(max_examples=25)
@given(
    st.sampled_from(HOWS),
    st.lists(st.integers(0, 5), min_size=3, max_size=3),
    st.sampled_from([NAN, INF, -INF]),
    st.dictionaries(st.tuples(st.integers(0, 2), st.integers(0, 6)), st.integers(-1, VOCABULARY - 1), max_size=6),
)
def test_every_search_ends_and_is_right_or_an_error(how, limits, value, faults):
    """Whatever is broken, in whatever step: no output rests on it, and none is longer than allowed."""

    def where(sentence, step, token):
        chosen = faults.get((sentence, step), False)
        return True if chosen == -1 else chosen

    found, error = [], None
    try:
        found = search(how, Faulty(where, value), sources([2, 2, 2]), torch.tensor(limits))
    except DecodingError as raised:
        error = raised
    assert error is None or value != -INF
    assert error is None or (error.sentence, error.step) in faults
    assert error is not None or len(found) == 3
    for some, limit in zip(found, limits, strict=False):
        for one in some:
            assert len(one.tokens) <= limit
            assert abs(one.score) < INF


@pytest.mark.parametrize("end", [-1, VOCABULARY, 99])
def test_an_end_that_is_no_token_would_never_come(end):
    made = Bigrams(0)
    with pytest.raises(ConfigurationError, match=f"the end, {end}, is none of the 4 tokens"):
        BeamSearch().search(made, made.start(sources([2])), torch.tensor([0]), end, 5)


@pytest.mark.parametrize("limit", [NAN, INF, torch.tensor([3.0, NAN])])
def test_a_greatest_length_that_is_none(limit):
    with pytest.raises(ConfigurationError, match="greatest length"):
        search(BeamSearch(), Bigrams(0), sources([2, 2]), limit)


@pytest.mark.parametrize("limit", [0, -3])
def test_no_length_at_all_is_the_empty_output(limit):
    assert [[one.tokens for one in some] for some in search(BeamSearch(), Bigrams(0), sources([2, 2]), limit)] == [
        [()],
        [()],
    ]


@pytest.mark.parametrize("attention", [True, False])
def test_a_model_that_overflows_on_a_long_source(attention):
    """ReLU units that grow by a factor a step are inf in the end, and 0 times inf is NaN."""
    torch.manual_seed(0)
    made = EncoderDecoder(8, 8, "relu", hidden_size=16, attention=attention).eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "weight_hh" in name:
                weight.mul_(50)
    source = torch.randint(0, 7, (40, 2))
    source[-1], source[2, 1], source[3:, 1] = 7, 7, -1
    for how in (BeamSearch(beam=2), BeamSearch(beam=4, groups=2, diversity=1.0)):
        with pytest.raises(DecodingError, match=r"NaN at step \d, sentence 0"):
            how.search(made, made.start(source), torch.tensor([7, 7]), 7, max_length=5)
    assert made.step(torch.tensor([7, 7]), made.start(source))[0].isfinite().all(1).tolist() == [False, True]


CHOICES = [Sampling(), Sampling(0), Sampling(1e-5), Sampling(top_k=2), Sampling(top_p=0.5), Sampling(2.0, 3, 0.9)]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(("row", "said"), [(NAN, "NaN"), (INF, r"\+inf"), (-INF, "-inf for every token")])
def test_no_token_is_drawn_of_what_is_none(choice, row, said):
    log_probs = torch.log_softmax(torch.randn(3, 5), -1)
    log_probs[1] = row
    with pytest.raises(DecodingError, match=f"{said} at sentence 1"):
        choice.draw(log_probs, torch.rand(3))
    with pytest.raises(DecodingError, match=said):
        choice.distribution(log_probs)
    if row != -INF:
        log_probs[1] = -1.0
        log_probs[1, 4] = row  # of one token alone
        with pytest.raises(DecodingError, match=said):
            choice.draw(log_probs, torch.rand(3))


@pytest.mark.parametrize("choice", CHOICES)
def test_tokens_of_probability_0_are_none_to_draw(choice):
    log_probs = torch.tensor([[-INF, 0.0, -INF]])
    assert choice.draw(log_probs.expand(4, 3), torch.tensor([0.0, 0.3, 0.7, 0.999])).tolist() == [1] * 4


def test_generation_names_the_step():
    steps = generate(
        Faulty(beyond(1, 3), NAN), torch.zeros(1, 2, dtype=torch.long), Sampling(0), state=torch.zeros(2, 2).long()
    )
    assert len([next(steps) for _ in range(5)]) == 5  # of sentence 0 twice
    steps = generate(Faulty(beyond(1, 3), NAN), torch.zeros(2, 2, dtype=torch.long), Sampling())
    for _ in range(3):
        next(steps)
    with pytest.raises(DecodingError, match="NaN at step 3, sentence 1"):
        next(steps)


def read(steps, text):
    """Append 500 tokens of each row to `text`."""
    for _ in range(500):
        text.append(next(steps).tolist())


def overflowing(backend):
    """Units that grow by a factor a step, until the logits are NaN."""
    torch.manual_seed(1)
    made = LanguageModel(6, "relu", embedding_size=4, hidden_size=5, num_layers=1, backend=backend).eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "weight_hh" in name:
                weight.copy_(30 * torch.eye(5))
    return made


@pytest.mark.parametrize("choice", CHOICES)
def test_native_and_eager_generation_end_at_the_same_step(choice):
    ends, texts = [], []
    for backend in ("native", "eager"):
        made = overflowing(backend)
        assert (made.writer(2) is not None) == (backend == "native")
        steps, text = generate(made, torch.tensor([[1, 2]]), choice, torch.Generator().manual_seed(0)), []
        with pytest.raises(DecodingError, match="NaN at step") as caught:
            read(steps, text)
        ends.append((caught.value.step, caught.value.sentence))
        texts.append(text)
    assert ends[0] == ends[1]
    assert texts[0] == texts[1]
    assert 5 < ends[0][0] == len(texts[0])


@pytest.mark.parametrize(("value", "place"), [(NAN, 3), (INF, 3), (-INF, slice(None))])
def test_native_generation_tells_every_kind_at_once(value, place):
    made = overflowing("native")
    with torch.no_grad():
        made.readout.bias[place] = value
    with pytest.raises(DecodingError, match="NaN at step 0, sentence 0"):
        next(generate(made, torch.tensor([[1, 2]]), Sampling()))
