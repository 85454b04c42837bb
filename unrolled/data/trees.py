"""Labelled binary trees in the bracket format of the Stanford Sentiment Treebank: `(3 (2 It) (4 works))`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unrolled.data.batch import Batch
from unrolled.data.lines import open_lines
from unrolled.errors import DataError

_PIECE = re.compile(r"[()]|[^ \t\r\n()]+")  # a word may contain other white space


@dataclass(frozen=True)
class Tree:
    """A labelled binary tree. Its nodes are in an order with children before their parents, so the root is last.

    labels: each node's label. words: each leaf's word, and None for inner nodes. left, right: the indices of each
    node's children, and -1 for leaves.
    """

    labels: tuple[int, ...]
    words: tuple[str | None, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)


def parse_tree(text: str) -> Tree:
    """Parse the tree in `text`. Raises DataError if it is not a binary tree with a label at every node."""
    nodes: list[tuple[int, str | None, int, int]] = []
    open_nodes: list[tuple[int, list[int], list[str]]] = []
    pieces = iter(_PIECE.findall(text))
    root = None
    for piece in pieces:
        if root is not None:
            raise DataError(f"there is more text after the tree: {piece!r}")
        if piece == "(":
            label = next(pieces, "")
            if not label.isdecimal():
                raise DataError(f"a label, a whole number, must follow each opening bracket, got {label!r}")
            open_nodes.append((int(label), [], []))
        elif not open_nodes:
            raise DataError(f"a tree begins with a bracket, but this text with {piece!r}")
        elif piece == ")":
            label, children, words = open_nodes.pop()
            if (len(children), len(words)) not in ((0, 1), (2, 0)):
                raise DataError(
                    f"a node must have one word or two children, got {len(words)} words and {len(children)} children"
                )
            left, right = children or (-1, -1)
            nodes.append((label, words[0] if words else None, left, right))
            if open_nodes:
                open_nodes[-1][1].append(len(nodes) - 1)
            else:
                root = nodes[-1]
        else:
            open_nodes[-1][2].append(piece)
    if root is None:
        raise DataError("the tree ends before its last bracket closes")
    return Tree(*zip(*nodes, strict=True))


def read_trees(path: Path) -> list[Tree]:
    """Read the trees of a plain or gzip file with one tree per line.

    Raises DataError, with the line number, if a tree cannot be parsed.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    trees = []
    for number, line in enumerate(open_lines(path), 1):
        if line.strip():
            try:
                trees.append(parse_tree(line))
            except DataError as error:
                raise DataError(f"{path}:{number}: {error}") from error
    if not trees:
        raise DataError(f"{path}: holds no tree")
    return trees


@dataclass(frozen=True)
class TreeBatch:
    """Nodes of several trees, ordered by height, so that all nodes of a height are computed at once.

    tokens: the tokens of the leaves, which are the first nodes, `[L]`. levels: for each height above the leaves, the
    indices of its nodes' left and right children, `[2, n]`. The nodes of a level follow those of the levels below it.
    roots: the indices of the roots, `[B]`, in the order of the trees.
    """

    tokens: Tensor
    levels: tuple[Tensor, ...]
    roots: Tensor

    def __len__(self) -> int:
        return len(self.tokens) + sum(level.size(1) for level in self.levels)

    def to(self, device: torch.device | str) -> TreeBatch:
        return TreeBatch(
            self.tokens.to(device), tuple(level.to(device) for level in self.levels), self.roots.to(device)
        )


def batch_trees(trees: Sequence[Tree], tokens: Sequence[Sequence[int] | np.ndarray]) -> tuple[TreeBatch, Tensor]:
    """Return the trees as one batch, and the labels of all nodes `[N]` in the batch's order.

    tokens: for each tree the token of every node. Tokens of inner nodes are not used.
    """
    sizes = [len(tree) for tree in trees]
    offsets = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    left = np.concatenate([tree.left for tree in trees])
    right = np.concatenate([tree.right for tree in trees])
    heights = np.zeros(len(left), dtype=np.int64)
    for node in np.flatnonzero(left >= 0):  # children come first
        first = offsets[node]
        heights[node] = 1 + max(heights[first + left[node]], heights[first + right[node]])
    order = np.argsort(heights, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    children = np.stack([offsets + left, offsets + right])
    bounds = np.searchsorted(heights[order], np.arange(heights.max() + 2))
    levels = tuple(torch.from_numpy(place[children[:, order[start:end]]]) for start, end in pairwise(bounds[1:]))
    leaves = order[: bounds[1]]
    all_tokens = np.concatenate([np.asarray(part) for part in tokens])
    labels = np.concatenate([tree.labels for tree in trees])[order]
    roots = place[np.cumsum(sizes) - 1]
    batch = TreeBatch(torch.from_numpy(all_tokens[leaves]), levels, torch.from_numpy(roots))
    return batch, torch.from_numpy(labels)


@dataclass(frozen=True)
class LabelledTrees(Batch):
    """A batch of trees with the token of every node. The targets are the labels of all nodes."""

    trees: Sequence[Tree]
    tokens: Sequence[np.ndarray]
    counted: bool = True
    device: torch.device | str = "cpu"

    @property
    def count(self) -> int:
        return sum(map(len, self.trees)) if self.counted else 0

    @property
    def size(self) -> int:
        return len(self.trees)

    def rows(self, first: int, end: int) -> LabelledTrees:
        return replace(self, trees=self.trees[first:end], tokens=self.tokens[first:end])

    def uncounted(self) -> LabelledTrees:
        return replace(self, counted=False)

    def to(self, device: torch.device | str) -> LabelledTrees:
        return replace(self, device=device)

    def together(self) -> tuple[TreeBatch, Tensor]:
        """Return all nodes level by level, and their labels `[N]`. The labels are -1 if they are not counted."""
        batch, labels = batch_trees(self.trees, self.tokens)
        return batch.to(self.device), (labels if self.counted else torch.full_like(labels, -1)).to(self.device)
