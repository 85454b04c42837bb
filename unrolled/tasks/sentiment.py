"""Sentiment at every node of a tree: labelled trees, a recursive net, and the accuracy at the root."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unrolled.data.lines import read_json
from unrolled.data.tokens import Progress
from unrolled.data.trees import LabelledTrees, Tree, batch_trees, read_trees
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.metrics.report import Report, Value
from unrolled.models.tree import TreeClassifier
from unrolled.tasks.base import Task
from unrolled.tasks.sentiment_settings import SentimentConfig, SentimentInfo, TreeConfig, TreeEvaluation
from unrolled.tasks.vectors import start_embedding, store_vectors
from unrolled.training import Run

#: The labels of the Stanford Sentiment Treebank, from very negative to very positive; 2 is neutral.
CLASSES, NEUTRAL = 5, 2
TREES_FILE, UNKNOWN = "trees.json", "<unk>"


@dataclass(frozen=True)
class Accuracy:
    """The accuracies over a set of nodes.

    fine: the accuracy with five labels.
    binary: the accuracy of negative against positive, over the nodes that are not neutral (`polar` of them). The more
        probable of the two pairs of labels counts as the answer. 0 if all nodes are neutral.
    """

    fine: float
    binary: float
    nodes: int
    polar: int


@dataclass(frozen=True)
class TreeScore:
    """The accuracies at the roots and at all nodes of `trees` trees, and the mean cross-entropy of a root."""

    trees: int
    root: Accuracy
    all_nodes: Accuracy
    loss: float


def read_labelled_trees(path: Path) -> list[Tree]:
    """Return the trees of a file; DataError if one has a label that the treebank does not have."""
    trees = read_trees(path)
    for number, tree in enumerate(trees, 1):
        if max(tree.labels) >= CLASSES:
            raise DataError(f"{path}: tree {number:,}: label {max(tree.labels)} is not from 0 to {CLASSES - 1}")
    return trees


def prepare(run: Run, config: TreeConfig) -> None:
    """Copy the trees into a new run's directory, so that it needs nothing else."""
    if not config.data:
        said = "`data` is missing: name the folder with train.txt and dev.txt (the Stanford Sentiment Treebank)"
        raise ConfigurationError(said, setting="data")
    parts = {name: read_labelled_trees(Path(config.data) / f"{name}.txt") for name in ("train", "dev")}
    words = Counter(word.lower() for tree in parts["train"] for word in tree.words if word)
    stored = {
        "words": [UNKNOWN, *words],
        **{name: [[tree.labels, tree.words, tree.left, tree.right] for tree in trees] for name, trees in parts.items()},
    }
    (run.path / TREES_FILE).write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")


