"""The settings of a transcriber's run, and the facts about it that need no model."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import arg

from unrolled.cells import CELL_NAMES, cell_label, require_cell
from unrolled.data.lines import read_json
from unrolled.errors import DataError, RunError
from unrolled.settings import from_json, require, require_choice
from unrolled.tasks.checks import refuse_unused, require_augmentation, require_rate, require_sound
from unrolled.tasks.info import TaskInfo
from unrolled.tasks.pairs import short_name
from unrolled.training import TrainingConfig

if TYPE_CHECKING:
    from unrolled.models.transcriber import Transcriber

#: What was noticed of the data, in a run's directory.
SIGNAL_FILE = "signal.json"


@dataclass(frozen=True)
class TranscriptsConfig:
    """Recordings or pictures, and their transcripts."""

    data: Annotated[str, arg(metavar="FILE|FOLDER")] = ""
    """Recordings, pictures of lines, or features: a folder with a transcript next to each file (a.wav and a.txt, a.png
    and a.gt.txt), a list (JSON lines, CSV or TSV) of files and transcripts, or an archive (.npz) of features."""
    dev: Annotated[str, arg(metavar="FILE|FOLDER")] = ""
    """Data for validation; none: about `val_fraction` of `data`."""
    val_fraction: float = 0.1
    """Fraction of the transcripts that is held out if no `dev` is given."""
    group: Annotated[str, arg(metavar="REGEX")] = ""
    """Hold out whole groups, such as speakers or books: what the part in parentheses finds in the names of the files,
    '_(.*)_' for jackson in 7_jackson_32.wav (each file by itself)."""
    file_column: Annotated[str, arg(metavar="NAME")] = ""
    """Column or key of the files in a list (file, path, audio, image and other usual names)."""
    text_column: Annotated[str, arg(metavar="NAME")] = ""
    """Column or key of the transcripts in a list (text, transcript, sentence and other usual names)."""
    features: str = "mel"
    """Features of recordings: mel (logarithms of mel energies) or mfcc."""
    bins: int = 40
    """Mel energies, or MFCC, per frame of 10 ms."""
    rate: int = 0
    """Samples per second to which recordings are resampled; 0: the rate of most of them, at most 16,000."""
    speeds: Annotated[tuple[float, ...], arg(metavar="FACTOR")] = ()
    """Train on copies of the recordings at these speeds, too, such as 0.9 1.1."""
    height: int = 40
    """Height to which pictures are scaled."""
    normalise: str = ""
    """Subtract the mean of features and divide by their deviation: of each sequence, or of the training data
    (sequence; training for models that only read forwards, so that they can read sound as it comes)."""
    render: Annotated[str, arg(metavar="FILE")] = ""
    """Draw the lines of this text in fonts, and train on these pictures, in addition to `data` if it is given."""
    copies: int = 10
    """Pictures that are drawn of each line of `render`, each in another font."""
    fonts: Annotated[tuple[str, ...], arg(metavar="FILE")] = ()
    """Font files for `render` (all installed fonts)."""

    def __post_init__(self) -> None:
        require_sound(self)
        require_choice("normalise", self.normalise or "sequence", ("sequence", "training"))
        require(0 <= self.val_fraction < 1, "val_fraction", "from 0 to below 1", self.val_fraction)
        require(8 <= self.height <= 1024, "height", "from 8 to 1,024", self.height)
        require(1 <= self.copies <= 10_000, "copies", "from 1 to 10,000", self.copies)


@dataclass(frozen=True)
class TranscriberConfig:
    """Model."""

    cell: Annotated[str, arg(metavar="NAME", help=f"One of {CELL_NAMES}.")] = "lstm"
    front: str = ""
    """What comes before the layers: join (`stride` frames or columns make a step) or convolve (two layers of
    convolution over a picture, 4 columns a step) (convolve for pictures if the model reads both ways)."""
    stride: int = 3
    """Frames or columns that make a step in `front=join`."""
    hidden_size: int = 256
    """Units per layer and direction."""
    num_layers: int = 3
    """Number of layers."""
    bidirectional: bool = True
    """Read in both directions; `no_bidirectional`: only forwards, so that sound can be transcribed as it comes."""
    dropout: float = 0.3
    """Dropout on the input of the layers, between them, and on their output."""
    forget_bias: float = 1.0
    """Initial bias of the forget gate, in cells that have one."""

    def __post_init__(self) -> None:
        require_cell(self.cell)
        require_choice("front", self.front or "join", ("join", "convolve"))
        for name, high in (("stride", 100), ("hidden_size", 65_536), ("num_layers", 1000)):
            value = getattr(self, name)
            require(1 <= value <= high, name, f"from 1 to {high:,}", value)
        require(0 <= self.dropout < 1, "dropout", "from 0 to below 1", self.dropout)
        require(abs(self.forget_bias) <= 1000, "forget_bias", "from -1000 to 1000", self.forget_bias)

    def front_for(self, kind: str) -> str:
        """Return what comes before the layers for one kind of data."""
        return self.front or ("convolve" if kind == "pictures" and self.bidirectional else "join")

    def build(self, input_size: int, labels: int, kind: str) -> Transcriber:
        from unrolled.models.transcriber import Transcriber

        return Transcriber(
            input_size,
            labels,
            self.cell,
            front=self.front_for(kind),
            stride=self.stride,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
            forget_bias=self.forget_bias,
        )


@dataclass(frozen=True)
class TranscriberTraining(TrainingConfig):
    """Training."""

    batch_size: int = 16
    """Recordings or pictures per update."""
    learning_rate: float = 2e-3
    """Peak learning rate."""
    epochs: Annotated[float | None, arg(metavar="N")] = None
    """Stop after this many passes over the data (30 if no limit is set)."""
    eval_every: int = 200
    """Updates between two validations, each of which writes a checkpoint."""
    sample_every: int = 200
    """Updates between two samples; 0: no samples."""
    clip_norm: float = 0.5
    """Rescale gradients whose norm is above this; 0: never."""
    augment: bool = True
    """Change the data at random in every pass, as the settings below say; `no_augment`: never."""
    tempo: float = 0.1
    """Stretch or shrink sound and features in time, by up to this fraction."""
    time_masks: int = 2
    """Stretches of up to 20 frames that are blanked out in sound and features (SpecAugment)."""
    feature_masks: int = 1
    """Bands of up to a quarter of the features that are blanked out in sound and features (SpecAugment)."""
    noise: float = 0.0
    """Deviation of noise that is added to sound and features, as a fraction of theirs."""
    distort: bool = True
    """Shear, stretch and blur pictures, and add noise to them."""

    default_epochs: ClassVar[float] = 30.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_augmentation(self)


@dataclass(frozen=True)
class TranscribingConfig:
    """All settings of a transcriber's run."""

    transcripts: TranscriptsConfig = field(default_factory=TranscriptsConfig)
    model: TranscriberConfig = field(default_factory=TranscriberConfig)
    training: TranscriberTraining = field(default_factory=TranscriberTraining)


