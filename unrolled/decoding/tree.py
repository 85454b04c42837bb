"""A recorded beam search as a tree: the hypotheses, their log-probabilities, and which of them were returned."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from unrolled.decoding.beam import NEVER, Hypothesis, SearchStep


@dataclass
class Node:
    """A hypothesis at one step: its last token, that token's log-probability, and the total so far.

    ended: whether the hypothesis is finished. rank: its rank among the n best, from 0 for the best, or None if it is
    not one of them.
    """

    token: int | None
    log_prob: float
    total: float
    group: int = 0
    ended: bool = False
    rank: int | None = None
    score: float | None = None
    children: list[Node] = field(default_factory=list)

    def to_json(self, text: Callable[[int], str]) -> dict[str, Any]:
        """Return this node and all nodes below it, in JSON's types. `text` returns a token's text."""
        fields: dict[str, Any] = {
            "token": self.token,
            "text": self.label(text),
            "log_prob": self.log_prob,
            "total": self.total,
        }
        fields |= {"group": self.group, "ended": self.ended, "rank": self.rank, "score": self.score}
        return fields | {"children": [child.to_json(text) for child in self.children]}

    def label(self, text: Callable[[int], str]) -> str:
        return "" if self.token is None else "</s>" if self.ended else text(self.token)


def search_trees(record: Sequence[SearchStep], results: Sequence[Sequence[Hypothesis]], end: int) -> list[Node]:
    """Build one tree for each sentence from what `BeamSearch.search` recorded and returned."""
    trees = [Node(None, 0.0, 0.0) for _ in results]
    places = {
        (number, tokens.tokens): rank for number, found in enumerate(results) for rank, tokens in enumerate(found)
    }
    # The nodes of the next step's parents, with their tokens, by sentence and group.
    alive: dict[tuple[int, int], list[tuple[Node, tuple[int, ...]]]] = {}
    for step in record:
        living, ended = (tuple(part.tolist() for part in parts) for parts in (step.alive, step.ended))
        following = {}
        for row, number in enumerate(step.sentences.tolist()):
            for group in range(len(living[0][row])):
                parents = alive.get((number, group), [(trees[number], ())])
                for parent, total in zip(ended[0][row][group], ended[1][row][group], strict=True):
                    if total > NEVER:
                        node, tokens = parents[parent]
                        rank = places.get((number, tokens))
                        score = None if rank is None else results[number][rank].score
                        node.children.append(Node(end, total - node.total, total, group, True, rank, score))
                nodes = []
                for parent, token, total in zip(*(part[row][group] for part in living), strict=True):
                    node, tokens = parents[parent]
                    child = Node(token, total - node.total, total, group)
                    if total > NEVER:
                        node.children.append(child)
                    nodes.append((child, (*tokens, token)))
                following[number, group] = nodes
        alive = following
    return trees


def tree_json(trees: Sequence[Node], text: Callable[[int], str]) -> str:
    """Return the trees as a JSON list."""
    return json.dumps([tree.to_json(text) for tree in trees], ensure_ascii=False, indent=1)
