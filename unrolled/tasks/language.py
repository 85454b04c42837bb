"""Language modelling: text in streams, a recurrent model, sampling, and cross-entropy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tyro.conf import arg

from unrolled.cells import CELLS, find_cell
from unrolled.data import TokenFile, Vocabulary, build_vocabulary, encode_files, find_sources, load_vocabulary
from unrolled.data.levels import LEVELS
from unrolled.data.streams import Split, Streams, check_tokens, split_tokens
from unrolled.data.tokens import Progress
from unrolled.data.vocabulary import unknown_note
from unrolled.decoding import Sampling, generate
from unrolled.errors import ConfigurationError, RunError
from unrolled.metrics import LanguageScore, bits, perplexity
from unrolled.models import LanguageModel
from unrolled.models.reading import WarmStreams
from unrolled.settings import from_json, require, require_choice, to_json
from unrolled.tasks.vectors import start_embedding, store_vectors
from unrolled.training import Checkpoints, Run, TrainingConfig
from unrolled.training.checkpoint import Which
from unrolled.training.optimisation import find_device
from unrolled.training.randomness import seed_all

TASK = "language model"
#: Trained by a loop of its own, but sampled and scored like any other language model.
MIN_CHAR_RNN_TASK = "min-char-rnn"
VOCABULARY_FILE, TOKENS_FILE = "vocabulary.json", "tokens.bin"


@dataclass(frozen=True)
class TextConfig:
    """Text."""

    data: Annotated[tuple[str, ...], arg(metavar="PATH...")] = ()
    """Files, plain or gzip, folders, or - for standard input; none: the source code of Python's standard library."""
    glob: Annotated[str | None, arg(metavar="PATTERN")] = None
    """Which files of a folder: '*.py'."""
    level: str = "char"
    """char, word, byte or bpe."""
    vocab_size: Annotated[int | None, arg(metavar="N")] = None
    """Most words to keep (word: all), or size of the BPE vocabulary (2000)."""
    min_count: int = 2
    """Words that occur less often become <unk>."""
    val_fraction: float = 0.1
    """Share of the text, behind the training part, to validate on."""
    test_fraction: float = 0.0
    """Share of the text, at its end, to keep for `unrolled eval`."""
    val_tokens: int = 200_000
    """Validate, while training, on the first N tokens of that part; 0: on all."""

    def __post_init__(self) -> None:
        require_choice("level", self.level, LEVELS)
        require(self.min_count >= 1, "min_count", "at least 1", self.min_count)
        require(self.val_tokens >= 0, "val_tokens", "0 (all) or above", self.val_tokens)
        if self.vocab_size is not None:
            require(2 <= self.vocab_size <= 1 << 24, "vocab_size", "from 2 to 2^24", self.vocab_size)
            if self.level in ("char", "byte"):
                said = f"`vocab_size` is for words and BPE; at level {self.level} it has no meaning"
                raise ConfigurationError(said, setting="vocab_size")
        split_tokens(np.empty(0), self.val_fraction, self.test_fraction)


