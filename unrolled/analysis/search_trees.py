"""A recorded beam search, `unrolled.decoding.search_trees`, as a picture."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from unrolled.decoding.tree import Node

_COLUMN, _ROW, _MARGIN = 126, 26, 16


def tree_svg(tree: Node, text: Callable[[int], str], title: str = "") -> str:
    """Draw the tree as SVG: one column for each step, each token with its log-probability.

    Outputs are bold, and the best one is red.
    """
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
    """Draw a node and all nodes below it from `row` on. Return the deepest column and the last row that they take."""
    x, y = _MARGIN + column * _COLUMN, 2 * _MARGIN + row * _ROW + _ROW // 2
    label = node.label(text).strip()
    label = label if len(label) <= 11 else label[:10] + "…"
    start = x + 14 + (8 * len(label) if column else 0)  # a letter is about 8 units wide
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
    value = f"{node.score:.3f}" if node.score is not None else f"{node.log_prob:.2f}"
    weight = ' font-weight="bold"' if width > 1 else ""
    shapes.append(
        f'<text x="{x}" y="{y}" fill="{colour}"{weight}>{escape(label)}</text>'
        f'<text x="{x}" y="{y + 11}" fill="#777" font-size="9">{value}</text>'
    )
    return deepest, last


def _ink(node: Node) -> tuple[str, float]:
    """Return the colour and the width of the line to a node, which depend on the best output below it."""
    rank = _best_rank(node)
    return ("#bbb", 1) if rank is None else ("#c00", 2) if rank == 0 else ("#222", 1.6)


def _best_rank(node: Node) -> int | None:
    ranks = [rank for child in node.children if (rank := _best_rank(child)) is not None]
    return min([*ranks, node.rank] if node.rank is not None else ranks, default=None)
