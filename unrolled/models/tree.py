"""A classifier of tree nodes: `P(label | node) = softmax(W h + b)`."""

from __future__ import annotations

from torch import Tensor, nn

from unrolled.cells import TREE_CELLS
from unrolled.data.trees import TreeBatch
from unrolled.layers.dropout import Dropout
from unrolled.layers.tree import run_trees


class TreeClassifier(nn.Module):
    """A classifier with an embedding, a tree cell, and a linear readout at every node.

    dropout: the dropout on the embeddings and before the readout. `forward(batch)` returns logits `[N, classes]`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        classes: int,
        cell: str = "tree-lstm",
        *,
        embedding_size: int = 100,
        hidden_size: int = 150,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.cell = TREE_CELLS[cell](embedding_size, hidden_size)
        self.dropout = Dropout(dropout)
        self.readout = nn.Linear(hidden_size, classes)

    def forward(self, batch: TreeBatch) -> Tensor:
        leaves = self.dropout(self.embedding(batch.tokens))
        logits: Tensor = self.readout(self.dropout(run_trees(self.cell, leaves, batch.levels)[0]))
        return logits
