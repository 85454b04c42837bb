"""The characters of installed fonts, and figures whose texts are in any script."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The font that comes with matplotlib and has the most characters.
_USUAL = "DejaVu Sans"
#: Families of matplotlib's own whose glyphs are not those of their code points, or are boxes.
_UNUSABLE = ("Last Resort", "cm", "STIXNonUnicode", "STIXSize")


@contextmanager
def every_character(figure: Figure) -> Iterator[None]:
    """Let a figure be drawn within the block with installed fonts that have the characters of its texts.

    Characters that no font has are drawn as boxes, without a warning for each.
    """
    from matplotlib.text import Text

    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and not text.get_text().isascii()]
    families = _families(frozenset("".join(text.get_text() for text in texts)))
    for text in texts:
        own = text.get_fontfamily()
        text.set_fontfamily([*own, *(family for family in families if family not in own)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)
        yield


@cache
def _families(characters: frozenset[str]) -> list[str]:
    """Return families of installed fonts that have these characters, the usual one first."""
    from matplotlib import font_manager

    missing = {ord(character) for character in characters if not character.isspace()}
    found = []
    fonts = [font for font in font_manager.fontManager.ttflist if font.style == "normal"]
    for font in sorted(fonts, key=lambda font: (font.name != _USUAL, font.name, font.fname)):
        if not missing:
            break
        if not font.name.startswith(_UNUSABLE) and missing & code_points(font.fname):
            missing -= code_points(font.fname)
            found.append(font.name)
    return list(dict.fromkeys(found))


@cache
def code_points(path: str) -> frozenset[int]:
    """Return the code points that a font has a glyph for; none if its file cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # a font that was removed since matplotlib listed it, or a damaged one
        return frozenset()
