"""Temperature, top-k, nucleus, argmax; and text up to a stop string."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrolled.data import ByteVocabulary
from unrolled.decoding import Sampling, TextStream, generate
from unrolled.errors import ConfigurationError

LOGITS = torch.log(torch.tensor([[0.4, 0.3, 0.2, 0.1]]))


def test_the_defaults_are_the_models_own_distribution():
    torch.testing.assert_close(Sampling().distribution(LOGITS), LOGITS.exp())


def test_temperature_sharpens_and_flattens():
    expected = LOGITS.exp() ** 2
    torch.testing.assert_close(Sampling(temperature=0.5).distribution(LOGITS), expected / expected.sum())
    assert Sampling(temperature=1e-6).distribution(LOGITS)[0, 0] == 1
    assert torch.equal(Sampling(temperature=0).distribution(LOGITS), torch.tensor([[1.0, 0, 0, 0]]))


def test_top_k_keeps_exactly_k():
    torch.testing.assert_close(Sampling(top_k=2).distribution(LOGITS), torch.tensor([[4 / 7, 3 / 7, 0, 0]]))
    ties = torch.zeros(2, 8)
    assert ((Sampling(top_k=3).distribution(ties) > 0).sum(-1) == 3).all()
    assert torch.equal(Sampling(top_k=99).distribution(LOGITS), Sampling().distribution(LOGITS))


@pytest.mark.parametrize(("p", "kept"), [(0.39, 1), (0.41, 2), (0.71, 3), (1.0, 4), (1e-9, 1)])
def test_the_nucleus_is_the_fewest_that_reach_p(p, kept):
    probs = Sampling(top_p=p).distribution(LOGITS)
    assert (probs[0] > 0).tolist() == [k < kept for k in range(4)]
    assert probs.sum().item() == pytest.approx(1)


@given(
    st.lists(st.floats(-50, 0), min_size=1, max_size=12),
    st.floats(0, 5),
    st.integers(0, 15),
    st.floats(0.01, 1),
)
def test_always_a_distribution_that_holds_the_most_probable(scores, temperature, k, p):
    log_probs = torch.log_softmax(torch.tensor([scores], dtype=torch.float64), -1)
    probs = Sampling(temperature, k, p).distribution(log_probs)
    assert probs.sum().item() == pytest.approx(1)
    assert (probs >= 0).all()
    # One of them, if several are: by rounding they may also have become equal.
    assert probs[log_probs >= log_probs.max() - 1e-12].max() > 0


@pytest.mark.parametrize(
    "bad", [{"temperature": -1}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.1}]
)
def test_impossible_settings(bad):
    with pytest.raises(ConfigurationError):
        Sampling(**bad)


class Counter:
    """Says the token that follows the last one, surely; remembers in its state how many it has read."""

    def start(self, context):
        return len(context)

    def step(self, token, state):
        return torch.log_softmax(1e4 * torch.nn.functional.one_hot((token + 1) % 256, 256).double(), -1), state + 1


def test_generation_reads_the_prompt_and_goes_on():
    steps = generate(Counter(), torch.tensor([[7, 40], [8, 50]]), Sampling())
    assert [next(steps).tolist() for _ in range(3)] == [[9, 51], [10, 52], [11, 53]]
    with pytest.raises(ConfigurationError):
        next(generate(Counter(), torch.zeros(0, 1, dtype=torch.long), Sampling()))
    with pytest.raises(ConfigurationError):
        next(generate(Counter(), torch.zeros(2, 1, dtype=torch.long), Sampling(), state=3))


@given(st.text(alphabet="ab\nE", max_size=30), st.text(alphabet="ab\nE", max_size=4))
def test_a_stop_string_ends_the_text_in_front_of_it(text, stop):
    stream = TextStream(ByteVocabulary(), stop)
    shown = ""
    for token in text.encode():
        shown += stream.feed(token)
        if stream.stopped:
            break
    shown += stream.finish()
    before, found, _ = text.partition(stop) if stop else (text, "", "")
    assert shown == before
    assert stream.stopped == bool(found)
