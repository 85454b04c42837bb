"""The settings of a segmenter's run, and the facts about it that need no model."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import arg

from unrolled.cells import CELL_NAMES, cell_label, require_cell
from unrolled.data.lines import read_json
from unrolled.errors import DataError, RunError
from unrolled.settings import from_json, require
from unrolled.tasks.info import TaskInfo
from unrolled.tasks.pairs import short_name
from unrolled.training import TrainingConfig

if TYPE_CHECKING:
    from unrolled.models.segmenter import Segmenter

#: What was noticed of the frames, in a run's directory.
NOTICED_FILE = "noticed.json"


@dataclass(frozen=True)
class FramesConfig:
    """Frames."""

    data: Annotated[str, arg(metavar="FILE|FOLDER")] = ""
    """Sequences of frames with a label each: an archive (.npz) with the arrays NAME_frames [T, D] and NAME_labels [T],
    or a folder of archives."""
    dev: Annotated[str, arg(metavar="FILE|FOLDER")] = ""
    """Sequences for validation; none: those of `held_out`, or about `val_fraction` of `data`."""
    held_out: Annotated[str, arg(metavar="PATTERN")] = ""
    """Hold out the sequences whose names match this pattern, such as 'split1_*'."""
    val_fraction: float = 0.1
    """Fraction of the sequences that is held out otherwise; whole sequences, never single frames."""
    background: Annotated[str, arg(metavar="LABEL")] = ""
    """Label of frames in which nothing happens; its segments are not scored."""

    def __post_init__(self) -> None:
        require(0 <= self.val_fraction < 1, "val_fraction", "from 0 to below 1", self.val_fraction)


@dataclass(frozen=True)
class SegmenterConfig:
    """Model."""

    cell: Annotated[str, arg(metavar="NAME", help=f"One of {CELL_NAMES}.")] = "gru"
    hidden_size: int = 64
    """Units per layer and direction."""
    num_layers: int = 1
    """Number of layers."""
    bidirectional: bool = True
    """Read the sequence in both directions; `no_bidirectional`: only forwards, so that frames can be labelled as they
    come."""
    dropout: float = 0.5
    """Dropout on the input of the layers, between them, and on their output."""
    forget_bias: float = 1.0
    """Initial bias of the forget gate, in cells that have one."""
    crf: bool = False
    """Score sequences of labels with a linear-chain CRF, not each frame alone."""

    def __post_init__(self) -> None:
        require_cell(self.cell)
        for name, high in (("hidden_size", 65_536), ("num_layers", 1000)):
            value = getattr(self, name)
            require(1 <= value <= high, name, f"from 1 to {high:,}", value)
        require(0 <= self.dropout < 1, "dropout", "from 0 to below 1", self.dropout)
        require(abs(self.forget_bias) <= 1000, "forget_bias", "from -1000 to 1000", self.forget_bias)

    def build(self, width: int, labels: int) -> Segmenter:
        from unrolled.models.segmenter import Segmenter

        return Segmenter(
            width,
            labels,
            self.cell,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
            forget_bias=self.forget_bias,
            crf=self.crf,
        )


@dataclass(frozen=True)
class SegmentTraining(TrainingConfig):
    """Training."""

    batch_size: int = 4
    """Sequences per update."""
    learning_rate: float = 5e-3
    """Peak learning rate."""
    epochs: Annotated[float | None, arg(metavar="N")] = None
    """Stop after this many passes over the sequences (40 if no limit is set)."""
    warmup_steps: int = 20
    """Steps over which the learning rate rises from 0."""
    eval_every: int = 50
    """Updates between two validations, each of which writes a checkpoint."""
    sample_every: int = 100
    """Updates between two samples; 0: no samples."""
    noise: float = 0.0
    """Deviation of noise that training adds to the frames, as a fraction of theirs."""

    default_epochs: ClassVar[float] = 40.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.noise <= 10, "noise", "from 0 to 10", self.noise)


@dataclass(frozen=True)
class SegmentingConfig:
    """All settings of a segmenter's run."""

    frames: FramesConfig = field(default_factory=FramesConfig)
    model: SegmenterConfig = field(default_factory=SegmenterConfig)
    training: SegmentTraining = field(default_factory=SegmentTraining)


@dataclass(frozen=True)
class Noticed:
    """What was noticed of the frames in training: how many values each has, and notes for the user."""

    width: int = 1
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.width >= 1, "width", "at least 1", self.width)


@dataclass(frozen=True)
class SegmentEvaluation:
    """The sequences to score a segmenter on."""

    data: Annotated[str, arg(metavar="FILE|FOLDER")] = ""
    """For segmenters: labelled sequences of frames; none: those that the run held out."""


class SegmentingInfo(TaskInfo):
    """Train a segmenter: a label for every frame of video or of sensors, from sequences whose frames have one each."""

    name, kind = "segment", "segmenter"
    Settings = SegmentingConfig
    Evaluation = SegmentEvaluation
    inherited: ClassVar[dict[str, str]] = {
        "model": "fixed",
        "model.dropout": "default",
        "frames.background": "default",
    }
    unit, counted = "sequences", "frames"
    numbers = ("train", "dev", "frames", "labels", "parameters")

    config: SegmentingConfig

    @classmethod
    def run_name(cls, settings: SegmentingConfig) -> str:
        return f"{short_name(settings.frames.data or 'frames')}-{cell_label(settings.model.cell)}"

    def facts(self) -> list[tuple[str, str]]:
        model, counts = self.config.model, self.counts
        return [
            ("data", f"{counts['train']:,} sequences to train on, {counts['dev']:,} to validate"),
            ("frames", f"{counts['frames']:,} to train on, of {self.noticed.width} values"),
            ("labels", f"{counts['labels']:,}, scored by a {'CRF' if model.crf else 'softmax'}"),
            (
                "model",
                f"{model.cell}, {model.num_layers} × {model.hidden_size} units "
                f"{'read both ways' if model.bidirectional else 'read forwards'}; "
                f"{counts['parameters']:,} parameters, on {self.device}",
            ),
            *(("note", note) for note in self.noticed.notes),
        ]

    @cached_property
    def noticed(self) -> Noticed:
        """What was noticed of the frames when the run was created; RunError if it is missing or damaged."""
        path = self.run.path / NOTICED_FILE
        try:
            noticed: Noticed = from_json(Noticed, read_json(path), str(path))
        except (DataError, RunError) as error:  # what is wrong in the file is no setting of the user's
            raise RunError(f"{error}") from error
        return noticed

    def uses(self) -> list[tuple[str, str]]:
        return [("use", "unrolled segment {run} FILE")]
