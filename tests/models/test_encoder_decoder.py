"""Encoder and decoder against their formulas, written out."""

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from unrolled.errors import ConfigurationError
from unrolled.models import EncoderDecoder
from unrolled.models.attention import AdditiveAttention

SIZES = {"embedding_size": 5, "hidden_size": 6}
ROOT = 5**0.5


def make(cell="gru", **options):
    torch.manual_seed(0)
    return EncoderDecoder(7, 9, cell, **{**SIZES, **options}).double().eval()


def test_attention_is_bahdanaus():
    torch.manual_seed(0)
    attention = AdditiveAttention(4, 3, 5).double()
    values, query = torch.randn(6, 2, 3).double(), torch.randn(2, 4).double()
    context, weights = attention(query, attention.build_memory(values, torch.tensor([6, 4])))
    for sentence, length in enumerate((6, 4)):
        energy = torch.stack(
            [
                attention.energy(torch.tanh(attention.query(query[sentence]) + attention.key(values[j, sentence])))[0]
                for j in range(length)
            ]
        )
        alpha = torch.softmax(energy, 0)
        torch.testing.assert_close(weights[sentence, :length], alpha)
        torch.testing.assert_close(context[sentence], alpha @ values[:length, sentence])
    assert (weights[1, 4:] == 0).all()


def test_several_queries_a_sentence_are_as_many_single_ones():
    torch.manual_seed(0)
    attention = AdditiveAttention(4, 3, 5).double()
    values, queries = torch.randn(6, 2, 3).double(), torch.randn(6, 4).double()
    lengths = torch.tensor([6, 4])
    together, _ = attention(queries, attention.build_memory(values, lengths))
    repeated = values.repeat_interleave(3, 1)
    apart, _ = attention(queries, attention.build_memory(repeated, lengths.repeat_interleave(3)))
    torch.testing.assert_close(together, apart)


@torch.no_grad()
def test_the_decoder_is_bahdanaus():
    model = make()
    source, inputs = torch.randint(7, (4, 2)), torch.randint(9, (3, 2))
    annotations, final = model.encoder(ROOT * model.source_embedding(source))
    state = torch.tanh(model.bridges[0](torch.cat([final[0], final[1]], -1)))
    attention = model.attending.attention
    memory = attention.build_memory(annotations, torch.tensor([4, 4]))
    expected = []
    for token in inputs:
        word = ROOT * model.target_embedding(token)
        context, _ = attention(state, memory)
        (state,) = model.attending.cell(torch.cat([word, context], -1), (state,))
        pairs = linear(
            torch.cat([state, context, word], -1), model.before_readout.weight, model.before_readout.bias
        ).view(2, -1, 2)
        expected.append(model.readout(torch.maximum(pairs[..., 0], pairs[..., 1])))
    torch.testing.assert_close(model(source, inputs), torch.stack(expected))


@torch.no_grad()
def test_without_attention_the_encoders_state_is_all_that_the_decoder_sees():
    model = make("lstm", attention=False, bidirectional=False, num_layers=2)
    source, inputs = torch.randint(7, (4, 2)), torch.randint(9, (3, 2))
    _, final = model.encoder(ROOT * model.source_embedding(source))
    outputs, _ = model.decoder(ROOT * model.target_embedding(inputs), final)
    hidden = model.before_readout(outputs).view(3, 2, -1, 2).amax(-1)
    torch.testing.assert_close(model(source, inputs), model.readout(hidden))


