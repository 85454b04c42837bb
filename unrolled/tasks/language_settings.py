"""The settings of a language model's run, and the facts about it that need no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import arg

from unrolled.cells import CELL_NAMES, cell_label, require_cell
from unrolled.data.levels import LEVELS
from unrolled.data.split import split_lengths
from unrolled.errors import ConfigurationError
from unrolled.metrics import bits, perplexity
from unrolled.settings import require, require_choice
from unrolled.tasks.checks import require_vectors, require_widths, widths_of
from unrolled.tasks.info import TaskInfo
from unrolled.training import TrainingConfig

if TYPE_CHECKING:
    from unrolled.models import LanguageModel


@dataclass(frozen=True)
class TextConfig:
    """Text."""

    data: Annotated[tuple[str, ...], arg(metavar="PATH...")] = ()
    """Files, plain or gzip, folders, or - for standard input; none: the source code of Python's standard library."""
    glob: Annotated[str | None, arg(metavar="PATTERN")] = None
    """The files to read in a folder, such as '*.py'."""
    level: str = "char"
    """char, word, byte or bpe."""
    vocab_size: Annotated[int | None, arg(metavar="N")] = None
    """Maximum number of words (word: all), or size of the BPE vocabulary (2000)."""
    min_count: int = 2
    """Words that occur less often become <unk>."""
    val_fraction: float = 0.1
    """Fraction of the text, after the training part, for validation."""
    test_fraction: float = 0.0
    """Fraction of the text, at its end, for `unrolled eval`."""
    val_tokens: int = 200_000
    """During training, validate on the first N tokens of the validation part; 0: on all of it."""

    def __post_init__(self) -> None:
        require_choice("level", self.level, LEVELS)
        require(self.min_count >= 1, "min_count", "at least 1", self.min_count)
        require(self.val_tokens >= 0, "val_tokens", "0 (all) or above", self.val_tokens)
        if self.vocab_size is not None:
            require(2 <= self.vocab_size <= 1 << 24, "vocab_size", "from 2 to 2^24", self.vocab_size)
            if self.level in ("char", "byte"):
                said = f"`vocab_size` is for words and BPE; at level {self.level} it has no meaning"
                raise ConfigurationError(said, setting="vocab_size")
        split_lengths(0, self.val_fraction, self.test_fraction)


@dataclass(frozen=True)
class ModelConfig:
    """Model."""

    cell: Annotated[str, arg(metavar="NAME", help=f"One of {CELL_NAMES}.")] = "lstm"
    hidden_size: Annotated[tuple[int, ...], arg(metavar="N...")] = (256,)
    """Units per layer; several numbers give one size per layer."""
    num_layers: Annotated[int | None, arg(metavar="N")] = None
    """Number of layers (2, or the number of sizes in `hidden_size`)."""
    embedding_size: Annotated[int | None, arg(metavar="N")] = None
    """Width of the embedding; 0: one-hot input (128; with `tie_weights` the last layer's size)."""
    dropout: float = 0.1
    """Dropout between layers and before the readout."""
    recurrent_dropout: float = 0.0
    """Dropout on the previous output inside the recurrence, with one mask per sequence."""
    zoneout: float = 0.0
    """Probability that a unit keeps its value for a step."""
    forget_bias: float = 1.0
    """Initial bias of the forget gate, in cells that have one."""
    tie_weights: bool = False
    """Use one matrix for the embedding and the readout."""
    vectors: Annotated[str | None, arg(metavar="FILE")] = None
    """Start the embedding from a text file of word vectors; needs `level=word` and their width as `embedding_size`."""
    fix_vectors: bool = False
    """Do not train the embedding that starts from `vectors`."""

    def __post_init__(self) -> None:
        require_cell(self.cell)
        require_widths(self.hidden_size, self.num_layers)
        width = self.embedding_size
        require(width is None or 0 <= width <= 65_536, "embedding_size", "from 0 to 65,536", width)
        require(abs(self.forget_bias) <= 1000, "forget_bias", "from -1000 to 1000", self.forget_bias)
        for name in ("dropout", "recurrent_dropout", "zoneout"):
            value = getattr(self, name)
            require(0 <= value < 1, name, "from 0 to below 1", value)
        require_vectors(self.vectors, self.fix_vectors)
        if self.vectors is not None and self.tie_weights:
            raise ConfigurationError(
                "`vectors` and `tie_weights` cannot be combined: they start the same matrix differently",
                setting=("vectors", "tie_weights"),
            )

    @property
    def widths(self) -> list[int]:
        """The hidden size of each layer."""
        return widths_of(self.hidden_size, self.num_layers, 2)

    @property
    def embedding_width(self) -> int:
        """The width of the embedding; 0 if the input is one-hot."""
        default = self.widths[-1] if self.tie_weights else 128
        return default if self.embedding_size is None else self.embedding_size

    def build(self, vocabulary_size: int) -> LanguageModel:
        from unrolled.models import LanguageModel

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
class StreamTraining(TrainingConfig):
    """Training."""

    batch_size: int = 32
    """Number of streams of text that all processes together read in parallel."""
    accumulate: int = 1
    """Number of parts in which a process reads its streams: needs less memory for the same gradients."""
    seq_length: int = 64
    """Steps of a stream per update."""
    backward_length: int = 0
    """Maximum number of steps that gradients flow back; 0: `seq_length`."""
    carry_state: bool = True
    """Carry the hidden state from one update to the next."""

    fixed: ClassVar[tuple[str, ...]] = (*TrainingConfig.fixed, "seq_length")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.seq_length >= 1, "seq_length", "at least 1", self.seq_length)
        require(self.backward_length >= 0, "backward_length", "0 or above", self.backward_length)
        require(self.backward_length < 1 << 31, "backward_length", "below 2^31", self.backward_length)


