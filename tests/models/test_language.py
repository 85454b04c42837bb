import pytest
import torch

from tests.forms import by_form
from unrolled.cells import CELLS
from unrolled.decoding import Sampling, generate
from unrolled.errors import ConfigurationError
from unrolled.models import LanguageModel


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_step_by_step_is_the_same_as_at_once(cell):
    model = LanguageModel(11, cell, embedding_size=6, hidden_size=6, num_layers=2).eval()
    tokens = torch.randint(11, (7, 3))
    logits, _ = model(tokens)
    state = model.start(tokens[:4])
    for t in range(4, 7):
        log_probs, state = model.step(tokens[t], state)
        torch.testing.assert_close(log_probs, torch.log_softmax(logits[t], -1))
    assert model.start(tokens[:0]) is None


def test_one_hot_input():
    model = LanguageModel(11, "elman", embedding_size=0, hidden_size=6)
    assert model.embedding is None
    assert model(torch.randint(11, (5, 2)))[0].shape == (5, 2, 11)


def test_tied_weights_are_one_matrix():
    model = LanguageModel(11, embedding_size=6, hidden_size=[8, 6], tie_weights=True)
    assert model.readout.weight is model.embedding.weight
    with pytest.raises(ConfigurationError, match="set it to 6"):
        LanguageModel(11, embedding_size=5, hidden_size=6, tie_weights=True)


def test_forget_bias_reaches_the_cells_that_have_one():
    model = LanguageModel(11, "lstm", hidden_size=6, forget_bias=3.0)
    assert (model.recurrent.cells[0][0].bias[6:12] == 3).all()
    LanguageModel(11, "gru", hidden_size=6, forget_bias=3.0)


@pytest.mark.parametrize(
    ("cell", "embedding_size"), [*by_form(6), ("elman", 0), ("ln-lstm", 0), ("gru", 0), ("mut1", 0)]
)
def test_text_written_in_native_code_is_the_eager_text(cell, embedding_size):
    model = LanguageModel(31, cell, embedding_size=embedding_size, hidden_size=[9, 14], zoneout=0.1).eval()
    model.recurrent.backend = "eager"
    with torch.no_grad():
        state = model.start(torch.tensor([[1, 2]]))
    for sampling in (Sampling(), Sampling(0.5, top_k=4), Sampling(1.2, top_p=0.7), Sampling(0)):
        texts = []
        for backend in ("eager", "native"):
            model.recurrent.backend = backend
            steps = generate(model, torch.tensor([[3, 4]]), sampling, torch.Generator().manual_seed(5), state)
            texts.append(torch.stack([next(steps) for _ in range(70)]))
        assert torch.equal(*texts)
