"""The settings and facts of the tasks that learn from sentence pairs: translation and smart reply."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from tyro.conf import Suppress, arg

from unrolled.cells import CELL_NAMES, cell_label, require_cell
from unrolled.data.levels import LEVELS
from unrolled.errors import ConfigurationError
from unrolled.metrics import perplexity
from unrolled.settings import require, require_choice
from unrolled.tasks.info import TaskInfo, without_streams
from unrolled.training import TrainingConfig

if TYPE_CHECKING:
    from unrolled.models import EncoderDecoder

#: The checkpoints of a run that can be loaded; average: the mean of the weights at the last validations.
Which = Literal["best", "last", "average"]


@dataclass(frozen=True)
class PairsConfig:
    """Sentence pairs."""

    default_size: ClassVar[int] = 4000

    source: Annotated[str, arg(metavar="FILE")] = ""
    """Sentences to translate, one per line; plain text or gzip."""
    target: Annotated[str, arg(metavar="FILE")] = ""
    """Their translations, line by line."""
    val_source: Annotated[str, arg(metavar="FILE")] = ""
    """Sentences for validation; none: the last `val_fraction` of the pairs."""
    val_target: Annotated[str, arg(metavar="FILE")] = ""
    """Their translations."""
    val_fraction: float = 0.02
    """Fraction of the pairs for validation if no `val_source` is given; 0: none."""
    level: str = "bpe"
    """bpe, word, char or byte."""
    vocab_size: Annotated[int | None, arg(metavar="N")] = None
    """Size of the BPE vocabulary with the end of a sentence (4000), or maximum number of words (word: all)."""
    min_count: int = 2
    """Words that occur less often become <unk>."""
    separate: bool = False
    """Use a vocabulary and an embedding for each side instead of one for both."""
    max_length: int = 100
    """Maximum number of tokens in a sentence; pairs with a longer one are not used for training."""

    def __post_init__(self) -> None:
        require_choice("level", self.level, LEVELS)
        require(self.min_count >= 1, "min_count", "at least 1", self.min_count)
        require(self.max_length >= 1, "max_length", "at least 1", self.max_length)
        require(0 <= self.val_fraction < 1, "val_fraction", "from 0 to below 1", self.val_fraction)
        if self.vocab_size is not None:
            require(2 <= self.vocab_size <= 1 << 24, "vocab_size", "from 2 to 2^24", self.vocab_size)
            if self.level in ("char", "byte"):
                said = f"`vocab_size` is for words and BPE; at level {self.level} it has no meaning"
                raise ConfigurationError(said, setting="vocab_size")
            if self.level == "bpe":
                require(self.vocab_size > 257, "vocab_size", "above 257 (the bytes and the end)", self.vocab_size)
        if bool(self.val_source) != bool(self.val_target):
            said = "`val_source` and `val_target` belong together: give both or none"
            raise ConfigurationError(said, setting=("val_source", "val_target"))

    @property
    def size(self) -> int | None:
        """The maximum size of the vocabulary, without the end of a sentence."""
        if self.level != "bpe":
            return self.vocab_size
        # A product with a round number of columns is a third faster than one with a column more.
        return (self.vocab_size or self.default_size) - 1


@dataclass(frozen=True)
class ModelConfig:
    """Model."""

    cell: Annotated[str, arg(metavar="NAME", help=f"The encoder's cell, one of {CELL_NAMES}.")] = "gru"
    decoder_cell: Annotated[str | None, arg(metavar="NAME")] = None
    """The decoder's cell (same as `cell`)."""
    hidden_size: int = 256
    """Units per layer, in each direction of the encoder and in the decoder."""
    num_layers: int = 1
    """Number of layers of the encoder, and of the decoder."""
    embedding_size: int = 256
    """Width of the embeddings."""
    attention: bool = True
    """Let the decoder attend to the whole source (Bahdanau). Without attention, the decoder starts from the encoder's
    last states (Sutskever)."""
    bidirectional: bool | None = None
    """Read the source in both directions; `no_bidirectional`: in one (both with `attention`, one without it)."""
    reverse: bool = False
    """Read the source's words from the last to the first."""
    dropout: float = 0.3
    """Dropout on embeddings, between layers, on the attended memory, and before the readout."""
    forget_bias: float = 1.0
    """Initial bias of the forget gate, in cells that have one."""
    scale_embeddings: bool = True
    """Multiply embeddings by the square root of their width. They start as small as the readout's weights, and unscaled
    they have little effect on the cells at first."""

    def __post_init__(self) -> None:
        require_cell(self.cell)
        if self.decoder_cell is not None:
            require_cell(self.decoder_cell)
        for name, high in (("hidden_size", 65_536), ("embedding_size", 65_536), ("num_layers", 1000)):
            value = getattr(self, name)
            require(1 <= value <= high, name, f"from 1 to {high:,}", value)
        require(0 <= self.dropout < 1, "dropout", "from 0 to below 1", self.dropout)
        require(abs(self.forget_bias) <= 1000, "forget_bias", "from -1000 to 1000", self.forget_bias)

    @property
    def both_ways(self) -> bool:
        """Whether the source is read in both directions."""
        return self.attention if self.bidirectional is None else self.bidirectional

    def build(self, source_size: int, target_size: int, shared: bool) -> EncoderDecoder:
        from unrolled.models import EncoderDecoder

        return EncoderDecoder(
            source_size,
            target_size,
            self.cell,
            decoder_cell=self.decoder_cell,
            embedding_size=self.embedding_size,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.both_ways,
            reverse=self.reverse,
            attention=self.attention,
            dropout=self.dropout,
            shared=shared,
            forget_bias=self.forget_bias,
            scale_embeddings=self.scale_embeddings,
        )


