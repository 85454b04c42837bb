"""Language modelling: streams of text, a recurrent model, sampling, and cross-entropy."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unrolled.data import (
    TokenFile,
    Vocabulary,
    build_vocabulary,
    encode_files,
    find_sources,
    load_vocabulary,
    read_text,
)
from unrolled.data.batch import Stretch
from unrolled.data.lines import readable
from unrolled.data.streams import Split, Streams, check_tokens, split_tokens
from unrolled.data.tokens import Progress
from unrolled.data.vocabulary import unknown_note
from unrolled.decoding import Sampling, TextStream, generate
from unrolled.errors import ConfigurationError, DataError
from unrolled.layers import Recurrent
from unrolled.metrics import LanguageScore
from unrolled.metrics.report import Report, Value
from unrolled.models import LanguageModel
from unrolled.models.reading import WarmStreams
from unrolled.settings import require
from unrolled.tasks.base import Task
from unrolled.tasks.language_settings import LanguageConfig, LanguageInfo, MinCharRNNInfo, TextConfig, TextEvaluation
from unrolled.tasks.vectors import start_embedding, store_vectors
from unrolled.training import Run

VOCABULARY_FILE, TOKENS_FILE = "vocabulary.json", "tokens.bin"
#: Up to this many tokens, read and generated, the eager loop takes less time than planning or loading a cached plan.
_FEW = 200


def prepare(run: Run, config: TextConfig, progress: Progress = lambda what, share: None) -> None:
    """Learn the vocabulary and encode the text into a new run's directory."""
    files = find_sources(config.data, config.glob, unpack=config.level != "byte")
    vocabulary = build_vocabulary(
        config.level, files, size=config.vocab_size, min_count=config.min_count, progress=progress
    )
    vocabulary.save(run.path / VOCABULARY_FILE)
    encode_files(files, vocabulary, run.path / TOKENS_FILE, progress)


def prepare_vectors(run: Run, config: LanguageConfig) -> None:
    """Copy the vectors of the vocabulary's words into a new run's directory, if the settings name vectors."""
    if config.model.vectors is None:
        return
    if config.text.level != "word":
        said = f"`vectors` need the level word, but the text's level is {config.text.level}: add `level=word`"
        raise ConfigurationError(said, setting=("vectors", "level"))
    vocabulary = load_vocabulary(run.path / VOCABULARY_FILE)
    number = {name: k for k, name in enumerate(vocabulary.names())}
    store_vectors(run.path, config.model.vectors, number, config.model.embedding_width or None)


