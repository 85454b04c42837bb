"""Sentiment at every node of a tree: trees, a recursive net, and the accuracy at the root."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tyro.conf import arg

from unrolled.cells.tree import TREE_CELLS
from unrolled.data.trees import Tree, TreeBatch, batch_trees, read_trees
from unrolled.data.vectors import read_vectors
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.models.tree import TreeClassifier
from unrolled.training import Checkpoints, Run, TrainingConfig
from unrolled.training.checkpoint import Which
from unrolled.training.config import from_json, require, require_choice
from unrolled.training.optimisation import find_device

TASK = "sentiment"
#: The labels of the Stanford Sentiment Treebank, from very negative to very positive; 2 is neutral.
CLASSES, NEUTRAL = 5, 2
TREES_FILE, UNKNOWN = "trees.json", "<unk>"


@dataclass(frozen=True)
class TreeConfig:
    """Trees."""

    data: Annotated[str, arg(metavar="FOLDER")] = ""
    """Folder with train.txt and dev.txt: a bracketed tree a line, labels 0 to 4 at every node."""
    vectors: Annotated[str | None, arg(metavar="FILE")] = None
    """Start the embedding from word vectors: word2vec or GloVe text, or JSON; their width must be --embedding-size."""


@dataclass(frozen=True)
class TreeModelConfig:
    """Model."""

    cell: Annotated[str, arg(metavar="NAME", help=f"One of {', '.join(TREE_CELLS)}.")] = "tree-lstm"
    hidden_size: int = 150
    """Units of a node."""
    embedding_size: int = 100
    """Width of a word's embedding."""
    dropout: float = 0.5
    """On the embeddings and before the readout."""

    def __post_init__(self) -> None:
        require_choice("cell", self.cell, tuple(TREE_CELLS))
        for name in ("hidden_size", "embedding_size"):
            value = getattr(self, name)
            require(1 <= value <= 65_536, name, "from 1 to 65,536", value)
        require(0 <= self.dropout < 1, "dropout", "from 0 to below 1", self.dropout)


#: A tree is read whole: the settings of streams of text have no meaning here.
TREE_TRAINING = TrainingConfig(learning_rate=2e-3, weight_decay=1e-3, eval_every=267, sample_every=0, epochs=8)


@dataclass(frozen=True)
class SentimentConfig:
    """All settings of a run."""

    trees: TreeConfig = field(default_factory=TreeConfig)
    model: TreeModelConfig = field(default_factory=TreeModelConfig)
    training: TrainingConfig = TREE_TRAINING


@dataclass(frozen=True)
class RootAccuracy:
    """Shares of trees whose root was labelled right.

    fine: of five labels. binary: of negative and positive, over the trees whose root is not neutral, by which of the
    two pairs of labels is more probable.
    """

    fine: float
    binary: float
    loss: float


def prepare(run: Run, config: TreeConfig) -> None:
    """Copy the trees into a new run's directory, so that it needs nothing else."""
    if not config.data:
        raise ConfigurationError("--data: name the folder with train.txt and dev.txt (the Stanford Sentiment Treebank)")
    parts = {name: read_trees(Path(config.data) / f"{name}.txt") for name in ("train", "dev")}
    for name, trees in parts.items():
        if any(label >= CLASSES for tree in trees for label in tree.labels):
            raise DataError(f"{config.data}/{name}.txt: labels go from 0 to {CLASSES - 1}")
    words = Counter(word.lower() for tree in parts["train"] for word in tree.words if word)
    stored = {
        "words": [UNKNOWN, *words],
        **{name: [[tree.labels, tree.words, tree.left, tree.right] for tree in trees] for name, trees in parts.items()},
    }
    (run.path / TREES_FILE).write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")


