"""Pages of captions, and where a captioner looks in a picture before each word (Xu et al. 2015, figures 2 and 3)."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unrolled.analysis.figures import canvas, literal
from unrolled.analysis.pages import page_with

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Pictures in a row.
_COLUMNS = 6
#: The side of a drawn picture, in pixels.
_SIDE = 224


def attention_map(weights: np.ndarray, size: int) -> np.ndarray:
    """Return weights of a square grid's positions, `[P]`, as a smooth map `[size, size]` with 1 at its maximum."""
    from PIL import Image

    side = math.isqrt(len(weights))
    if side * side != len(weights):
        raise ValueError(f"{len(weights)} positions are no square grid")
    grid = Image.fromarray(weights.reshape(side, side).astype(np.float32))
    smooth = np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC), np.float64).clip(min=0)
    peak = float(smooth.max())
    return smooth / peak if peak else smooth


def draw_attention(picture: np.ndarray, words: Sequence[str], weights: np.ndarray) -> Figure:
    """Draw a picture `[H, W, 3]` uint8, and for each word where the decoder looked before it.

    weights: `[T, P]` of the positions of a square grid, for T words or more, such as the words and the end.
    """
    from PIL import Image

    shown = np.asarray(Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))
    labels = [*words, "(end)"][: len(weights)]
    count = len(labels) + 1
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    figure = canvas(1.9 * columns, 2.1 * rows)
    for number in range(count):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.set_axis_off()
        if number == 0:
            axes.imshow(shown)
            continue
        found = attention_map(weights[number - 1], _SIDE)
        light = 0.25 + 0.75 * found[..., None]
        axes.imshow((shown * light).astype(np.uint8))
        axes.set_title(literal(labels[number - 1]), fontsize=11)
    return figure


def captions_page(data: dict[str, Any]) -> str:
    """Return a self-contained HTML page of pictures with their captions, the worst first.

    data: `title`, `facts`, `scores` (pairs of texts), `most` (the score with a full bar), `attends`, and `pictures`,
        each with `name`, `image` (a data URL), `words`, `score`, `references`, and `weights` `[T, P]` or None.
    """
    return page_with("captions", data)


def data_url(picture: np.ndarray, side: int) -> str:
    """Return a picture `[H, W, 3]` uint8 as a square JPEG in a data URL."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
