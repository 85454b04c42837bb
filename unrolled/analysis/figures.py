"""Figures that need no display: a canvas, and its export as PNG, as SVG, or as SVG inside a page."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from unrolled.data.fonts import every_character
from unrolled.data.lines import readable
from unrolled.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: Control characters other than line ends, which neither a font nor SVG can show.
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ufffe\uffff]")


def literal(text: str) -> str:
    """Return a text from data so that a figure shows it as it is: matplotlib takes what is between $ for mathematics.

    Control characters, and what is no character, become �.
    """
    return _CONTROL.sub("�", readable(text)).replace("$", r"\$")


def canvas(width: float = 8.0, height: float = 4.5) -> Figure:
    """Return an empty figure of this size in inches. Text stays text in its SVG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["svg.hashsalt"] = "unrolled"  # so that the same figure gives the same file
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def targets(stem: Path, overwrite: bool) -> list[Path]:
    """Return the paths `stem.png` and `stem.svg`.

    Raises ConfigurationError if `check_target` rejects one of them.
    """
    if stem.suffix in (".png", ".svg"):
        stem = stem.with_suffix("")
    paths = [stem.with_name(stem.name + suffix) for suffix in (".png", ".svg")]
    for path in paths:
        check_target(path, overwrite)
    return paths


def check_target(path: Path, overwrite: bool) -> None:
    """Raise ConfigurationError if `path` is a folder, exists and may not be replaced, or lies in no existing folder."""
    if path.is_dir() or not path.name:
        raise ConfigurationError(f"{path}: is a folder; name a file")
    if path.exists() and not overwrite:
        message = f"{path}: exists; choose another `out`, or replace it with `overwrite`"
        raise ConfigurationError(message, setting=("out", "overwrite"))
    if not path.parent.is_dir():
        raise ConfigurationError(f"{path.parent}: no such folder for {path.name}")


def save(figure: Figure, paths: list[Path]) -> None:
    """Write the figure to every path, in the format that the suffix names."""
    for path in paths:
        stamp = {"Date": None} if path.suffix == ".svg" else {}
        with every_character(figure):
            figure.savefig(path, dpi=110, metadata=stamp)


def svg(figure: Figure) -> str:
    """Return the figure as an `<svg>` element for a page."""
    text = io.StringIO()
    with every_character(figure):
        figure.savefig(text, format="svg", metadata={"Date": None})
    document = text.getvalue()
    return document[document.index("<svg") :]