class Batches:
    """One pass over the trees, in an order that depends on its number alone."""

    def __init__(self, trees: Sequence[Tree], tokens: Sequence[np.ndarray], size: int, seed: Sequence[int]) -> None:
        self.trees, self.tokens, self.size = trees, tokens, size
        self.order = np.random.default_rng(list(seed)).permutation(len(trees))

    def __len__(self) -> int:
        return max(1, len(self.trees) // self.size)

    def chunk(self, number: int) -> tuple[TreeBatch, Tensor]:
        chosen = self.order[number * self.size : (number + 1) * self.size]
        return batch_trees([self.trees[k] for k in chosen], [self.tokens[k] for k in chosen])


class SentimentTask:
    """A run's tree classifier with its trees: what the training loop works on."""

    def __init__(self, run: Run, device: str | None = None) -> None:
        if run.task != TASK:
            raise RunError(f"{run.path}: a run of task {run.task!r}, not of {TASK}")
        self.run = run
        self.config: SentimentConfig = from_json(SentimentConfig, run.config, str(run.path / "config.json"))
        try:
            stored = json.loads((run.path / TREES_FILE).read_text(encoding="utf-8"))
            self.words: list[str] = stored["words"]
            self.train, self.dev = ([Tree(*map(tuple, tree)) for tree in stored[name]] for name in ("train", "dev"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{run.path / TREES_FILE}: missing or damaged ({error})") from error
        self._number = {word: k for k, word in enumerate(self.words)}
        self.device = find_device(device or self.config.training.device)
        torch.manual_seed(self.config.training.seed)
        model = self.config.model
        self.model = TreeClassifier(
            len(self.words),
            CLASSES,
            model.cell,
            embedding_size=model.embedding_size,
            hidden_size=model.hidden_size,
            dropout=model.dropout,
        ).to(self.device)
        self._tokens = {id(part): [self.encode(tree) for tree in part] for part in (self.train, self.dev)}

    def load(self, which: Which = "best") -> SentimentTask:
        """Put a checkpoint's weights in, and the model into evaluation mode."""
        Checkpoints(self.run).load_weights(which, self.model)
        self.model.eval()
        return self

    def start_from(self, path: str) -> int:
        """Put word vectors into the embedding; how many words had one. Their values are scaled to the others' size."""
        vectors = read_vectors(path, only=set(self.words))
        width = self.config.model.embedding_size
        if vectors.width != width:
            raise ConfigurationError(f"{path}: vectors of {vectors.width} numbers, and --embedding-size is {width}")
        with torch.no_grad():
            rows = torch.tensor([self._number[word] for word in vectors.words], dtype=torch.long)
            values = torch.from_numpy(vectors.values)
            self.model.embedding.weight[rows] = (values / values.std() * 0.1).to(self.device)
        return len(vectors.words)

    def encode(self, tree: Tree) -> np.ndarray:
        """The token of every node, int64; words that training has not seen are unknown, as are inner nodes."""
        return np.array([self._number.get(word.lower(), 0) if word else 0 for word in tree.words], dtype=np.int64)

    def epoch(self, number: int) -> Batches:
        training = self.config.training
        return Batches(self.train, self._tokens[id(self.train)], training.batch_size, (training.seed, number))

    def loss(self, inputs: TreeBatch, targets: Tensor, state) -> tuple[Tensor, tuple]:
        """Cross-entropy summed over all nodes, in nats; trees carry no state."""
        return cross_entropy(self.model(inputs), targets, reduction="sum"), ()

    @torch.no_grad()
    def score(self, trees: Sequence[Tree] | None = None, batch_size: int = 128) -> RootAccuracy:
        """How well the roots of `trees` (the dev part) are labelled."""
        trees = self.dev if trees is None else trees
        fine = binary = polar = 0
        loss = 0.0
        for first in range(0, len(trees), batch_size):
            part = trees[first : first + batch_size]
            batch, labels = batch_trees(part, [self.encode(tree) for tree in part])
            logits = self.model(batch.to(self.device))[batch.roots.to(self.device)].cpu()
            wanted = labels[batch.roots]
            loss += float(cross_entropy(logits, wanted, reduction="sum"))
            fine += int((logits.argmax(-1) == wanted).sum())
            chances = logits.softmax(-1)
            positive = chances[:, NEUTRAL + 1 :].sum(-1) > chances[:, :NEUTRAL].sum(-1)
            counted = wanted != NEUTRAL
            binary += int((positive == (wanted > NEUTRAL))[counted].sum())
            polar += int(counted.sum())
        return RootAccuracy(fine / len(trees), binary / polar if polar else 0.0, loss / len(trees))

    def validate(self, step: int | None = None) -> float:
        return self.score().loss

    def sample(self, step: int) -> str:
        """A sentence of the dev part, and what is thought of it."""
        tree = self.dev[step % len(self.dev)]
        batch, _ = batch_trees([tree], [self.encode(tree)])
        with torch.no_grad():
            chances = self.model(batch.to(self.device))[batch.roots.to(self.device)].softmax(-1)[0]
        sentence = " ".join(word for word in tree.words if word)
        return (
            f"{sentence}\nlabel {tree.labels[-1]}, chances {' '.join(f'{chance:.2f}' for chance in chances.tolist())}"
        )

    def describe(self, loss: float) -> str:
        return f"loss {loss:.4f}"
