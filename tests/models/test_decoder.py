"""A decoder over memories that are no encoder's: a grid of features with a mask, a vector read once or at every step."""

import dataclasses

import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import linear

from unrolled.decoding import BeamSearch, Sampling, forced_log_probs, generate
from unrolled.errors import ConfigurationError, ShapeError
from unrolled.models import Context, Decoder

TOKENS, END, BATCH, GRID = 6, 5, 3, 7
SIZES = {"embedding_size": 4, "hidden_size": 5}
MEMORY, VECTOR, START = 3, 2, 2
#: What a decoder is about, by the options that it is made with.
ABOUT = {
    "grid": {"memory_size": MEMORY},
    "vector at every step": {"context_size": VECTOR},
    "vector at first": {},
    "states": {"start_sizes": True},
    "all": {"memory_size": MEMORY, "context_size": VECTOR, "start_sizes": True},
}
CELLS = ["lstm", "gru", "mut1"]


def make(about, cell="lstm", num_layers=2, seed=0, scale=2.0, **options):
    options = {**ABOUT[about], **options}
    if "start_sizes" in options:
        options["start_sizes"] = [(START,)] * num_layers
    torch.manual_seed(seed)
    model = Decoder(TOKENS, cell, num_layers=num_layers, **SIZES, **options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def context(about, seed=0, num_layers=2):
    torch.manual_seed(seed)
    mask = torch.rand(GRID, BATCH) < 0.6
    mask[0] = True
    found = Context()
    if about in ("grid", "all"):
        found = dataclasses.replace(found, memory=torch.randn(GRID, BATCH, MEMORY).double(), mask=mask)
    if about in ("vector at every step", "all"):
        found = dataclasses.replace(found, vector=torch.randn(BATCH, VECTOR).double())
    if about in ("vector at first", "all"):
        found = dataclasses.replace(found, first=torch.randn(BATCH, SIZES["embedding_size"]).double())
    if about in ("states", "all"):
        states = [(torch.randn(BATCH, START).double(),) for _ in range(num_layers)]
        found = dataclasses.replace(found, states=states)
    return found


def alone(given, row):
    """The context of one of the batch."""
    part = slice(row, row + 1)
    grids = {name: value[:, part] for name in ("memory", "mask") if (value := getattr(given, name)) is not None}
    rows = {name: value[part] for name in ("vector", "first") if (value := getattr(given, name)) is not None}
    states = given.states and [tuple(state[part] for state in layer) for layer in given.states]
    return Context(**grids, **rows, states=states)


def outputs_of(model, given, how, limit=6):
    state = model.start(given)
    count = len(state.layers[0][0])
    return how.search(model, state, torch.full((count,), END), END, limit)


@torch.no_grad()
def test_a_vector_beside_every_token_by_its_formula():
    model, given = make("vector at every step", "gru", 1), context("vector at every step")
    inputs = torch.randint(TOKENS, (4, BATCH))
    cell, h, expected = model.decoder.cells[0][0], torch.zeros(BATCH, 5).double(), []
    for token in inputs:
        word = 4**0.5 * model.readout.weight[token]
        (h,) = cell(torch.cat([word, given.vector], -1), (h,))
        hidden = linear(h, model.before_readout.weight, model.before_readout.bias).view(BATCH, -1, 2).amax(-1)
        expected.append(model.readout(hidden))
    torch.testing.assert_close(model(given, inputs), torch.stack(expected))


@torch.no_grad()
def test_a_vector_at_first_by_its_formula():
    model, given = make("vector at first", "lstm", 1), context("vector at first")
    zeros = (torch.zeros(BATCH, 5).double(),) * 2
    torch.testing.assert_close(
        tuple(model.start(given).layers[0]), model.decoder.cells[0][0](given.first, zeros), check_device=False
    )


@torch.no_grad()
def test_a_grid_by_its_formula():
    """Each picture by itself, over those of its positions that count."""
    model, given = make("grid", "gru", 1), context("grid")
    inputs = torch.randint(TOKENS, (4, BATCH))
    logits, attention = model(given, inputs), model.attending.attention
    for row in range(BATCH):
        features, h = given.memory[given.mask[:, row], row], torch.zeros(1, 5).double()
        for time, token in enumerate(inputs[:, row]):
            energies = torch.tanh(attention.query(h) + attention.key(features)) @ attention.energy.weight[0]
            seen = (torch.softmax(energies, 0) @ features).unsqueeze(0)
            word = 4**0.5 * model.readout.weight[token].unsqueeze(0)
            (h,) = model.attending.cell(torch.cat([word, seen], -1), (h,))
            hidden = model.before_readout(torch.cat([h, seen, word], -1)).view(1, -1, 2).amax(-1)
            torch.testing.assert_close(logits[time, row], model.readout(hidden)[0])


@pytest.mark.parametrize("about", ABOUT)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("num_layers", [1, 2])
@torch.no_grad()
def test_steps_are_what_is_written_at_once(about, cell, num_layers):
    model, given = make(about, cell, num_layers), context(about, num_layers=num_layers)
    if about == "states":
        assert model.start(given).layers[0][0].abs().max() <= 1  # through a bridge
    inputs = torch.randint(TOKENS, (5, BATCH))
    expected = torch.log_softmax(model(given, inputs), -1)
    state = model.start(given)
    for token, row in zip(inputs, expected, strict=True):
        log_probs, state = model.step(token, state)
        torch.testing.assert_close(log_probs, row)
        state = model.reorder(state, torch.arange(BATCH).unsqueeze(-1))
    # With several outputs of each, side by side.
    several = torch.stack([inputs, inputs.flip(0)], -1).flatten(1)
    both = model(given, several).unflatten(1, (BATCH, 2))
    torch.testing.assert_close(both[:, :, 0].log_softmax(-1), expected)
    torch.testing.assert_close(both[:, :, 1], model(given, inputs.flip(0)))


@pytest.mark.parametrize("about", ABOUT)
@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_a_beam_of_one_is_argmax(about, cell):
    model, given = make(about, cell), context(about)
    found = outputs_of(model, given, BeamSearch(beam=1))
    steps = generate(model, torch.full((1, BATCH), END), Sampling(0), state=model.start(given))
    written = torch.stack([next(steps) for _ in range(6)]).T.tolist()
    for tokens, (best,) in zip(written, found, strict=True):
        assert list(best.tokens) == (tokens[: tokens.index(END)] if END in tokens else tokens)


@pytest.mark.parametrize("about", ABOUT)
@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_a_search_is_the_same_in_any_batch_and_scores_what_it_found(about, cell):
    model, given = make(about, cell, scale=3.0), context(about)
    how = BeamSearch(beam=4, n_best=3)
    found = outputs_of(model, given, how)
    for row, together in enumerate(found):
        (single,) = outputs_of(model, alone(given, row), how)
        assert [one.tokens for one in single] == [one.tokens for one in together]
        outputs = torch.full((7, 1, len(single)), -1)
        for k, one in enumerate(single):
            outputs[: len(one.tokens) + 1, 0, k] = torch.tensor([*one.tokens, END])
        scored = forced_log_probs(model, model.start(alone(given, row)), torch.tensor([END]), outputs)[0]
        assert scored.tolist() == pytest.approx([one.log_prob for one in together])
    assert len({tuple(one.tokens for one in some) for some in found}) > 1  # they differ by what they are about


@torch.no_grad()
def test_what_the_mask_leaves_out_is_not_seen():
    model, given = make("grid"), context("grid")
    inputs = torch.randint(TOKENS, (4, BATCH))
    expected = model(given, inputs)
    torch.testing.assert_close(
        model(Context(given.memory.masked_fill(~given.mask.unsqueeze(-1), 9.0), mask=given.mask), inputs), expected
    )
    lengths = torch.tensor([7, 2, 4])
    by_mask = model(Context(given.memory, mask=torch.arange(GRID).unsqueeze(-1) < lengths), inputs)
    torch.testing.assert_close(model(Context(given.memory, lengths), inputs), by_mask)
    everything = model(Context(given.memory), inputs)
    torch.testing.assert_close(model(Context(given.memory, torch.full((BATCH,), GRID)), inputs), everything)
    assert not torch.allclose(everything, expected)


@pytest.mark.parametrize("about", ABOUT)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_the_differences(about, cell):
    """Of the context and of all parameters, in float64."""
    model, given = make(about, cell, scale=1.0), context(about)
    inputs = torch.randint(TOKENS, (3, BATCH))
    names = [name for name in ("memory", "vector", "first") if getattr(given, name) is not None]
    states = [state for layer in given.states or () for state in layer]
    tensors = [*(getattr(given, name) for name in names), *states]
    parameters = dict(model.named_parameters())

    def logits(*values):
        about, weights = values[: len(tensors)], values[len(tensors) :]
        parts = dict(zip(names, about, strict=False))
        starts = [(state,) for state in about[len(names) :]] or None
        changed = dataclasses.replace(given, **parts, states=starts)
        return functional_call(model, dict(zip(parameters, weights, strict=True)), (changed, inputs))

    values = [tensor.detach().clone().requires_grad_() for tensor in (*tensors, *parameters.values())]
    assert torch.autograd.gradcheck(logits, values, fast_mode=True)


def test_in_training_memory_vector_and_words_are_dropped():
    model, given = make("all", dropout=0.5).train(), context("all")
    inputs = torch.randint(TOKENS, (3, BATCH))
    state = model.start(given)
    assert (state.memory.values == 0).any()
    assert (state.vector == 0).any()
    assert not torch.equal(model(given, inputs), model(given, inputs))


MISFITS = [
    ("grid", Context(), "no memory, but this decoder reads one \\(memory_size=3\\)"),
    ("grid", Context(torch.zeros(7, 2, 4)), r"memory \[7, 2, 4\] does not fit this decoder's memory_size=3"),
    ("grid", Context(torch.zeros(7, 2, 3), vector=torch.zeros(2, 2)), "vector .* context_size=None"),
    ("grid", Context(torch.zeros(7, 2, 3), torch.ones(2), torch.ones(7, 2) > 0), "not both"),
    ("grid", Context(torch.zeros(7, 2, 3), mask=torch.ones(7, 2)), r"mask must be a bool tensor \[S, B\] with a value"),
    ("grid", Context(torch.zeros(7, 2, 3), mask=torch.ones(2, 7) > 0), "mask must be"),
    ("vector at first", Context(), "the context is empty, so the batch size is unknown"),
    ("vector at first", Context(first=torch.zeros(2, 5)), r"first \[2, 5\] must be as wide as an embedding, 4"),
    ("states", Context(states=[(torch.zeros(2, 2),)]), r"widths \[\(2,\), \(2,\)\], layer by layer, got \[\(2,\)\]"),
]


@pytest.mark.parametrize(("about", "given", "message"), MISFITS)
def test_contexts_that_do_not_fit(about, given, message):
    with pytest.raises(ShapeError, match=message):
        make(about).start(given)


def test_decoders_that_cannot_be():
    with pytest.raises(ConfigurationError, match="start_sizes has 1 entries for 2 layers"):
        Decoder(TOKENS, num_layers=2, start_sizes=[(3,)])
    with pytest.raises(ConfigurationError, match="at least one layer, got num_layers=0"):
        Decoder(TOKENS, num_layers=0)
    with pytest.raises(ConfigurationError, match="starts from a Context, got a Tensor"):
        make("grid").start(torch.zeros(3, 2))
    with pytest.raises(ShapeError, match="4 outputs cannot be divided evenly among 3 contexts"):
        make("grid")(context("grid"), torch.zeros(2, 4).long())
