"""The settings of a captioner's run, and the facts about it that need no model."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import arg

from unrolled.cells import CELL_NAMES, cell_label, require_cell
from unrolled.data.lines import read_json
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.metrics import perplexity
from unrolled.settings import from_json, require, require_choice
from unrolled.tasks.checks import require_vectors
from unrolled.tasks.info import TaskInfo
from unrolled.tasks.pairs import short_name
from unrolled.training import TrainingConfig

if TYPE_CHECKING:
    from unrolled.models.captioner import Captioner

#: What was noticed of the pictures, in a run's directory.
NOTICED_FILE = "noticed.json"
#: The names of the decoders, as in `unrolled.models.captioners.CAPTIONERS`, with the default cell of each.
DEFAULT_CELLS = {
    "plain": "elman",
    "karpathy-li": "relu",
    "show-and-tell": "lstm",
    "lrcn": "lstm",
    "m-rnn": "relu",
    "chen-zitnick": "elman",
    "show-attend-tell": "lstm",
}

#: The decoders whose training adds penalties to the cross-entropy.
PENALISED = ("chen-zitnick", "show-attend-tell")


@dataclass(frozen=True)
class CaptionsConfig:
    """Pictures and captions."""

    data: Annotated[str, arg(metavar="FILE|FOLDER")] = ""
    """Captions: a Flickr token file, COCO's JSON, JSON lines, CSV or TSV, or a folder of pictures with a text
    file each."""
    images: Annotated[str, arg(metavar="FOLDER")] = ""
    """Folder of the pictures (default: that of `data`, or `images` in it)."""
    file_column: Annotated[str, arg(metavar="NAME")] = ""
    """Column or key of the pictures' files, if it has none of the usual names (file, image, filename ...)."""
    text_column: Annotated[str, arg(metavar="NAME")] = ""
    """Column or key of the captions, if it has none of the usual names (caption, text, sentence ...)."""
    dev: Annotated[str, arg(metavar="FILE|FOLDER")] = ""
    """Captions of other pictures for validation; none: those of `dev_names`, or about `val_fraction` of
    `data`."""
    train_names: Annotated[str, arg(metavar="FILE")] = ""
    """Train only on the pictures of this list, one name per line."""
    dev_names: Annotated[str, arg(metavar="FILE")] = ""
    """Validate on the pictures of this list."""
    val_fraction: float = 0.1
    """Fraction of the pictures that is held out otherwise."""
    encoder: Annotated[str, arg(metavar="NAME")] = "lite0"
    """Image encoder: lite0, torchvision:NAME, timm:NAME."""
    features: Annotated[str, arg(metavar="FILE")] = ""
    """Features of the pictures instead of an encoder: an .npz archive with `names`, `vectors` and maybe `grids`."""
    min_count: int = 4
    """Words that occur less often become <unk>, which is never written."""
    max_length: int = 30
    """Maximum number of words that is read of a caption, and that is written."""
    vectors: Annotated[str | None, arg(metavar="FILE")] = None
    """Start the embedding from a text file of word vectors, of the width `embedding_size`."""
    fix_vectors: bool = False
    """Do not train the embedding that starts from `vectors`."""

    def __post_init__(self) -> None:
        require(0 <= self.val_fraction < 1, "val_fraction", "from 0 to below 1", self.val_fraction)
        require(self.min_count >= 1, "min_count", "at least 1", self.min_count)
        require(1 <= self.max_length <= 1000, "max_length", "from 1 to 1,000", self.max_length)
        require_vectors(self.vectors, self.fix_vectors)
        if self.dev and self.dev_names:
            said = "`dev` and `dev_names` exclude each other: both say what to validate on"
            raise ConfigurationError(said, setting=("dev", "dev_names"))


