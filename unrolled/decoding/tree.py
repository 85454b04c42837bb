"""A recorded beam search as a tree: what was looked at, what it scored, what became of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from unrolled.decoding.beam import NEVER, Hypothesis, SearchStep


@dataclass
class Node:
    """A hypothesis at one step: its last token, that token's log-probability, and the sum so far.

    `rank` is its place among the n best (0 the best), where it is one of them; `ended`, whether it is complete.
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
        """This node and all below it, in JSON's types; `text` names a token."""
        made: dict[str, Any] = {
            "token": self.token,
            "text": self.label(text),
            "log_prob": self.log_prob,
            "total": self.total,
        }
        made |= {"group": self.group, "ended": self.ended, "rank": self.rank, "score": self.score}
        return made | {"children": [child.to_json(text) for child in self.children]}

    def label(self, text: Callable[[int], str]) -> str:
        return "" if self.token is None else "</s>" if self.ended else text(self.token)


def search_trees(record: Sequence[SearchStep], results: Sequence[Sequence[Hypothesis]], end: int) -> list[Node]:
    """One tree a sentence, of what `BeamSearch.search` recorded and returned."""
    trees = [Node(None, 0.0, 0.0) for _ in results]
    places = {
        (number, tokens.tokens): rank for number, found in enumerate(results) for rank, tokens in enumerate(found)
    }
    # The nodes that the next step's parents stand for, with their tokens, by sentence and group.
    alive: dict[tuple[int, int], list[tuple[Node, tuple[int, ...]]]] = {}
    for step in record:
        going, ended = (tuple(part.tolist() for part in parts) for parts in (step.alive, step.ended))
        following = {}
        for row, number in enumerate(step.sentences.tolist()):
            for group in range(len(going[0][row])):
                parents = alive.get((number, group), [(trees[number], ())])
                for parent, total in zip(ended[0][row][group], ended[1][row][group], strict=True):
                    if total > NEVER:
                        node, tokens = parents[parent]
                        rank = places.get((number, tokens))
                        score = None if rank is None else results[number][rank].score
                        node.children.append(Node(end, total - node.total, total, group, True, rank, score))
                nodes = []
                for parent, token, total in zip(*(part[row][group] for part in going), strict=True):
                    node, tokens = parents[parent]
                    child = Node(token, total - node.total, total, group)
                    if total > NEVER:
                        node.children.append(child)
                    nodes.append((child, (*tokens, token)))
                following[number, group] = nodes
        alive = following
    return trees


def tree_json(trees: Sequence[Node], text: Callable[[int], str]) -> str:
    """The trees as a JSON list."""
    return json.dumps([tree.to_json(text) for tree in trees], ensure_ascii=False, indent=1)