@dataclass(frozen=True)
class Signal:
    """What was noticed of the data in training: their kind, how wide a frame is, and the rate of recordings."""

    kind: str = "features"
    width: int = 1
    rate: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_choice("kind", self.kind, ("audio", "pictures", "features"))
        require(self.width >= 1, "width", "at least 1", self.width)
        require_rate(self.rate)


@dataclass(frozen=True)
class DecodingConfig:
    """How scores of steps become a text: the best path, or a prefix beam with a language model."""

    beam: int = 0
    """For transcribers: hypotheses of the prefix beam; 0: the best path (16 with `lm` or `lexicon`)."""
    lm: Annotated[str, arg(metavar="RUN|FILE")] = ""
    """For transcribers: a language model for the beam: a run of `train lm` on characters, or a file of KenLM."""
    lm_weight: float = 0.5
    """For transcribers: weight of the language model's log-probabilities."""
    length_bonus: float = 1.0
    """For transcribers: what each character adds to the score of a text, in nats, with a language model."""
    lexicon: Annotated[str, arg(metavar="FILE")] = ""
    """For transcribers: a file of words; only these are written."""

    def __post_init__(self) -> None:
        require(0 <= self.beam <= 10_000, "beam", "from 0 to 10,000", self.beam)
        require(0 <= self.lm_weight <= 100, "lm_weight", "from 0 to 100", self.lm_weight)
        require(abs(self.length_bonus) <= 100, "length_bonus", "from -100 to 100", self.length_bonus)
        if not self.lm:
            why = "is about a language model: name one with `lm`"
            refuse_unused(self, ("lm_weight", "length_bonus"), why, ["lm"])

    @property
    def width(self) -> int:
        """The hypotheses of the beam; 0: the best path."""
        return self.beam or (16 if self.lm or self.lexicon else 0)