@dataclass(frozen=True)
class CaptionerConfig:
    """Model."""

    model: Annotated[str, arg(metavar="NAME", help=f"The decoder: {', '.join(DEFAULT_CELLS)}.")] = "show-attend-tell"
    cell: Annotated[str | None, arg(metavar="NAME", help=f"One of {CELL_NAMES} (default: the paper's).")] = None
    hidden_size: int = 512
    """Units per layer."""
    num_layers: int = 1
    """Number of layers; lrcn has at least 2."""
    embedding_size: int = 256
    """Width of the embedding of words, and of the picture's where the decoder reads it as a word."""
    dropout: float = 0.5
    """Dropout on words and pictures, between layers, and before the readout."""
    forget_bias: float = 1.0
    """Initial bias of the forget gate, in cells that have one."""

    def __post_init__(self) -> None:
        require_choice("model", self.model, tuple(DEFAULT_CELLS))
        if self.cell is not None:
            require_cell(self.cell)
        for name, high in (("hidden_size", 65_536), ("embedding_size", 65_536), ("num_layers", 1000)):
            value = getattr(self, name)
            require(1 <= value <= high, name, f"from 1 to {high:,}", value)
        require(0 <= self.dropout < 1, "dropout", "from 0 to below 1", self.dropout)
        require(abs(self.forget_bias) <= 1000, "forget_bias", "from -1000 to 1000", self.forget_bias)

    @property
    def used_cell(self) -> str:
        """The name of the cell: the given one, or that of the decoder's paper."""
        return self.cell or DEFAULT_CELLS[self.model]

    @property
    def depth(self) -> int:
        """The number of layers."""
        return max(2, self.num_layers) if self.model == "lrcn" else self.num_layers

    @property
    def reads_grid(self) -> bool:
        """Whether the decoder attends to a grid of features."""
        return self.model == "show-attend-tell"

    def build(self, vocabulary_size: int, vector_size: int, grid_size: int, unknown: int | None) -> Captioner:
        from unrolled.models.captioners import CAPTIONERS

        return CAPTIONERS[self.model](
            vocabulary_size,
            vector_size,
            grid_size,
            self.used_cell,
            unknown=unknown,
            embedding_size=self.embedding_size,
            hidden_size=self.hidden_size,
            num_layers=self.depth,
            dropout=self.dropout,
            forget_bias=self.forget_bias,
        )


@dataclass(frozen=True)
class CaptionTraining(TrainingConfig):
    """Training."""

    batch_size: int = 20
    """Pictures per update."""
    captions_per_picture: Annotated[int, arg(metavar="N")] = 5
    """Captions of a picture in a batch; self-critical: captions that are sampled for it."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    epochs: Annotated[float | None, arg(metavar="N")] = None
    """Stop after this many passes over the pictures (15 if no limit is set)."""
    eval_every: int = 300
    """Updates between two validations, each of which writes a checkpoint."""
    sample_every: int = 300
    """Updates between two samples; 0: no samples."""
    label_smoothing: float = 0.1
    """Fraction of the probability that training spreads over all words (Szegedy et al. 2016)."""
    scheduled_sampling: float = 0.0
    """Probability that the decoder reads its own prediction instead of the reference's word in training."""
    weight_penalty: float = 0.0
    """Factor of the sum of squared weights in the cost, as in m-RNN."""
    self_critical: bool = False
    """Raise the CIDEr-D of sampled captions (Rennie et al. 2017); for a run that starts from a trained one, by
    `init_from`."""
    baseline: str = "samples"
    """What self-critical learning compares a sampled caption with: "greedy", the greedy caption, as in the paper, or
    "samples", the other captions that are sampled for the picture (Luo 2020)."""

    default_epochs: ClassVar[float] = 15.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            1 <= self.captions_per_picture <= 1000, "captions_per_picture", "from 1 to 1,000", self.captions_per_picture
        )
        for name in ("label_smoothing", "scheduled_sampling"):
            require(0 <= getattr(self, name) < 1, name, "from 0 to below 1", getattr(self, name))
        require(0 <= self.weight_penalty < 1000, "weight_penalty", "from 0 to below 1000", self.weight_penalty)
        require_choice("baseline", self.baseline, ("greedy", "samples"))
        if self.self_critical and self.baseline == "samples" and self.captions_per_picture < 2:
            said = "`baseline=samples` needs at least 2 `captions_per_picture`; or choose `baseline=greedy`"
            raise ConfigurationError(said, setting=("baseline", "captions_per_picture"))
        if self.self_critical and self.scheduled_sampling:
            said = "`scheduled_sampling` has no meaning with `self_critical`, which reads its own words anyway"
            raise ConfigurationError(said, setting=("scheduled_sampling", "self_critical"))


@dataclass(frozen=True)
class CaptioningConfig:
    """All settings of a captioner's run."""

    captions: CaptionsConfig = field(default_factory=CaptionsConfig)
    model: CaptionerConfig = field(default_factory=CaptionerConfig)
    training: CaptionTraining = field(default_factory=CaptionTraining)


@dataclass(frozen=True)
class CaptionSearch:
    """How captions are written."""

    beam: int = 3
    """For captioners: hypotheses kept at each step; 1: greedy search (argmax)."""
    length_penalty: float = 0.7
    """For captioners: exponent of the length that a log-probability is divided by."""


