"""The settings of a run on labelled trees, and the facts about it that need no model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from tyro.conf import arg

from unrolled.cells import TREE_CELLS
from unrolled.settings import require, require_choice
from unrolled.tasks.info import TaskInfo, without_streams
from unrolled.training import TrainingConfig


@dataclass(frozen=True)
class TreeConfig:
    """Trees."""

    data: Annotated[str, arg(metavar="FOLDER")] = ""
    """Folder with train.txt and dev.txt: a bracketed tree per line, with labels from 0 to 4 at every node."""
    vectors: Annotated[str | None, arg(metavar="FILE")] = None
    """Start the embedding from word vectors: word2vec or GloVe text, or JSON; their width must be `embedding_size`."""


@dataclass(frozen=True)
class TreeModelConfig:
    """Model."""

    cell: Annotated[str, arg(metavar="NAME", help=f"One of {', '.join(TREE_CELLS)}.")] = "tree-lstm"
    hidden_size: int = 150
    """Units per node."""
    embedding_size: int = 100
    """Width of a word's embedding."""
    dropout: float = 0.5
    """Dropout on the embeddings and before the readout."""

    def __post_init__(self) -> None:
        require_choice("cell", self.cell, tuple(TREE_CELLS))
        for name in ("hidden_size", "embedding_size"):
            value = getattr(self, name)
            require(1 <= value <= 65_536, name, "from 1 to 65,536", value)
        require(0 <= self.dropout < 1, "dropout", "from 0 to below 1", self.dropout)


@dataclass(frozen=True)
class TreeTraining(TrainingConfig):
    """Training."""

    batch_size: int = 32
    """Trees per update."""
    learning_rate: float = 2e-3
    """Peak learning rate."""
    weight_decay: float = 1e-3
    """Weight decay of matrices; biases have none."""
    epochs: Annotated[float | None, arg(metavar="N")] = None
    """Stop after this many passes over the trees (8 if no limit is set)."""
    eval_every: int = 267
    """Updates between two validations, each of which writes a checkpoint."""
    sample_every: int = 0
    """Updates between two samples; 0: no samples."""

    default_epochs: ClassVar[float] = 8.0


@dataclass(frozen=True)
class SentimentConfig:
    """All settings of a run."""

    trees: TreeConfig = field(default_factory=TreeConfig)
    model: TreeModelConfig = field(default_factory=TreeModelConfig)
    training: TreeTraining = field(default_factory=TreeTraining)


@dataclass(frozen=True)
class TreeEvaluation:
    """The trees to score a model on."""

    data: Annotated[tuple[str, ...], arg(metavar="PATH...")] = ()
    """Files of trees, or folders with test.txt or dev.txt; none: the run's dev part."""


class SentimentInfo(TaskInfo):
    """Train a recursive net on trees with sentiment labels at every node, and report its accuracy on dev."""

    name, kind = "tree", "sentiment"
    Settings = SentimentConfig
    Evaluation = TreeEvaluation
    inherited: ClassVar[dict[str, str]] = {"model": "fixed", "model.dropout": "default"}
    unit, counted = "trees", "nodes"
    numbers = ("train", "dev", "words", "started", "parameters")

    config: SentimentConfig

    @classmethod
    def upgrade(cls, config: dict[str, Any]) -> dict[str, Any]:
        return without_streams(config)

    def facts(self) -> list[tuple[str, str]]:
        model, trees, counts = self.config.model, self.config.trees, self.counts
        start = f", {counts['started']:,} of them started from {trees.vectors}" if trees.vectors else ""
        return [
            (
                "trees",
                f"{counts['train']:,} to train on, {counts['dev']:,} of dev; {counts['words']:,} words{start}",
            ),
            (
                "model",
                f"{model.cell}, {model.hidden_size} units, {counts['parameters']:,} parameters, on {self.device}",
            ),
        ]