@dataclass(frozen=True)
class TranscriptEvaluation(DecodingConfig):
    """The data to score a transcriber on, and how it decodes."""

    data: Annotated[str, arg(metavar="FILE|FOLDER")] = ""
    """For transcribers: recordings, pictures or features with transcripts; none: what the run held out."""


class TranscribingInfo(TaskInfo):
    """Train a transcriber: recordings, or pictures of lines, to text, by connectionist temporal classification."""

    name, kind = "transcribe", "transcriber"
    Settings = TranscribingConfig
    Evaluation = TranscriptEvaluation
    inherited: ClassVar[dict[str, str]] = {
        "model": "fixed",
        "model.dropout": "default",
        **{f"transcripts.{name}": "default" for name in ("features", "bins", "rate", "height", "normalise")},
    }
    unit, counted = "sequences", "characters"
    validated = "character error rate"
    numbers = ("train", "dev", "labels", "frames", "parameters")

    config: TranscribingConfig

    @classmethod
    def run_name(cls, settings: TranscribingConfig) -> str:
        given = settings.transcripts
        return f"{short_name(given.data or given.render or 'transcripts')}-{cell_label(settings.model.cell)}"

    def facts(self) -> list[tuple[str, str]]:
        model, counts, signal = self.config.model, self.counts, self.signal
        what = {"audio": "recordings", "pictures": "pictures of lines", "features": "sequences of features"}[
            signal.kind
        ]
        front = model.front_for(signal.kind)
        step = f"{model.stride} frames a step" if front == "join" else "convolution, 4 columns a step"
        return [
            ("data", f"{counts['train']:,} {what} to train on, {counts['dev']:,} to validate"),
            ("input", f"{self._input()}; {counts['frames']:,} frames to train on"),
            ("labels", f"{counts['labels'] - 1:,} characters and the blank"),
            (
                "model",
                f"{step}, {model.cell}, {model.num_layers} × {model.hidden_size} units "
                f"{'read both ways' if model.bidirectional else 'read forwards'}; "
                f"{counts['parameters']:,} parameters, on {self.device}",
            ),
            *(("note", note) for note in signal.notes),
        ]

    def _input(self) -> str:
        signal, config = self.signal, self.config.transcripts
        if signal.kind == "audio":
            name = "mel energies" if config.features == "mel" else "MFCC"
            return f"{signal.width} {name} of sound at {signal.rate:,} Hz"
        return f"pictures {signal.width} high" if signal.kind == "pictures" else f"{signal.width} features"

    @cached_property
    def signal(self) -> Signal:
        """What was noticed of the data when the run was created; RunError if it is missing or damaged."""
        path = self.run.path / SIGNAL_FILE
        try:
            signal: Signal = from_json(Signal, read_json(path), str(path))
        except (DataError, RunError) as error:  # what is wrong in the file is no setting of the user's
            raise RunError(f"{error}") from error
        return signal

    @property
    def normalises_by_training(self) -> bool:
        """Whether features are normalised by the mean and deviation of the training data, not of each sequence."""
        asked = self.config.transcripts.normalise
        return asked == "training" or (not asked and not self.config.model.bidirectional)

    def describe_validation(self, value: float) -> str:
        return f"character error rate {value:.2%}"

    def uses(self) -> list[tuple[str, str]]:
        return [("use", "unrolled transcribe {run} FILE")]
