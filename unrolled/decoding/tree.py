"""A recorded beam search as a tree: what was looked at, what it scored, what became of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

from unrolled.decoding.beam import NEVER, Hypothesis, SearchStep

_COLUMN, _ROW, _MARGIN = 126, 26, 16


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

    def to_json(self, text: Callable[[int], str]) -> dict:
        """This node and all below it, in JSON's types; `text` names a token."""
        made: dict = {"token": self.token, "text": self.label(text), "log_prob": self.log_prob, "total": self.total}
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


def tree_svg(tree: Node, text: Callable[[int], str], title: str = "") -> str:
    """The tree as a picture: a step a column, each token with its log-probability; outputs bold, the best red."""
    shapes: list[str] = []
    depth, rows = _place(tree, text, 0, 0, shapes)
    width, height = 2 * _MARGIN + (depth + 1) * _COLUMN, 2 * _MARGIN + (rows + 1) * _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">\n'
        f'<title>{escape(title)}</title>\n<rect width="100%" height="100%" fill="white"/>\n'
        f'<text x="{_MARGIN}" y="{_MARGIN + 4}">{escape(title)}</text>\n' + "\n".join(shapes) + "\n</svg>\n"
    )


def _place(node: Node, text: Callable[[int], str], column: int, row: int, shapes: list[str]) -> tuple[int, int]:
    """Draw a node with all below it from `row` on; the deepest column and the last row that it takes."""
    x, y = _MARGIN + column * _COLUMN, 2 * _MARGIN + row * _ROW + _ROW // 2
    label = node.label(text).strip()
    label = label if len(label) <= 11 else label[:10] + "…"
    start = x + 14 + (8 * len(label) if column else 0)  # a letter is about 8 wide
    deepest, last = column, row
    for number, child in enumerate(node.children):
        below = row if number == 0 else last + 1
        colour, width = _ink(child)
        end_x, end_y = _MARGIN + (column + 1) * _COLUMN - 4, 2 * _MARGIN + below * _ROW + _ROW // 2
        middle = (start + end_x) / 2
        shapes.append(
            f'<path d="M{start} {y}C{middle} {y} {middle} {end_y} {end_x} {end_y}" fill="none" '
            f'stroke="{colour}" stroke-width="{width}"/>'
        )
        reached, last = _place(child, text, column + 1, below, shapes)
        deepest = max(deepest, reached)
    if node.token is None:
        shapes.append(f'<circle cx="{x + 6}" cy="{y}" r="4" fill="#444"/>')
        return deepest, last
    colour, width = _ink(node)
    said = f"{node.score:.3f}" if node.score is not None else f"{node.log_prob:.2f}"
    weight = ' font-weight="bold"' if width > 1 else ""
    shapes.append(
        f'<text x="{x}" y="{y}" fill="{colour}"{weight}>{escape(label)}</text>'
        f'<text x="{x}" y="{y + 11}" fill="#777" font-size="9">{said}</text>'
    )
    return deepest, last


def _ink(node: Node) -> tuple[str, float]:
    """Colour and weight of the line to a node: that of the best output below it."""
    rank = _best_rank(node)
    return ("#bbb", 1) if rank is None else ("#c00", 2) if rank == 0 else ("#222", 1.6)


def _best_rank(node: Node) -> int | None:
    ranks = [rank for child in node.children if (rank := _best_rank(child)) is not None]
    return min([*ranks, node.rank] if node.rank is not None else ranks, default=None)
