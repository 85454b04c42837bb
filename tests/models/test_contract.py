"""The contract between decoding and models: whole for those that derive, made whole once for those that do not."""

import pytest
import torch

from unrolled.decoding import BeamSearch, Ensemble, Sampling, generate
from unrolled.errors import ConfigurationError
from unrolled.models import Decodable, Decoder, EncoderDecoder, LanguageModel
from unrolled.models.contract import decodable

END = 3


class Plain:
    """Start and step alone: prefers the token after the last; its state counts, a row each."""

    def start(self, context):
        return (torch.zeros(context.size(1), 1), None)

    def step(self, token, state):
        log_probs = torch.log_softmax(torch.nn.functional.one_hot((token + 1) % 4, 4).double(), -1)
        return log_probs, (state[0] + 1, None)


class Whole(Plain):
    """With methods of its own, which tell that they are called."""

    def __init__(self):
        self.called = []

    def reorder(self, state, rows):
        self.called.append("reorder")
        return (state[0][rows.flatten()], None)

    def writer(self, batch):
        self.called.append(f"writer {batch}")

        def write(token, state, choice, draws):
            return torch.full(draws.shape, 2), state

        return write


def search(model):
    first = torch.full((2,), END)
    return BeamSearch(beam=3, n_best=3).search(model, model.start(torch.zeros(1, 2)), first, END, 4)


def test_the_models_have_the_whole_contract():
    for kind in (LanguageModel, EncoderDecoder, Decoder, Ensemble):
        assert issubclass(kind, Decodable)
    model = LanguageModel(5, hidden_size=4)
    assert decodable(model) is model


def test_start_and_step_are_enough():
    class Derived(Plain, Decodable):
        pass

    assert search(Plain()) == search(Derived()) == search(Ensemble([Plain()]))
    steps = generate(Plain(), torch.tensor([[0, 1]]), Sampling(0))
    assert [next(steps).tolist() for _ in range(3)] == [[1, 2], [2, 3], [3, 0]]
    assert Derived().writer(3) is None
    with pytest.raises(TypeError, match="step"):
        type("Half", (Decodable,), {"start": lambda self, context: None})()


def test_methods_of_its_own_are_used():
    model = Whole()
    assert search(model) == search(Plain())
    assert set(model.called) == {"reorder"}
    steps = generate(model, torch.tensor([[0, 1]]), Sampling(0))
    assert [next(steps).tolist() for _ in range(40)] == [[2, 2]] * 40
    assert model.called[-1] == "writer 2"


def test_what_has_no_step_is_no_model():
    for use in (
        lambda: BeamSearch().search(torch.nn.Linear(1, 1), None, torch.tensor([0]), 1, 3),
        lambda: next(generate(3, torch.zeros(1, 1).long(), Sampling(), state=())),
        lambda: Ensemble([object()]),
    ):
        with pytest.raises(ConfigurationError, match=r"cannot be decoded: it needs start\(context\)"):
            use()
