"""Pictures as arrays, read from files of every usual format."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from unrolled.errors import DataError

#: The endings of the names of pictures.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm", ".ppm", ".pbm")
#: What Pillow raises for damaged files, besides OSError; MemoryError, if a damaged header asks for too much.
_DAMAGED = (
    *(ValueError, SyntaxError, EOFError, TypeError, LookupError, ArithmeticError, RuntimeError),
    *(MemoryError, struct.error, zlib.error),
)


def read_picture(path: str | Path) -> np.ndarray:
    """Return a picture, `[H, W, 3]` uint8, red, green and blue.

    It is turned as its EXIF says. Transparent parts are white, 16 bits are scaled to 8, and of an animation the first
    frame is read. Raises DataError if it cannot be read.
    """
    return np.array(open_picture(path, "RGB"))


def scaled(picture: np.ndarray, size: int) -> np.ndarray:
    """Return a picture `[H, W, 3]` uint8 as a square, `[size, size, 3]`, whatever its proportions, antialiased."""
    if picture.shape[:2] == (size, size):
        return picture
    return np.array(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))


def open_picture(path: str | Path, mode: str, what: str = "a picture") -> Image.Image:
    """Return a picture in Pillow's mode "RGB" or "L", upright and on white; see `read_picture`.

    what: what it should be, for the message about too many pixels. Raises DataError if it cannot be read.
    """
    try:
        with Path(path).open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of damaged metadata; damaged pictures are errors
            with Image.open(file) as picture:
                return _on_white(ImageOps.exif_transpose(picture)).convert(mode)
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: cannot be read as a picture{_instead(path)}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a picture ({error.strerror or error})") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: it has more pixels than {what} can have") from error
    except _DAMAGED as error:
        raise DataError(f"{path}: cannot be read as a picture ({_line(error)})") from error


def _on_white(picture: Image.Image) -> Image.Image:
    """Return a picture with 8 bits per value and without transparent parts."""
    if picture.mode.startswith("I") or picture.mode == "F":  # 16 bits, which Pillow would cut off at 255
        values = np.asarray(picture, np.float64)
        if not np.isfinite(values).all():
            raise ValueError("some of its values are not finite numbers")
        low, high = (0.0, 65535.0) if picture.mode != "F" else (float(values.min()), float(values.max()))
        if picture.mode == "I" and values.max(initial=0) <= 255:
            high = 255.0
        values = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
        return Image.fromarray((values * 255).round().astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return picture


def _instead(path: str | Path) -> str:
    """Return what a file is that Pillow does not know, in parentheses, if that is clear."""
    with Path(path).open("rb") as file:
        start = file.read(512).lstrip().lower()
    if not start:
        return " (the file is empty)"
    if start.startswith((b"<!doctype html", b"<html")):
        return " (it is a web page)"
    return " (it is SVG, not pixels)" if b"<svg" in start else ""


def _line(error: BaseException) -> str:
    """Return the message of an error on one line, or its name if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