@dataclass(frozen=True)
class SentenceTraining(TrainingConfig):
    """Training."""

    batch_size: int = 64
    """Sentence pairs per update."""
    learning_rate: float = 2e-3
    """Peak learning rate."""
    eval_every: int = 450
    """Updates between two validations, each of which writes a checkpoint."""
    sample_every: int = 450
    """Updates between two samples; 0: no samples."""
    label_smoothing: float = 0.1
    """Fraction of the probability that training spreads over all tokens (Szegedy et al. 2016)."""
    scheduled_sampling: float = 0.0
    """Probability that the decoder reads its own prediction instead of the reference's word in training."""
    average: int = 3
    """Keep the weights of this many last validations for the checkpoint `average`; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("label_smoothing", "scheduled_sampling"):
            require(0 <= getattr(self, name) < 1, name, "from 0 to below 1", getattr(self, name))
        require(self.average >= 0, "average", "0 (none) or above", self.average)


@dataclass(frozen=True)
class TranslationConfig:
    """All settings of a translation run."""

    pairs: PairsConfig = field(default_factory=PairsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: SentenceTraining = field(default_factory=SentenceTraining)


@dataclass(frozen=True)
class MailsConfig(PairsConfig):
    """Mails and replies."""

    default_size: ClassVar[int] = 600

    pairs: Annotated[str, arg(metavar="FILE")] = ""
    """Lines of a message, a tab and a reply, or of JSON with "message" and "reply"; none: 6,000 synthetic pairs."""
    vocab_size: Annotated[int | None, arg(metavar="N")] = None
    """Size of the BPE vocabulary with the end of a sentence (600), or maximum number of words (word: all)."""
    source: Suppress[str] = ""
    target: Suppress[str] = ""
    val_source: Suppress[str] = ""
    val_target: Suppress[str] = ""
    val_fraction: float = 0.05
    """Fraction of the pairs, at their end, for validation; 0: none."""


@dataclass(frozen=True)
class ReplyConfig(TranslationConfig):
    """All settings of a reply run."""

    pairs: MailsConfig = field(default_factory=MailsConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig(hidden_size=128, embedding_size=64, dropout=0.1))
    training: SentenceTraining = field(
        default_factory=lambda: SentenceTraining(learning_rate=5e-3, eval_every=100, sample_every=100)
    )


@dataclass(frozen=True)
class PairsEvaluation:
    """The text to score a translator on, and the search to score it with."""

    source: Annotated[str, arg(metavar="FILE")] = ""
    """For translators: sentences to translate, one per line."""
    target: Annotated[str, arg(metavar="FILE")] = ""
    """For translators: their reference translations."""
    beam: int = 5
    """For translators: hypotheses kept at each step; 1: greedy search."""
    length_penalty: float = 1.0
    """For translators: exponent of the length that a log-probability is divided by."""
    resamples: int = 1000
    """For translators: bootstrap resamples of the text for confidence intervals; 0: none."""


def short_name(path: str | Path) -> str:
    """Return a short name of a file of pairs, for the names of runs."""
    return "stdin" if str(path) == "-" else Path(path).resolve().name.split(".")[0] or "pairs"


class TranslationInfo(TaskInfo):
    """Train an encoder and a decoder to translate, from two files with corresponding lines."""

    name, kind = "translate", "translation"
    Settings: ClassVar[type] = TranslationConfig
    Evaluation = PairsEvaluation
    inherited: ClassVar[dict[str, str]] = {
        "model": "fixed",
        "model.dropout": "default",
        **{f"pairs.{name}": "fixed" for name in ("level", "separate")},
        **{f"pairs.{name}": "default" for name in ("vocab_size", "min_count")},
    }
    checkpoints = get_args(Which)
    unit, counted = "pairs", "tokens"
    numbers = ("train", "validation", "source", "target", "parameters")

    config: TranslationConfig

    @classmethod
    def run_name(cls, settings: TranslationConfig) -> str:
        return f"{short_name(settings.pairs.target or 'pairs')}-{cell_label(settings.model.cell)}"

    @classmethod
    def upgrade(cls, config: dict[str, Any]) -> dict[str, Any]:
        config = without_streams(config)
        if isinstance(config.get("model"), dict):  # runs of November 2026 do not have this setting
            config = {**config, "model": {"scale_embeddings": False, **config["model"]}}
        return config

    def facts(self) -> list[tuple[str, str]]:
        config, counts = self.config, self.counts
        sizes = f"{counts['source']:,} and " if config.pairs.separate else ""
        sizes += f"{counts['target']:,}"
        model = config.model
        decoder = "" if model.decoder_cell in (None, model.cell) else f" and {model.decoder_cell}"
        joined = "with attention" if model.attention else "joined by a fixed vector"
        read = " read both ways" if model.both_ways else ""
        read += ", source reversed" if model.reverse else ""
        return [
            ("pairs", f"{counts['train']:,} to train on, {counts['validation']:,} to validate"),
            (
                "tokens",
                f"{sizes} in the {config.pairs.level} {'vocabularies' if config.pairs.separate else 'vocabulary'}",
            ),
            (
                "model",
                f"{model.cell}{decoder}, {model.num_layers} × {model.hidden_size} units{read}, {joined}; "
                f"{counts['parameters']:,} parameters, on {self.device}",
            ),
        ]

    def describe(self, loss: float) -> str:
        return f"loss {loss:.4f} · perplexity {perplexity(loss):,.2f}"

    def uses(self) -> list[tuple[str, str]]:
        return [("use", "unrolled translate {run} < SENTENCES")]


class ReplyInfo(TranslationInfo):
    """Train an encoder and a decoder to answer short mails.

    With no `pairs` it learns 6,000 synthetic mails and answers (`unrolled data mails` prints them).
    """

    name = kind = "reply"
    Settings = ReplyConfig

    @classmethod
    def run_name(cls, settings: ReplyConfig) -> str:  # type: ignore[override]
        return f"{short_name(settings.pairs.pairs or 'mails')}-{cell_label(settings.model.cell)}"

    def uses(self) -> list[tuple[str, str]]:
        return [("use", 'unrolled reply {run} "Lets do Monday."')]
