"""The lectures' min-char-rnn with all its hyper-parameters, built from this toolkit's parts.

Source: A. Karpathy's 112-line model, as FaMAF's and the Modulabs decks show it: a vanilla net of 100 tanh units over
one-hot characters, 25 steps per update, batch size 1, Adagrad with a learning rate of 0.1, and gradients clipped to ±5
element by element.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unrolled.decoding import Sampling, generate
from unrolled.errors import DataError
from unrolled.models import LanguageModel
from unrolled.tasks.language_settings import LanguageConfig, ModelConfig, StreamTraining, TextConfig

HIDDEN, STEPS, RATE, CLIP, EPSILON, WEIGHT_SCALE, SAMPLE_LENGTH = 100, 25, 0.1, 5.0, 1e-8, 0.01, 200


def lecture_config(file: str, seed: int) -> LanguageConfig:
    """Return the lectures' settings, so that the run can be opened like any other."""
    return LanguageConfig(
        TextConfig(data=(file,), val_fraction=0.0),
        ModelConfig(cell="elman", hidden_size=(HIDDEN,), num_layers=1, embedding_size=0, dropout=0.0),
        StreamTraining(
            batch_size=1,
            seq_length=STEPS,
            optimizer="adagrad",
            learning_rate=RATE,
            lr_schedule="constant",
            warmup_steps=0,
            weight_decay=0.0,
            clip_norm=0.0,
            clip_value=CLIP,
            seed=seed,
            device="cpu",
        ),
    )


def initialise(model: LanguageModel, seed: int) -> None:
    """Draw the weights from N(0, 0.01²) and set the biases to zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, WEIGHT_SCALE, generator=generator)
            else:
                parameter.zero_()


class LectureAdagrad:
    """Adagrad as in the lectures: `m += g²`, `w -= rate · g / sqrt(m + ε)`, with ε under the root."""

    def __init__(self, parameters: list[nn.Parameter], rate: float = RATE) -> None:
        self.parameters, self.rate = parameters, rate
        self.memories = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self) -> None:
        for parameter, memory in zip(self.parameters, self.memories, strict=True):
            assert parameter.grad is not None
            memory.addcmul_(parameter.grad, parameter.grad)
            parameter.addcdiv_(parameter.grad, (memory + EPSILON).sqrt_(), value=-self.rate)


@dataclass(frozen=True)
class Iteration:
    """One update. The loss is a sum over 25 characters before the update; `smooth_loss` is `0.999 s + 0.001 loss`."""

    number: int
    loss: float
    smooth_loss: float
    sample: Tensor | None


def chunk_loss(model: LanguageModel, inputs: Tensor, targets: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy summed over `[T]` characters, and the state after them.

    state: `[1, 1, H]`, the state before them; None: zeros.
    """
    logits, state = model(inputs.unsqueeze(1), state)
    return cross_entropy(logits.squeeze(1), targets, reduction="sum"), state


def check_length(tokens: Sized) -> None:
    """Raise DataError if the text does not fill one update."""
    if len(tokens) < STEPS + 2:
        raise DataError(f"the text is too short: {len(tokens)} characters, min-char-rnn needs {STEPS + 2}")


def train(model: LanguageModel, tokens: Tensor, iterations: int, sample_every: int, seed: int) -> Iterator[Iteration]:
    """Train the model on `tokens [N]`. Yield each update, with a sample at every `sample_every`-th."""
    check_length(tokens)
    optimizer = LectureAdagrad(list(model.parameters()))
    generator = torch.Generator().manual_seed(seed)
    smooth_loss = -math.log(1.0 / model.vocabulary_size) * STEPS
    pointer, state = 0, None
    for number in range(iterations):
        if pointer + STEPS + 1 >= len(tokens):  # the data pointer wraps around, and the state starts from zeros
            pointer, state = 0, None
        inputs, targets = tokens[pointer : pointer + STEPS], tokens[pointer + 1 : pointer + STEPS + 1]
        sample = None
        if number % sample_every == 0:
            steps = generate(model, inputs[:1].unsqueeze(1), Sampling(), generator, state)
            sample = torch.cat([next(steps) for _ in range(SAMPLE_LENGTH)])
        model.zero_grad()
        loss, state = chunk_loss(model, inputs, targets, state)
        state = state.detach()
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), CLIP)
        smooth_loss = smooth_loss * 0.999 + loss.item() * 0.001
        optimizer.step()
        yield Iteration(number, loss.item(), smooth_loss, sample)
        pointer += STEPS
