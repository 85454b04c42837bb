"""The settings of a classifier's run, and the facts about it that need no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args

from tyro.conf import arg

from unrolled.cells import CELL_NAMES, cell_label, require_cell
from unrolled.data.labelled import Format
from unrolled.data.levels import LEVELS
from unrolled.data.lines import read_json
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.settings import from_json, require, require_choice
from unrolled.tasks.checks import (
    require_augmentation,
    require_rate,
    require_sound,
    require_vectors,
    require_widths,
    widths_of,
)
from unrolled.tasks.info import TaskInfo
from unrolled.tasks.language_settings import LanguageConfig, LanguageInfo
from unrolled.tasks.pairs import short_name
from unrolled.training import TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor

    from unrolled.models.classifier import Classifier
    from unrolled.training import Run

#: The classes, and what was noticed of the texts, in a run's directory.
CLASSES_FILE = "classes.json"
#: The level of recordings.
AUDIO = "audio"
POOLING_NAMES = ("last", "mean", "max", "attention", "concat")


@dataclass(frozen=True)
class LabelledConfig:
    """Texts."""

    data: Annotated[str, arg(metavar="PATH")] = ""
    """Labelled texts to train on: JSON lines, CSV or TSV, plain or gzip, or a folder with a sub-folder per class."""
    dev: Annotated[str, arg(metavar="PATH")] = ""
    """Labelled texts for validation; none: `val_fraction` of `data`."""
    val_fraction: float = 0.1
    """Fraction of the texts of each class, drawn by `seed`, for validation if no `dev` is given."""
    text_column: Annotated[str, arg(metavar="NAME")] = "text"
    """Column of the texts, or their key in JSON."""
    label_column: Annotated[str, arg(metavar="NAME")] = "label"
    """Column of the labels, or their key in JSON, where a list of strings gives a text several labels."""
    format: str = ""
    """Format of the files: jsonl, csv, tsv or folder (as their names say)."""
    level: str = "word"
    """word, bpe, char or byte; audio: `data` holds recordings, or features of them, in place of texts."""
    vocab_size: Annotated[int | None, arg(metavar="N")] = None
    """Maximum number of words (word: all), or size of the BPE vocabulary (2000)."""
    min_count: int = 2
    """Words that occur less often become <unk>."""
    lowercase: bool = False
    """Read the texts in lower case, as many files of word vectors need."""
    max_length: int = 400
    """Maximum number of tokens that are read of a text; 0: all."""
    keep: str = "start"
    """What is read of a longer text: its start, its end, or both, half of `max_length` from each."""

    def __post_init__(self) -> None:
        require_choice("format", self.format or "csv", get_args(Format)[1:])
        require_choice("level", self.level, (*LEVELS, AUDIO))
        require_choice("keep", self.keep, ("start", "end", "both"))
        require(self.min_count >= 1, "min_count", "at least 1", self.min_count)
        require(self.max_length >= 0, "max_length", "0 (all) or above", self.max_length)
        require(0 <= self.val_fraction < 1, "val_fraction", "from 0 to below 1", self.val_fraction)
        if self.vocab_size is not None:
            require(2 <= self.vocab_size <= 1 << 24, "vocab_size", "from 2 to 2^24", self.vocab_size)
            if self.level in ("char", "byte", AUDIO):
                said = f"`vocab_size` is for words and BPE; at level {self.level} it has no meaning"
                raise ConfigurationError(said, setting="vocab_size")


@dataclass(frozen=True)
class SoundConfig:
    """Recordings (level=audio)."""

    group: Annotated[str, arg(metavar="REGEX")] = ""
    """Hold out whole groups, such as speakers: what the part in parentheses finds in the names of the files,
    '_(.*)_' for jackson in 7_jackson_32.wav (each file by itself)."""
    features: str = "mel"
    """mel (logarithms of mel energies) or mfcc."""
    bins: int = 40
    """Mel energies, or MFCC, per frame of 10 ms."""
    rate: int = 0
    """Samples per second to which recordings are resampled; 0: the rate of most of them, at most 16,000."""
    normalise: str = "sequence"
    """Subtract the mean of the features and divide by their deviation: of each recording (sequence), which removes much
    of what differs between speakers and microphones, or of the training data (training)."""
    speeds: Annotated[tuple[float, ...], arg(metavar="FACTOR")] = ()
    """Train on copies of the recordings at these speeds, too, such as 0.9 1.1."""
    augment: bool = True
    """Change the frames at random in every pass, as the settings below say; `no_augment`: never."""
    tempo: float = 0.1
    """Stretch or shrink the frames in time, by up to this fraction."""
    time_masks: int = 1
    """Stretches of up to 20 frames, and a quarter of the recording, that are blanked out (SpecAugment)."""
    feature_masks: int = 1
    """Bands of up to a quarter of the features that are blanked out (SpecAugment)."""
    noise: float = 0.0
    """Deviation of noise that is added to the frames, as a fraction of theirs."""

    def __post_init__(self) -> None:
        require_choice("normalise", self.normalise, ("training", "sequence"))
        require_sound(self)
        require_augmentation(self)


@dataclass(frozen=True)
class ClassifierConfig:
    """Model."""

    cell: Annotated[str, arg(metavar="NAME", help=f"One of {CELL_NAMES}.")] = "lstm"
    hidden_size: Annotated[tuple[int, ...], arg(metavar="N...")] = (128,)
    """Units per layer and direction; several numbers give one size per layer."""
    num_layers: Annotated[int | None, arg(metavar="N")] = None
    """Number of layers (1, or the number of sizes in `hidden_size`)."""
    bidirectional: bool = True
    """Read the text in both directions; `no_bidirectional`: only forwards."""
    embedding_size: int = 100
    """Width of the embedding."""
    pooling: str = "max"
    """How the outputs of all steps become one vector: last, mean, max, attention or concat (last, mean and max)."""
    dropout: float = 0.5
    """Dropout on the input of the layers, between them, and on the pooled vector."""
    forget_bias: float = 1.0
    """Initial bias of the forget gate, in cells that have one."""
    vectors: Annotated[str | None, arg(metavar="FILE")] = None
    """Start the embedding from a text file of word vectors; needs `level=word` and their width as `embedding_size`."""
    fix_vectors: bool = False
    """Do not train the embedding that starts from `vectors`."""

    def __post_init__(self) -> None:
        require_cell(self.cell)
        require_widths(self.hidden_size, self.num_layers)
        require(1 <= self.embedding_size <= 65_536, "embedding_size", "from 1 to 65,536", self.embedding_size)
        require_choice("pooling", self.pooling, POOLING_NAMES)
        require(0 <= self.dropout < 1, "dropout", "from 0 to below 1", self.dropout)
        require(abs(self.forget_bias) <= 1000, "forget_bias", "from -1000 to 1000", self.forget_bias)
        require_vectors(self.vectors, self.fix_vectors)

    @property
    def widths(self) -> list[int]:
        """The hidden size of each layer."""
        return widths_of(self.hidden_size, self.num_layers, 1)

    def build(
        self, tokens: int, classes: int, multi: bool, class_weights: Tensor | None, embedded: bool = True
    ) -> Classifier:
        """Build the model for so many tokens, or, if inputs are not embedded, for frames of so many values."""
        from unrolled.models.classifier import Classifier

        return Classifier(
            tokens,
            classes,
            self.cell,
            embedding_size=self.embedding_size if embedded else 0,
            hidden_size=self.widths,
            bidirectional=self.bidirectional,
            pooling=self.pooling,
            dropout=self.dropout,
            forget_bias=self.forget_bias,
            multi=multi,
            class_weights=class_weights,
        )


@dataclass(frozen=True)
class ClassTraining(TrainingConfig):
    """Training."""

    batch_size: int = 32
    """Texts per update."""
    epochs: Annotated[float | None, arg(metavar="N")] = None
    """Stop after this many passes over the texts (5 if no limit is set)."""
    eval_every: int = 400
    """Updates between two validations, each of which writes a checkpoint."""
    sample_every: int = 400
    """Updates between two samples; 0: no samples."""
    word_dropout: float = 0.0
    """Probability that training leaves a token out of its text."""
    layer_decay: float = 1.0
    """Divide the learning rate by this from each layer to the one below it, from the readout down to the embedding."""
    unfreeze_every: int = 0
    """Train the readout alone at first, and one more layer, from the top, after each N updates; 0: all at once."""
    class_weights: str = "none"
    """none; balanced: errors count more for rare classes, so that all classes have the same weight in total."""

    default_epochs: ClassVar[float] = 5.0
    fixed: ClassVar[tuple[str, ...]] = (*TrainingConfig.fixed, "class_weights")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.word_dropout < 1, "word_dropout", "from 0 to below 1", self.word_dropout)
        require(1 <= self.layer_decay <= 1000, "layer_decay", "from 1 to 1000", self.layer_decay)
        require(self.unfreeze_every >= 0, "unfreeze_every", "0 (all at once) or above", self.unfreeze_every)
        require_choice("class_weights", self.class_weights, ("none", "balanced"))


@dataclass(frozen=True)
class ClassifyingConfig:
    """All settings of a classifier's run."""

    texts: LabelledConfig = field(default_factory=LabelledConfig)
    model: ClassifierConfig = field(default_factory=ClassifierConfig)
    training: ClassTraining = field(default_factory=ClassTraining)
    sounds: SoundConfig = field(default_factory=SoundConfig)


