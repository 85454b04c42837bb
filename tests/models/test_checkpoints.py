"""Weights that were saved before `EncoderDecoder` was made of an encoder and a decoder: names, order and outputs stay."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from unrolled.decoding import BeamSearch
from unrolled.models import EncoderDecoder

FILE = Path(__file__).parent / "checkpoints" / "encoder_decoder.safetensors"
with safe_open(FILE, "pt") as stored:
    TENSORS = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - it is no dict
    CASES = json.loads(stored.metadata()["cases"])
END = 4


def drawn(name):
    torch.manual_seed(3)
    return EncoderDecoder(5, CASES[name]["size"], embedding_size=3, hidden_size=4, **CASES[name]["options"])


def saved(name):
    """The model as it was saved: its parameters side by side, as float16."""
    model = drawn(name).double().eval()
    parameters = list(model.parameters())
    weights = TENSORS[f"weights of {name}"].double().split([parameter.numel() for parameter in parameters])
    with torch.no_grad():
        for parameter, values in zip(parameters, weights, strict=True):
            parameter.copy_(values.view_as(parameter))
    return model


@pytest.mark.parametrize("name", CASES)
def test_names_shapes_and_first_values_stay(name):
    model = drawn(name)
    state = [f"{key} {' '.join(map(str, value.shape))}" for key, value in model.state_dict().items()]
    assert state == CASES[name]["state"]
    # Optimisers number parameters: their order, too, belongs to a checkpoint. And a seed makes the weights it made.
    sums = [float(parameter.detach().double().sum()) for parameter in model.parameters()]
    assert sums == pytest.approx(CASES[name]["drawn"], abs=1e-4)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_saved_weights_say_what_they_said(name):
    model, source = saved(name), TENSORS["source"]
    torch.testing.assert_close(model(source, TENSORS["inputs"]), TENSORS[f"logits of {name}"])
    how = BeamSearch(beam=3, n_best=2, min_length=1)
    found = how.search(model, model.start(source), torch.full((3,), END), END, 6)
    for row, expected in zip(found, CASES[name]["found"], strict=True):
        assert [list(one.tokens) for one in row] == [tokens for tokens, _ in expected]
        assert [one.log_prob for one in row] == pytest.approx([log_prob for _, log_prob in expected], abs=1e-5)