@torch.no_grad()
def test_reversed_words_are_read_from_the_last_to_the_first():
    plain, backwards = (
        make("lstm", attention=False, bidirectional=False, reverse=reverse) for reverse in (False, True)
    )
    end = 6
    source = torch.tensor([[1, 2, 3, end], [4, end, -1, -1]]).T
    turned = torch.tensor([[3, 2, 1, end], [4, end, -1, -1]]).T
    for one, other in zip(plain.start(turned).layers[0], backwards.start(source).layers[0], strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("cell", "attention"),
    [
        *((cell, True) for cell in ("lstm", "gru", "mut1")),
        *((cell, False) for cell in ("lstm", "mut1")),
        # Of the forms of the others: one state, and two.
        *(pytest.param(cell, True, marks=pytest.mark.slow) for cell in ("elman", "ln-lstm")),
    ],
)
def test_cells_of_every_form_write_step_by_step_what_they_write_at_once(cell, attention):
    model = make(cell, attention=attention, num_layers=2, bidirectional=attention)
    source, inputs = torch.randint(7, (4, 3)), torch.randint(9, (4, 3))
    source[2:, 1] = -1
    state = model.start(source)
    steps = []
    for token in inputs:
        log_probs, state = model.step(token, state)
        steps.append(log_probs)
    whole = model(source, inputs)
    torch.testing.assert_close(torch.stack(steps), torch.log_softmax(whole, -1))
    with torch.no_grad():  # as a search goes, which keeps what the first layer makes of the embeddings
        state = model.start(source)
        for token, expected in zip(inputs, steps, strict=True):
            log_probs, state = model.step(token, state)
            assert (state.kept is not None) == (not attention)
            torch.testing.assert_close(log_probs, expected)
            state = model.reorder(state, torch.arange(3).unsqueeze(-1))
    counted = torch.rand(4, 3) < 0.5
    torch.testing.assert_close(model(source, inputs, counted), whole[counted])
    model.train()
    cross_entropy(model(source, inputs).flatten(0, 1), inputs.flatten()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@torch.no_grad()
def test_embeddings_need_not_be_scaled():
    scaled, plain = make(), make(scale_embeddings=False)
    source, inputs = torch.randint(7, (4, 2)), torch.randint(9, (3, 2))
    assert not torch.allclose(scaled(source, inputs), plain(source, inputs))
    with torch.no_grad():
        for embedding in (plain.source_embedding, plain.target_embedding):
            embedding.weight *= ROOT
        plain.readout.weight = torch.nn.Parameter(scaled.readout.weight)
    torch.testing.assert_close(scaled(source, inputs), plain(source, inputs))


def test_a_step_with_gradients_keeps_nothing():
    model = make("lstm", attention=False, bidirectional=False)
    source, token = torch.randint(7, (4, 2)), torch.tensor([1, 2])
    with torch.no_grad():
        _, searched = model.step(token, model.start(source))
    log_probs, state = model.step(token, searched)
    assert state.kept is None
    (gradient,) = torch.autograd.grad(log_probs.sum(), model.decoder.cells[0][0].weight_ih)
    assert gradient.abs().max() > 0


def test_encoder_and_decoder_may_have_different_cells():
    model = make("lstm", decoder_cell="mut1", num_layers=2)
    assert [type(cell).__name__ for cell in model.layer_cells()] == ["MUT1Cell"] * 2
    assert model(torch.randint(7, (4, 3)), torch.randint(9, (4, 3))).shape == (4, 3, 9)


def test_a_shared_embedding():
    with pytest.raises(ConfigurationError, match="one vocabulary, got 7 and 9"):
        make(shared=True)
    model = EncoderDecoder(9, 9, shared=True, **SIZES)
    assert model.source_embedding.weight is model.target_embedding.weight is model.readout.weight


@pytest.mark.parametrize("options", [{}, {"cell": "lstm", "attention": False, "bidirectional": False}])
def test_it_learns_to_copy(options):
    torch.manual_seed(0)
    model = EncoderDecoder(9, 9, **{"cell": "gru", "embedding_size": 16, "hidden_size": 32, **options})
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(90):
        words = torch.randint(8, (3, 32))
        target = torch.cat([words, torch.full((1, 32), 8)])
        logits = model(target, torch.cat([target[-1:], words]))
        loss = cross_entropy(logits.flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.6