class LanguageTask(LanguageInfo, Task):
    """A language model with its text."""

    reads_text = True
    model: LanguageModel

    @classmethod
    def prepare(cls, run: Run, settings: LanguageConfig, progress: Progress = lambda what, share: None) -> None:
        """Learn the vocabulary and encode the text into a new run's directory."""
        prepare(run, settings.text, progress)
        prepare_vectors(run, settings)

    def read(self) -> None:
        self.vocabulary: Vocabulary = load_vocabulary(self.run.path / VOCABULARY_FILE)

    def build(self) -> LanguageModel:
        model = self.config.model.build(len(self.vocabulary))
        if self.config.model.vectors is not None and model.embedding is not None:
            start_embedding(model.embedding, self.run.path, fixed=self.config.model.fix_vectors)
        return model

    def token_keys(self) -> dict[str, list[str]]:
        return {"vocabulary": self.vocabulary.keys()}

    def grown(self, tokens: str) -> LanguageModel:
        return self.config.model.build(len(self.vocabulary) + 1)

    # -- text ----------------------------------------------------------------------------------------------------

    def split(self) -> Split:
        """Return the run's tokens in three parts."""
        text = self.config.text
        tokens = TokenFile.open(self.run.path / TOKENS_FILE).tokens
        return split_tokens(tokens, text.val_fraction, text.test_fraction)

    def verify(self) -> None:
        """Raise RunError if the run's tokens are not those that were encoded."""
        TokenFile.open(self.run.path / TOKENS_FILE).verify()

    def epoch(self, number: int) -> Streams:
        """Return pass `number` over the training text; later passes skip a few tokens, to cut it at other places."""
        training = self.config.training
        offset = int(np.random.default_rng([training.seed, number]).integers(training.seq_length)) if number else 0
        return Streams(
            self.split().train,
            training.batch_size,
            training.seq_length,
            offset,
            len(self.vocabulary),
            backward_length=training.backward_length,
            carry_state=training.carry_state,
        )

    # -- the loop's view -----------------------------------------------------------------------------------------

    def loss(self, batch: Stretch, state: Any) -> tuple[Tensor, Any]:
        """Return the cross-entropy, summed over the targets that count, in nats."""
        logits, state = self.model(batch.inputs, state)
        return cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="sum", ignore_index=-1), state

    def validate(self, step: int | None = None) -> float | None:
        tokens = self.split().validation
        if self.config.text.val_tokens:
            tokens = tokens[: self.config.text.val_tokens]
        return self.total_nats(tokens) / (len(tokens) - 1) if len(tokens) > 1 else None

    def preview(self, step: int) -> str:
        generator = torch.Generator(self.device).manual_seed(self.config.training.seed + step)
        prompt = self.prompt("\n")
        steps = generate(self.model, prompt, Sampling(temperature=0.8), generator)
        return self.vocabulary.decode([int(next(steps)) for _ in range(300)])

    def count(self) -> dict[str, int]:
        split = self.split()
        parts = {"train": split.train, "validation": split.validation, "test": split.test}
        return {**{name: len(part) for name, part in parts.items()}, "vocabulary": len(self.vocabulary)}

    def unknown_note(self, unknown: Sequence[str]) -> str:
        """Return a note on what happens to text that the vocabulary lacks; empty if there is none."""
        return unknown_note(self.config.text.level, unknown)

    # -- use -----------------------------------------------------------------------------------------------------

    def prompt(self, text: str, count: int = 1) -> Tensor:
        """Return `text` as tokens `[T, count]`, or token 0 if the vocabulary has none of it."""
        tokens = self.vocabulary.encode(text)
        if not len(tokens):
            tokens = np.zeros(1, dtype=np.int64)
        return torch.from_numpy(tokens).to(self.device).unsqueeze(1).expand(-1, count)

    def sample(
        self,
        prompt: str = "",
        *,
        count: int | None = None,
        length: int = 1000,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: str = "",
    ) -> str | list[str]:
        """Return text that starts with `prompt` and continues it; with `count`, return a list of that many texts.

        length: the number of tokens to generate, at the run's level.
        temperature, top_k, top_p: see `Sampling`.
        seed: equal seeds give equal text, the same as `unrolled sample`; None: a new text in each call.
        stop: a text ends before this string.

        Parts of the prompt that the vocabulary lacks, `vocabulary.unknown(prompt)`, are left out or read as <unk>.
        Raises ConfigurationError if a number is out of range, DecodingError if the model's output is NaN.
        """
        parts = self.stream(
            prompt,
            count=1 if count is None else count,
            length=length,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            stop=stop,
        )
        texts = ["".join(text) for text in zip(*parts, strict=True)]
        return texts[0] if count is None else texts

    def stream(
        self,
        prompt: str = "",
        *,
        count: int = 1,
        length: int = 1000,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: str = "",
    ) -> Iterator[list[str]]:
        """Generate the texts of `sample` in parts: first `prompt`, then what each token adds to each of `count` texts.

        A part may be empty, because an incomplete character, or a possible beginning of `stop`, is held back.
        """
        require(length >= 1, "length", "at least 1", length)
        require(1 <= count <= 10_000, "count", "from 1 to 10,000", count)
        require(seed is None or 0 <= seed < 1 << 63, "seed", "from 0 to below 2^63", seed)
        sampling = Sampling(temperature, top_k, top_p)
        generator = torch.Generator(self.device)
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        # A prompt with bytes that are not UTF-8 cannot be continued.
        return self._stream(readable(prompt), count, length, sampling, generator, readable(stop))

    def _stream(
        self, prompt: str, count: int, length: int, sampling: Sampling, generator: torch.Generator, stop: str
    ) -> Iterator[list[str]]:
        yield [prompt] * count
        tokens = self.prompt(prompt or "\n", count)
        backend = "eager" if len(tokens) + length <= _FEW else self.model.recurrent.backend
        steps = generate(self.model, tokens, sampling, generator)
        streams = [TextStream(self.vocabulary, stop, self.vocabulary.encode(prompt).tolist()) for _ in range(count)]
        for _ in range(length):
            with _backend(self.model.recurrent, backend):  # per step, since the caller may use the model between steps
                chosen = next(steps).tolist()
            yield [stream.feed(token) for stream, token in zip(streams, chosen, strict=True)]
            if all(stream.stopped for stream in streams):
                break
        yield [stream.finish() for stream in streams]

    @torch.no_grad()
    def total_nats(self, tokens: np.ndarray, streams: int = 16, steps: int = 256) -> float:
        """Return `-Σ ln P` of `tokens[1:]`, each given all the tokens before it, as one text.

        For speed, the text is read as several parallel streams. Each stream except the first starts `steps` tokens
        early, without counting these, so that no stream starts without memory.
        """
        inputs, targets = tokens[:-1], tokens[1:]
        text = WarmStreams(len(inputs), streams, steps)
        state = text.warm(inputs, lambda early: self.model.read(self._on_device(early))[1])
        total = 0.0
        for window in text.windows():
            logits, state = self.model(self._on_device(text.cut(inputs, window)), state)
            wanted = self._on_device(text.cut(targets, window))
            losses = cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
            total += float(losses.cpu()[torch.from_numpy(text.inside(window)).flatten()].double().sum())
        return total

    def _on_device(self, tokens: np.ndarray) -> Tensor:
        check_tokens(tokens, len(self.vocabulary))
        return torch.from_numpy(tokens.astype(np.int64)).to(self.device)

    def score_tokens(self, tokens: np.ndarray) -> LanguageScore:
        """Return how well the model predicts a text of at least two tokens."""
        check_tokens(tokens, len(self.vocabulary))
        characters = sum(
            len(self.vocabulary.decode(part)) for part in np.array_split(tokens[1:], 1 + len(tokens) // 100_000)
        )
        unknown = int(np.count_nonzero(tokens[1:] == 0)) if self.config.text.level == "word" else 0
        return LanguageScore(self.total_nats(tokens), len(tokens) - 1, characters, unknown)

    def evaluate(self, asked: TextEvaluation) -> Report:
        """Report how well the model predicts the text that `asked` names, or the held-out text."""
        with tempfile.TemporaryDirectory() as scratch:
            data, tokens, notes = self._asked(asked, Path(scratch) / "tokens.bin")
            if len(tokens) < 2:
                raise DataError(f"{data}: too short to score: at least two tokens are needed")
            score = self.score_tokens(tokens)
        self.require_number(score.nats, data)
        counted = f"{score.unknown:,} of them <unk>" if score.unknown else f"{score.characters:,} characters"
        bits = score.bits_per_character
        shown = "- (the text behind <unk> is not scored)" if bits is None else f"{bits:.4f}"
        values = (
            Value("level", self.config.text.level),
            Value("tokens", score.tokens),
            Value("characters", None if score.unknown else score.characters),
            Value("unknown", score.unknown),
            Value("nats", score.nats, "nats per token"),
            Value("bits_per_character", bits, "bits per character", shown),
            Value("perplexity", score.perplexity, "perplexity", f"{score.perplexity:.3f}"),
        )
        return Report(data, f"{data}: {score.tokens:,} tokens, {counted}", values, notes)

    def _asked(self, asked: TextEvaluation, scratch: Path) -> tuple[str, np.ndarray, tuple[str, ...]]:
        """Return the name of the text to score, its tokens, and notes about it."""
        if not asked.data:
            if asked.glob is not None:
                said = "`glob` chooses files of a folder: give the folder with `data`"
                raise ConfigurationError(said, setting=("glob", "data"))
            split = self.split()
            for data, tokens in (("test part", split.test), ("validation part", split.validation)):
                if len(tokens):
                    return data, tokens, ()
            said = f"{self.run.path}: no text was held out (`val_fraction` 0); give `data`"
            raise ConfigurationError(said, setting=("val_fraction", "data"))
        files = find_sources(asked.data, asked.glob, unpack=self.config.text.level != "byte")
        notes: tuple[str, ...] = ()
        if self.config.text.level in ("char", "word"):
            unknown = sorted({part for block in read_text(files) for part in self.vocabulary.unknown(block)})
            notes = tuple(filter(None, [self.unknown_note(unknown)]))
        return ", ".join(asked.data), encode_files(files, self.vocabulary, scratch).tokens, notes


@contextmanager
def _backend(layers: Recurrent, name: str) -> Iterator[None]:
    """Run the layers with another backend within the block."""
    before, layers.backend = layers.backend, name
    try:
        yield
    finally:
        layers.backend = before


class MinCharRNN(MinCharRNNInfo, LanguageTask):
    """The lectures' model, which has its own training loop."""

    def check(self) -> None:
        tokens, needed = len(self.split().train), self.config.training.seq_length + 2
        if tokens < needed:
            raise DataError(f"the text is too short: {tokens} characters, min-char-rnn needs {needed}")


def create_run(
    path: Path,
    config: LanguageConfig,
    progress: Progress = lambda what, share: None,
    *,
    task: type[LanguageTask] = LanguageTask,
) -> LanguageTask:
    """Create a run directory with its text; nothing remains of it after an error, such as a text that is too short."""
    return task.create(path, config, progress)