class TreeBatches:
    """One pass over the trees, in an order that depends only on the seed."""

    def __init__(self, trees: Sequence[Tree], tokens: Sequence[np.ndarray], size: int, seed: Sequence[int]) -> None:
        self.trees, self.tokens, self.size = trees, tokens, size
        self.order = np.random.default_rng(list(seed)).permutation(len(trees))

    def __len__(self) -> int:
        return max(1, len(self.trees) // self.size)

    def batch(self, number: int) -> LabelledTrees:
        chosen = self.order[number * self.size : (number + 1) * self.size]
        return LabelledTrees([self.trees[k] for k in chosen], [self.tokens[k] for k in chosen])


class SentimentTask(SentimentInfo, Task):
    """A recursive net with its trees."""

    model: TreeClassifier

    @classmethod
    def prepare(cls, run: Run, settings: SentimentConfig, progress: Progress = lambda what, share: None) -> None:
        """Copy the trees, and word vectors if the settings name them, into a new run's directory."""
        prepare(run, settings.trees)
        if settings.trees.vectors is not None:
            words = read_json(run.path / TREES_FILE)["words"]
            number = {word: k for k, word in enumerate(words)}
            store_vectors(run.path, settings.trees.vectors, number, settings.model.embedding_size, std=0.1)

    def read(self) -> None:
        path = self.run.path / TREES_FILE
        try:
            stored = read_json(path)
            self.words: list[str] = stored["words"]
            self.train, self.dev = ([Tree(*map(tuple, tree)) for tree in stored[name]] for name in ("train", "dev"))
            texts = (self.words, *(tree.words for part in (self.train, self.dev) for tree in part))
            if not all(isinstance(word, str | None) for words in texts for word in words) or None in self.words:
                raise ValueError("its words must be strings")
        except (ValueError, KeyError, TypeError, DataError) as error:
            raise RunError(f"{path}: missing or damaged ({error})") from error
        self._number = {word: k for k, word in enumerate(self.words)}
        self._tokens = [self.encode(tree) for tree in self.train]

    def build(self) -> TreeClassifier:
        model = self._model(len(self.words))
        vectors = self.config.trees.vectors
        self._started = 0 if vectors is None else start_embedding(model.embedding, self.run.path)
        return model

    def _model(self, words: int) -> TreeClassifier:
        model = self.config.model
        return TreeClassifier(
            words,
            CLASSES,
            model.cell,
            embedding_size=model.embedding_size,
            hidden_size=model.hidden_size,
            dropout=model.dropout,
        )

    def token_keys(self) -> dict[str, list[str]]:
        return {"vocabulary": self.words}

    def grown(self, tokens: str) -> TreeClassifier:
        return self._model(len(self.words) + 1)

    def verify(self) -> None:
        """Raise RunError if the run's trees are not those that were prepared."""
        for tree in (*self.train, *self.dev):
            places = range(len(tree))
            leaves = all(
                (left < 0) == (right < 0) == (word is not None) and max(left, right) < place
                for place, left, right, word in zip(places, tree.left, tree.right, tree.words, strict=True)
            )
            if not (leaves and all(0 <= label < CLASSES for label in tree.labels)):
                raise RunError(f"{self.run.path / TREES_FILE}: damaged, an entry is not a labelled tree")

    def encode(self, tree: Tree) -> np.ndarray:
        """Return the token of every node, int64; inner nodes, and words that were not in training, are unknown."""
        return np.array([self._number.get(word.lower(), 0) if word else 0 for word in tree.words], dtype=np.int64)

    def epoch(self, number: int) -> TreeBatches:
        training = self.config.training
        return TreeBatches(self.train, self._tokens, training.batch_size, (training.seed, number))

    def loss(self, batch: LabelledTrees, state: None = None) -> tuple[Tensor, None]:
        """Return the cross-entropy, summed over all nodes, in nats; trees carry no state."""
        nodes, labels = batch.together()
        return cross_entropy(self.model(nodes), labels, reduction="sum", ignore_index=-1), None

    @torch.no_grad()
    def score_trees(self, trees: Sequence[Tree] | None = None, batch_size: int = 128) -> TreeScore:
        """Return how well `trees` (default: the dev part) are labelled."""
        trees = self.dev if trees is None else trees
        loss = 0.0
        judged: dict[str, list[Tensor]] = {"root": [], "all_nodes": []}
        for first in range(0, len(trees), batch_size):
            part = trees[first : first + batch_size]
            batch, labels = batch_trees(part, [self.encode(tree) for tree in part])
            logits = self.model(batch.to(self.device)).cpu()
            loss += float(cross_entropy(logits[batch.roots], labels[batch.roots], reduction="sum"))
            chances = logits.softmax(-1)
            positive = chances[:, NEUTRAL + 1 :].sum(-1) > chances[:, :NEUTRAL].sum(-1)
            found = torch.stack([labels, logits.argmax(-1), positive], 1)
            judged["root"].append(found[batch.roots])
            judged["all_nodes"].append(found)
        return TreeScore(
            len(trees), **{name: _accuracy(torch.cat(parts)) for name, parts in judged.items()}, loss=loss / len(trees)
        )

    def validate(self, step: int | None = None) -> float:
        return self.score_trees().loss

    def preview(self, step: int) -> str:
        """Return a sentence of the dev part with its label and the predicted probabilities."""
        tree = self.dev[step % len(self.dev)]
        batch, _ = batch_trees([tree], [self.encode(tree)])
        with torch.no_grad():
            chances = self.model(batch.to(self.device))[batch.roots.to(self.device)].softmax(-1)[0]
        sentence = " ".join(word for word in tree.words if word)
        return (
            f"{sentence}\nlabel {tree.labels[-1]}, chances {' '.join(f'{chance:.2f}' for chance in chances.tolist())}"
        )

    def count(self) -> dict[str, int]:
        return {"train": len(self.train), "dev": len(self.dev), "words": len(self.words), "started": self._started}

    def closing(self) -> list[str]:
        """Return how well the best checkpoint labels the dev part."""
        return report(self.load("best").score_trees(), "dev").lines()

    def evaluate(self, asked: TreeEvaluation) -> Report:
        """Report the accuracy at the roots and at all nodes of the trees that `asked` names, or of the dev part."""
        data, trees = "dev", self.dev
        if asked.data:
            files = [_treebank(Path(given)) for given in asked.data]
            data, trees = ", ".join(map(str, files)), [tree for file in files for tree in read_labelled_trees(file)]
        score = self.score_trees(trees)
        self.require_number(score.loss, data)
        return report(score, data)


def report(score: TreeScore, data: str) -> Report:
    """Return a score as a report."""
    values = [Value("trees", score.trees)]
    for name, label, part in (("root", "roots", score.root), ("all_nodes", "all nodes", score.all_nodes)):
        shown = f"{part.fine:6.1%} of five labels"
        if part.polar:
            shown += f", {part.binary:6.1%} of negative and positive ({part.polar:,} that are not neutral)"
        values.append(Value(f"{name}.fine", part.fine, label, shown))
        values += [Value(f"{name}.{each}", getattr(part, each)) for each in ("binary", "nodes", "polar")]
    values.append(Value("loss", score.loss))
    heading = f"{data}: {score.trees:,} trees, {score.all_nodes.nodes:,} nodes; loss at the root {score.loss:.4f}"
    return Report(data, heading, tuple(values))


def _treebank(path: Path) -> Path:
    """Return the file to score on: `path`, or, in a folder, test.txt or dev.txt."""
    if not path.is_dir():
        return path
    return path / "test.txt" if (path / "test.txt").exists() else path / "dev.txt"


def _accuracy(judged: Tensor) -> Accuracy:
    """Return the accuracies of `judged [N, 3]`: label, predicted label, whether positive beats negative."""
    labels, found, positive = judged.unbind(1)
    polar = labels != NEUTRAL
    binary = (positive == (labels > NEUTRAL))[polar].double().mean() if polar.any() else 0.0
    return Accuracy(float((labels == found).double().mean()), float(binary), len(labels), int(polar.sum()))


def create_run(path: Path, config: SentimentConfig) -> SentimentTask:
    """Create a run directory with its trees; nothing remains of it after an error."""
    return SentimentTask.create(path, config)