@dataclass(frozen=True)
class ModelConfig:
    """Model."""

    cell: Annotated[str, arg(metavar="NAME", help=f"One of {', '.join(CELLS)}.")] = "lstm"
    hidden_size: Annotated[tuple[int, ...], arg(metavar="N...")] = (256,)
    """Units a layer; several numbers give each layer its own."""
    num_layers: Annotated[int | None, arg(metavar="N")] = None
    """Layers (2, or as many as `hidden_size` has numbers)."""
    embedding_size: Annotated[int | None, arg(metavar="N")] = None
    """Width of the embedding; 0: one-hot input (128; with `tie_weights` the last layer's size)."""
    dropout: float = 0.1
    """Between layers and before the readout."""
    recurrent_dropout: float = 0.0
    """On the previous output inside the recurrence, one mask a sequence."""
    zoneout: float = 0.0
    """Chance that a unit keeps its value for a step."""
    forget_bias: float = 1.0
    """First bias of the forget gate, in cells that have one."""
    tie_weights: bool = False
    """Share the embedding's matrix with the readout."""
    vectors: Annotated[str | None, arg(metavar="FILE")] = None
    """Start the embedding from word vectors, as text; needs `level=word`, and their width as `embedding_size`."""
    fix_vectors: bool = False
    """Leave the embedding as it was started from `vectors`."""

    def __post_init__(self) -> None:
        find_cell(self.cell)
        sizes = " ".join(map(str, self.hidden_size)) or "none"
        fit = bool(self.hidden_size) and all(1 <= size <= 65_536 for size in self.hidden_size)
        require(fit, "hidden_size", "from 1 to 65,536", sizes)
        for name, low, high in (("num_layers", 1, 1000), ("embedding_size", 0, 65_536)):
            value = getattr(self, name)
            require(value is None or low <= value <= high, name, f"from {low} to {high:,}", value)
        require(abs(self.forget_bias) <= 1000, "forget_bias", "from -1000 to 1000", self.forget_bias)
        if self.num_layers is not None and len(self.hidden_size) not in (1, self.num_layers):
            said = f"`hidden_size` gives {len(self.hidden_size)} widths for {self.num_layers} layers"
            raise ConfigurationError(said, setting="hidden_size")
        for name in ("dropout", "recurrent_dropout", "zoneout"):
            value = getattr(self, name)
            require(0 <= value < 1, name, "from 0 to below 1", value)
        if self.fix_vectors and self.vectors is None:
            raise ConfigurationError(
                "`fix_vectors` fixes what `vectors` gives: name the file", setting=("fix_vectors", "vectors")
            )
        if self.vectors is not None and self.tie_weights:
            raise ConfigurationError(
                "`vectors` and `tie_weights` want the same matrix to start differently",
                setting=("vectors", "tie_weights"),
            )

    @property
    def widths(self) -> list[int]:
        """The hidden size of each layer."""
        if len(self.hidden_size) > 1:
            return list(self.hidden_size)
        return [self.hidden_size[0]] * (self.num_layers or 2)

    @property
    def embedding_width(self) -> int:
        """The width of the embedding; 0 where the input is one-hot."""
        default = self.widths[-1] if self.tie_weights else 128
        return default if self.embedding_size is None else self.embedding_size

    def build(self, vocabulary_size: int) -> LanguageModel:
        return LanguageModel(
            vocabulary_size,
            self.cell,
            embedding_size=self.embedding_width,
            hidden_size=self.widths,
            dropout=self.dropout,
            recurrent_dropout=self.recurrent_dropout,
            zoneout=self.zoneout,
            forget_bias=self.forget_bias,
            tie_weights=self.tie_weights,
        )