@dataclass(frozen=True)
class LanguageConfig:
    """All settings of a language model's run."""

    text: TextConfig = field(default_factory=TextConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: StreamTraining = field(default_factory=StreamTraining)


@dataclass(frozen=True)
class TextEvaluation:
    """The text to score a language model on."""

    data: Annotated[tuple[str, ...], arg(metavar="PATH...")] = ()
    """Files, folders, or - for standard input; none: the run's test part, or its validation part."""
    glob: Annotated[str | None, arg(metavar="PATTERN")] = None
    """The files to read in a folder, such as '*.py'."""


def text_name(data: Sequence[str]) -> str:
    """Return a short name of the text, for the names of runs: the name of the first file or folder."""
    if not data:
        return "stdlib"
    return "stdin" if data[0] == "-" else Path(data[0]).resolve().stem or "text"


class LanguageInfo(TaskInfo):
    """Train a recurrent language model on text.

    With no `data` it learns the source code of the running Python's standard library.
    """

    name, kind, counted = "lm", "language model", "tokens"
    Settings = LanguageConfig
    Evaluation = TextEvaluation
    inherited: ClassVar[dict[str, str]] = {
        "model": "fixed",
        **{f"model.{name}": "default" for name in ("dropout", "recurrent_dropout", "zoneout")},
        **{f"model.{name}": "new" for name in ("vectors", "fix_vectors")},
        "text.level": "fixed",
        **{f"text.{name}": "default" for name in ("vocab_size", "min_count")},
    }
    numbers = ("train", "validation", "test", "vocabulary", "parameters")

    config: LanguageConfig

    @classmethod
    def run_name(cls, settings: LanguageConfig) -> str:
        return f"{text_name(settings.text.data)}-{cell_label(settings.model.cell)}"

    def facts(self) -> list[tuple[str, str]]:
        config, counts = self.config, self.counts
        widths = "+".join(map(str, config.model.widths))
        return [
            ("text", ", ".join(config.text.data) or "the Python standard library's source"),
            (
                "tokens",
                f"{counts['train']:,} to train on, {counts['validation']:,} to validate, "
                f"{counts['test']:,} to test; {counts['vocabulary']:,} in the {config.text.level} vocabulary",
            ),
            (
                "model",
                f"{config.model.cell}, layers of {widths} units, {counts['parameters']:,} parameters, on {self.device}",
            ),
        ]

    @property
    def batches(self) -> str:
        return f"{self.config.training.batch_size} streams × {self.config.training.seq_length} steps"

    def uses(self) -> list[tuple[str, str]]:
        return [("sample", "unrolled sample {run}")]

    def describe(self, loss: float) -> str:
        if self.config.text.level in ("char", "byte"):
            return f"loss {loss:.4f} · {bits(loss):.3f} bits/{self.config.text.level}"
        return f"loss {loss:.4f} · perplexity {perplexity(loss):,.1f}"


class MinCharRNNInfo(LanguageInfo):
    """Train the lectures' 112-line model with the lectures' settings, on one file of text.

    It has its own training loop and cannot be resumed. Otherwise its runs are like those of any language model.
    """

    name = kind = "min-char-rnn"
    resumable = False