@dataclass(frozen=True)
class CaptionEvaluation(CaptionSearch):
    """The pictures to score a captioner on, and the search to score it with."""

    data: Annotated[str, arg(metavar="FILE|FOLDER")] = ""
    """For captioners: captioned pictures; none: those that the run held out."""
    images: Annotated[str, arg(metavar="FOLDER")] = ""
    """For captioners: folder of the pictures of `data`."""
    names: Annotated[str, arg(metavar="FILE")] = ""
    """For captioners: score only the pictures of this list, one name per line."""
    ensemble: Annotated[tuple[str, ...], arg(metavar="RUN...")] = ()
    """For captioners: more runs, whose probabilities are averaged with this one's."""
    baselines: bool = True
    """For captioners: also score the baselines: a constant caption, nearest neighbours, and the template."""
    resamples: int = 1000
    """For captioners: bootstrap resamples of the pictures for confidence intervals; 0: none."""


@dataclass(frozen=True)
class Noticed:
    """What was noticed of the pictures in training, and what encodes new ones.

    encoder: the name of the image encoder, empty if features were given. signature: what identifies the features.
    vector_size, positions, grid_size: the widths of the features.
    """

    encoder: str = "lite0"
    signature: str = ""
    vector_size: int = 1
    positions: int = 0
    grid_size: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.vector_size >= 1, "vector_size", "at least 1", self.vector_size)


class CaptioningInfo(TaskInfo):
    """Train a captioner: an image encoder's features to a sentence, by one of seven decoders.

    The pictures are encoded once; the features are kept in the cache for all runs.
    """

    name, kind = "caption", "captioner"
    Settings = CaptioningConfig
    Evaluation = CaptionEvaluation
    inherited: ClassVar[dict[str, str]] = {
        "model": "fixed",
        "model.dropout": "default",
        **{f"captions.{name}": "default" for name in ("min_count", "max_length")},
        **{f"captions.{name}": "fixed" for name in ("encoder",)},
    }
    unit, counted = "pictures", "words"
    validated = "CIDEr"
    numbers = ("train", "dev", "captions", "words", "parameters")

    config: CaptioningConfig

    @classmethod
    def run_name(cls, settings: CaptioningConfig) -> str:
        cell = "" if settings.model.cell is None else f"-{cell_label(settings.model.cell)}"
        return f"{short_name(settings.captions.data or 'captions')}-{settings.model.model}{cell}"

    def facts(self) -> list[tuple[str, str]]:
        model, counts, noticed = self.config.model, self.counts, self.noticed
        grid = f", {noticed.positions} positions of {noticed.grid_size}" if model.reads_grid else ""
        how = "self-critical, by CIDEr-D" if self.config.training.self_critical else "cross-entropy"
        return [
            (
                "pictures",
                f"{counts['train']:,} to train on, with {counts['captions']:,} captions; {counts['dev']:,} to validate",
            ),
            (
                "features",
                f"{noticed.vector_size:,} values{grid}, by {noticed.encoder or self.config.captions.features}",
            ),
            ("words", f"{counts['words']:,}, with the end of a caption"),
            (
                "model",
                f"{model.model}, {model.used_cell}, {model.depth} × {model.hidden_size} units; "
                f"{counts['parameters']:,} parameters, on {self.device}",
            ),
            ("learning", how),
            *(("note", note) for note in noticed.notes),
        ]

    @cached_property
    def noticed(self) -> Noticed:
        """What was noticed of the pictures when the run was created; RunError if it is missing or damaged."""
        path = self.run.path / NOTICED_FILE
        try:
            noticed: Noticed = from_json(Noticed, read_json(path), str(path))
        except DataError as error:
            raise RunError(f"{error}") from error
        return noticed

    def describe(self, loss: float) -> str:
        if self.config.training.self_critical:
            return f"loss {loss:+.4f}"
        if self.config.model.model in PENALISED or self.config.training.weight_penalty:
            return f"loss {loss:.4f} with penalties"
        return f"loss {loss:.4f} · perplexity {perplexity(loss):,.2f}"

    def describe_validation(self, value: float) -> str:
        """Return the CIDEr of the dev part as text; `value` is minus it, since less is better."""
        return f"CIDEr {-value:.3f}"

    def uses(self) -> list[tuple[str, str]]:
        return [("use", "unrolled caption {run} PICTURE"), ("score", "unrolled eval {run}")]


def options_of(search: Any) -> dict[str, Any]:
    """Return the options of `BeamSearch` that a dataclass of flags has."""
    from dataclasses import fields

    from unrolled.decoding import BeamSearch

    return {each.name: getattr(search, each.name) for each in fields(BeamSearch) if hasattr(search, each.name)}