@dataclass(frozen=True)
class LanguageConfig:
    """All settings of a language model's run."""

    text: TextConfig = field(default_factory=TextConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


def read_config(run: Run) -> LanguageConfig:
    """The settings of a language model's run; RunError where it is a run of something else."""
    if run.task not in (TASK, MIN_CHAR_RNN_TASK):
        raise RunError(f"{run.path}: a run of task {run.task!r}, not a {TASK}")
    return from_json(LanguageConfig, run.config, str(run.path / "config.json"))


def text_name(data: Sequence[str]) -> str:
    """A short name of the text, for its runs: that of the first file or folder."""
    if not data:
        return "stdlib"
    return "stdin" if data[0] == "-" else Path(data[0]).resolve().stem or "text"


def prepare(run: Run, config: TextConfig, progress: Progress = lambda what, share: None) -> None:
    """Learn the vocabulary and encode the text into a new run's directory."""
    files = find_sources(config.data, config.glob, unpack=config.level != "byte")
    vocabulary = build_vocabulary(
        config.level, files, size=config.vocab_size, min_count=config.min_count, progress=progress
    )
    vocabulary.save(run.path / VOCABULARY_FILE)
    encode_files(files, vocabulary, run.path / TOKENS_FILE, progress)


def prepare_vectors(run: Run, config: LanguageConfig) -> None:
    """Copy the vectors of the vocabulary's words into a new run's directory, where they were asked for."""
    if config.model.vectors is None:
        return
    if config.text.level != "word":
        said = f"`vectors` are of words; the text's level is {config.text.level}: add `level=word`"
        raise ConfigurationError(said, setting=("vectors", "level"))
    vocabulary = load_vocabulary(run.path / VOCABULARY_FILE)
    number = {name: k for k, name in enumerate(vocabulary.names())}
    store_vectors(run.path, config.model.vectors, number, config.model.embedding_width or None)


class LanguageTask:
    """A run's language model with its text: what the training loop, `sample` and `eval` work on."""

    def __init__(self, run: Run, device: str | None = None) -> None:
        """Open what `prepare` made; the weights are fresh, drawn from the run's seed, until a checkpoint is loaded."""
        self.run = run
        self.config = read_config(run)
        self.vocabulary: Vocabulary = load_vocabulary(run.path / VOCABULARY_FILE)
        self.device = find_device(device or self.config.training.device)
        seed_all(self.config.training.seed)
        self.model = self.config.model.build(len(self.vocabulary)).to(self.device)
        if self.config.model.vectors is not None and self.model.embedding is not None:
            start_embedding(self.model.embedding, run.path, fixed=self.config.model.fix_vectors)

    def load(self, which: Which = "best") -> LanguageTask:
        """Put a checkpoint's weights in, and the model into evaluation mode."""
        Checkpoints(self.run).load_weights(which, self.model)
        self.model.eval()
        return self

    # -- text ----------------------------------------------------------------------------------------------------

    def split(self) -> Split:
        """The run's tokens in three parts."""
        text = self.config.text
        tokens = TokenFile.open(self.run.path / TOKENS_FILE).tokens
        return split_tokens(tokens, text.val_fraction, text.test_fraction)

    def verify(self) -> None:
        """RunError where the run's tokens are not those that were encoded."""
        TokenFile.open(self.run.path / TOKENS_FILE).verify()

    def epoch(self, number: int) -> Streams:
        """Pass `number` over the training text; later ones skip a few tokens, so that chunks fall differently."""
        training = self.config.training
        offset = int(np.random.default_rng([training.seed, number]).integers(training.seq_length)) if number else 0
        return Streams(self.split().train, training.batch_size, training.seq_length, offset, len(self.vocabulary))

    # -- the loop's view -----------------------------------------------------------------------------------------

    def loss(self, inputs: Tensor, targets: Tensor, state) -> tuple[Tensor, object]:
        """Cross-entropy summed over `targets [T, B]`, in nats."""
        logits, state = self.model(inputs, state)
        return cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"), state

    def validate(self, step: int | None = None) -> float | None:
        tokens = self.split().validation
        if self.config.text.val_tokens:
            tokens = tokens[: self.config.text.val_tokens]
        return self.total_nats(tokens) / (len(tokens) - 1) if len(tokens) > 1 else None

    def sample(self, step: int) -> str:
        generator = torch.Generator(self.device).manual_seed(self.config.training.seed + step)
        prompt = self.prompt("\n")
        steps = generate(self.model, prompt, Sampling(temperature=0.8), generator)
        return self.vocabulary.decode([int(next(steps)) for _ in range(300)])

    def facts(self) -> list[tuple[str, str]]:
        """What a person may want to know of the run, by name."""
        config, split = self.config, self.split()
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        widths = "+".join(map(str, config.model.widths))
        return [
            ("text", ", ".join(config.text.data) or "the Python standard library's source"),
            (
                "tokens",
                f"{len(split.train):,} to train on, {len(split.validation):,} to validate, "
                f"{len(split.test):,} to test; {len(self.vocabulary):,} in the {config.text.level} vocabulary",
            ),
            (
                "model",
                f"{config.model.cell}, layers of {widths} units, {parameters:,} parameters, on {self.device}",
            ),
        ]

    def describe(self, loss: float) -> str:
        if self.config.text.level in ("char", "byte"):
            return f"loss {loss:.4f} · {bits(loss):.3f} bits/{self.config.text.level}"
        return f"loss {loss:.4f} · perplexity {perplexity(loss):,.1f}"

    def unknown_note(self, unknown: Sequence[str]) -> str:
        """What becomes of text that the vocabulary lacks, for the person who gave it; empty where there is none."""
        return unknown_note(self.config.text.level, unknown)

    # -- use -----------------------------------------------------------------------------------------------------

    def prompt(self, text: str, count: int = 1) -> Tensor:
        """`text` as tokens `[T, count]`; where nothing of it is in the vocabulary, the first token of all."""
        tokens = self.vocabulary.encode(text)
        if not len(tokens):
            tokens = np.zeros(1, dtype=np.int64)
        return torch.from_numpy(tokens).to(self.device).unsqueeze(1).expand(-1, count)

    @torch.no_grad()
    def total_nats(self, tokens: np.ndarray, streams: int = 16, steps: int = 256) -> float:
        """`-Σ ln P` of `tokens[1:]`, each given all that precedes it, as one text.

        To be fast the text is read as several streams in step. Each but the first starts `steps` tokens early,
        uncounted, so that no stream begins without memory.
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

    def score(self, tokens: np.ndarray) -> LanguageScore:
        """How well the model predicts a text of at least two tokens."""
        check_tokens(tokens, len(self.vocabulary))
        characters = sum(
            len(self.vocabulary.decode(part)) for part in np.array_split(tokens[1:], 1 + len(tokens) // 100_000)
        )
        unknown = int(np.count_nonzero(tokens[1:] == 0)) if self.config.text.level == "word" else 0
        return LanguageScore(self.total_nats(tokens), len(tokens) - 1, characters, unknown)


def create_run(
    path: Path,
    config: LanguageConfig,
    progress: Progress = lambda what, share: None,
    *,
    task_name: str = TASK,
    check: Callable[[LanguageTask], object] = lambda task: task.epoch(0),
) -> LanguageTask:
    """A new run directory with its text; nothing is left behind where that fails, or where `check` raises.

    The default check is that the text is long enough for a batch.
    """
    with Run.create(path, task_name, to_json(config), resumable=task_name == TASK) as run:
        find_device(config.training.device)
        prepare(run, config.text, progress)
        prepare_vectors(run, config)
        task = LanguageTask(run)
        check(task)
    return task