@dataclass(frozen=True)
class Classes:
    """The classes of a run.

    names: the classes of training. unseen: those of the dev part alone, which have the numbers after them.
    multi: whether a text may have several classes, or none. counts: how many texts of training have each class.
    notes: what was noticed of the texts. kind, width, rate: of recordings, whether they are sound or features, how many
        values a frame has, and the samples per second.
    """

    names: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    multi: bool = False
    counts: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    kind: str = ""
    width: int = 0
    rate: int = 0

    def __post_init__(self) -> None:
        require_rate(self.rate)
        require(all(count >= 1 for count in self.counts), "counts", "at least 1 each", list(self.counts))


@dataclass(frozen=True)
class ClassEvaluation:
    """The texts to score a classifier on."""

    data: Annotated[str, arg(metavar="PATH")] = ""
    """For classifiers: labelled texts, a file or a folder; none: the run's dev part."""
    text_column: Annotated[str, arg(metavar="NAME")] = ""
    """For classifiers: column of the texts, or their key in JSON (as in training)."""
    label_column: Annotated[str, arg(metavar="NAME")] = ""
    """For classifiers: column of the labels, or their key in JSON (as in training)."""
    format: str = ""
    """For classifiers: format of the file: jsonl, csv, tsv or folder (as its name says, or as in training)."""

    def __post_init__(self) -> None:
        require_choice("format", self.format or "csv", get_args(Format)[1:])
        if not self.data and (self.text_column or self.label_column or self.format):
            said = "`text_column`, `label_column` and `format` describe a file: name it with `data`"
            raise ConfigurationError(said, setting=("data", "text_column", "label_column", "format"))


