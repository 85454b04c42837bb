"""A recursive layer: any tree cell over a batch of trees, one height at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unrolled.cells.tree import TreeCell


def run_trees(cell: TreeCell, leaves: Tensor, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Compute the states of all nodes, `[N, H]` for each of the cell's states: leaves first, then level by level.

    leaves: the leaves' inputs, `[L, I]`. levels: the indices of left and right children, `[2, n]` for each level (see
    `unrolled.data.trees.TreeBatch`). Gradients go back through the structure (BPTS).
    """
    states = cell.leaf(leaves)
    for children in levels:
        left, right = (tuple(part[side] for part in states) for side in children)
        made = cell(left, right)
        states = tuple(torch.cat([before, new]) for before, new in zip(states, made, strict=True))
    return states
