"""Pictures of lines of writing: read from files as people have them, drawn from fonts, and distorted for training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from unrolled.data.fonts import code_points
from unrolled.data.pictures import open_picture
from unrolled.errors import DataError

#: The widest picture that is read or drawn as a line, in multiples of its height.
LONGEST = 400


def read_line_image(path: str | Path, height: int) -> np.ndarray:
    """Return the columns of a picture of a line, `[W, height]` uint8, with 0 for paper and 255 for ink.

    It is turned as its EXIF says, made grey, scaled to the height, and its contrast is stretched. 16 bits are scaled to
    8, transparent parts are white, and light writing on a dark ground is inverted. Raises DataError if it cannot be
    read.
    """
    grey = open_picture(path, "L", "a picture of a line")
    if grey.width > LONGEST * grey.height:
        raise DataError(f"{path}: {grey.width} × {grey.height} is no line: it is more than {LONGEST} times as wide")
    return columns_of(grey, height)


def columns_of(grey: Image.Image, height: int) -> np.ndarray:
    """Return a grey picture of a line as columns of ink, `[W, height]` uint8."""
    if grey.height != height:
        width = max(1, round(grey.width * height / grey.height))
        grey = grey.resize((width, height), Image.Resampling.BILINEAR if grey.height < height else Image.Resampling.BOX)
    values: np.ndarray = np.asarray(grey, np.float32)
    paper = float(np.median(values))
    ends = np.percentile(values, [0.5, 99.5])
    if ends[1] - paper > paper - ends[0]:  # the rarer tone is the ink: here it is the light one
        values, paper, ends = 255 - values, 255 - paper, 255 - ends[::-1]
    ink = (paper - values) / max(paper - float(ends[0]), 16.0)  # 16: noise on blank paper is not stretched to ink
    columns: np.ndarray = (np.clip(ink, 0, 1) * 255).round().astype(np.uint8).T
    return columns.copy()


def distort(columns: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return a picture `[W, H]` uint8 as another scan of the line could be: sheared, stretched, blurred, with noise."""
    width, height = columns.shape
    picture = Image.fromarray(columns.T)
    if draw.random() < 0.7:
        shear, across, down = draw.uniform(-0.15, 0.15), draw.uniform(0.85, 1.18), draw.uniform(0.9, 1.1)
        shift = height / 2 * (1 - 1 / down) + draw.uniform(-0.05, 0.05) * height
        matrix = (1 / across, shear, -shear * height / 2, 0.0, 1 / down, shift)
        size = (max(1, round(width * across)), height)
        picture = picture.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    if draw.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(draw.uniform(0.3, 1.0) * height / 40))
    values: np.ndarray = np.asarray(picture, np.float32).T
    if draw.random() < 0.3:
        values = values * draw.uniform(0.6, 1.1)
    if draw.random() < 0.5:
        values += draw.normal(0, draw.uniform(0, 30), values.shape).astype(np.float32)
    changed: np.ndarray = np.clip(values, 0, 255).astype(np.uint8)
    return changed


def installed_fonts() -> list[str]:
    """Return the files of the installed scalable fonts, sorted; matplotlib brings some, so there are always a few."""
    from matplotlib import font_manager, get_data_path

    own = Path(get_data_path(), "fonts", "ttf").glob("DejaVu*.ttf")
    found = {*map(str, own), *font_manager.findSystemFonts()}
    usable = [path for path in found if Path(path).suffix.lower() in (".ttf", ".otf") and "Display" not in path]
    return sorted(usable)


class Renderer:
    """Draws lines of text in fonts, each line in fonts that have all of its characters."""

    def __init__(self, fonts: Sequence[str], height: int) -> None:
        """Load fonts, and leave those out that cannot be scaled; DataError if none is left."""
        self.height = height
        self._fonts = [font for font in map(self._load, fonts) if font is not None]
        if not self._fonts:
            raise DataError("there is no font to draw lines with; name font files with `fonts`", setting="fonts")
        #: The files of the fonts.
        self.fonts = [font.path for font in self._fonts]
        self._known = [code_points(font.path) for font in self._fonts]

    def _load(self, path: str) -> Any:
        try:
            return ImageFont.truetype(path, round(0.72 * self.height))
        except OSError:
            return None  # a font that FreeType cannot scale

    def fonts_for(self, text: str) -> list[Any]:
        """Return the fonts that have every character of a text."""
        needed = {ord(character) for character in text if not character.isspace()}
        return [font for font, known in zip(self._fonts, self._known, strict=True) if needed <= known]

    def fits(self, text: str, font: Any) -> bool:
        """Return whether a line is at most `LONGEST` times as wide as high in a font."""
        # A longer text is not measured: it would take seconds, and hardly a letter is narrower than a column.
        most = LONGEST * self.height
        return len(text) <= most and font.getlength(text) <= most

    def draw(self, text: str, font: Any) -> np.ndarray:
        """Return the columns of a line, `[W, height]` uint8; see `read_line_image`."""
        left, top, right, _ = font.getbbox(text, anchor="ls")
        margin = self.height // 4
        ascent, descent = font.getmetrics()
        size = (max(1, int(right - left)) + 2 * margin, ascent + descent + self.height // 8)
        picture = Image.new("L", size, 255)
        baseline = max(ascent, -int(top)) + self.height // 16
        ImageDraw.Draw(picture).text((margin - left, baseline), text, font=font, fill=0, anchor="ls")
        return columns_of(picture, self.height)