#: What a run takes from the language model that it starts from; see `TaskInfo.inherited`.
_FROM_LANGUAGE_MODEL = {
    **{f"model.{name}": "fixed" for name in ("cell", "hidden_size", "num_layers", "bidirectional", "embedding_size")},
    "model.forget_bias": "fixed",
    **{f"texts.{name}": "fixed" for name in ("level", "vocab_size", "min_count")},
}


class ClassifyingInfo(TaskInfo):
    """Train a classifier: a class for every text, or several, from texts that are labelled."""

    name, kind = "classify", "classifier"
    Settings = ClassifyingConfig
    Evaluation = ClassEvaluation
    inherited: ClassVar[dict[str, str]] = {
        "model": "fixed",
        "model.dropout": "default",
        **{f"model.{name}": "new" for name in ("vectors", "fix_vectors")},
        "texts.level": "fixed",
        **{f"sounds.{name}": "default" for name in ("features", "bins", "rate", "normalise")},
        **{f"texts.{name}": "default" for name in ("text_column", "label_column", "format", "vocab_size", "min_count")},
        **{f"texts.{name}": "default" for name in ("lowercase", "max_length", "keep")},
    }
    unit, counted = "texts", "texts"
    numbers = ("train", "dev", "tokens", "vocabulary", "parameters")

    config: ClassifyingConfig

    @classmethod
    def settings_from(cls, run: Run) -> tuple[Any, Mapping[str, str]]:
        """A classifier can also start from a language model: from its vocabulary, its embedding and its layers."""
        if run.task != LanguageInfo.kind:
            return super().settings_from(run)
        stored: LanguageConfig = LanguageInfo.settings_of(run)
        if not stored.model.embedding_width:
            raise RunError(f"{run.path}: a language model with one-hot input has no embedding to start from")
        model = ClassifierConfig(
            cell=stored.model.cell,
            hidden_size=tuple(stored.model.widths),
            bidirectional=False,
            embedding_size=stored.model.embedding_width,
            forget_bias=stored.model.forget_bias,
        )
        texts = LabelledConfig(
            level=stored.text.level, vocab_size=stored.text.vocab_size, min_count=stored.text.min_count
        )
        return ClassifyingConfig(texts, model), _FROM_LANGUAGE_MODEL

    @classmethod
    def run_name(cls, settings: ClassifyingConfig) -> str:
        return f"{short_name(settings.texts.data or 'classes')}-{cell_label(settings.model.cell)}"

    def facts(self) -> list[tuple[str, str]]:
        model, counts, classes = self.config.model, self.counts, self.classes
        widths = "+".join(map(str, model.widths))
        directions = "read both ways" if model.bidirectional else "read forwards"
        shown = ", ".join(f"{name} {count:,}" for name, count in zip(classes.names[:8], classes.counts, strict=False))
        more = f", and {len(classes.names) - 8} more" if len(classes.names) > 8 else ""
        several = ", any number per text" if classes.multi else ""
        return [
            self._data(),
            ("classes", f"{len(classes.names)}{several}: {shown}{more}"),
            (
                "model",
                f"{model.cell}, layers of {widths} units {directions}, pooled by {model.pooling}; "
                f"{counts['parameters']:,} parameters, on {self.device}",
            ),
            *(("note", note) for note in classes.notes),
        ]

    @cached_property
    def classes(self) -> Classes:
        """The classes, and what was noticed when the run was created; RunError if they are missing or damaged."""
        path = self.run.path / CLASSES_FILE
        try:
            classes: Classes = from_json(Classes, read_json(path), str(path))
            if not classes.names or len(classes.names) != len(classes.counts):
                raise DataError(f"{path}: damaged, it lacks classes or their counts")
            if len({*classes.names, *classes.unseen}) < len(classes.names) + len(classes.unseen):
                raise DataError(f"{path}: damaged, a class is in it twice")
            if self.config.texts.level == AUDIO and (classes.multi or classes.width < 1):
                raise DataError(f"{path}: damaged, it does not describe recordings")
        except (DataError, RunError) as error:  # what is wrong in the file is no setting of the user's
            raise RunError(f"{error}") from error
        return classes

    def uses(self) -> list[tuple[str, str]]:
        audio = self.config.texts.level == AUDIO
        return [("classify", "unrolled classify {run} FILE" if audio else "unrolled classify {run} < TEXT")]

    def _data(self) -> tuple[str, str]:
        texts, counts, classes = self.config.texts, self.counts, self.classes
        if texts.level != AUDIO:
            return (
                "texts",
                f"{counts['train']:,} to train on, of {counts['tokens']:,} tokens; {counts['dev']:,} to validate; "
                f"{counts['vocabulary']:,} in the {texts.level} vocabulary",
            )
        features = "mel energies" if self.config.sounds.features == "mel" else "MFCC"
        what = f"{features} at {classes.rate:,} Hz" if classes.kind == "audio" else "features"
        return (
            "sounds",
            f"{counts['train']:,} to train on, of {counts['tokens']:,} frames; {counts['dev']:,} to validate; "
            f"{classes.width} {what}",
        )
