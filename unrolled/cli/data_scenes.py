"""The command `unrolled data scenes`: draw pictures with captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError
from unrolled.settings import require


@dataclass(frozen=True)
class Arguments:
    """Draw scenes of coloured shapes with five captions each, to try captioning without photographs.

    FOLDER holds `captions.jsonl`, and the pictures in `images`.
    """

    folder: Annotated[Path, Positional, arg(metavar="FOLDER")]
    """New folder."""
    count: int = 1500
    """Number of scenes."""
    size: int = 224
    """Height and width of the pictures, in pixels."""
    seed: int = 1
    """Seed for the choice of scenes."""


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    from rich.progress import track

    from unrolled.data.scenes import write_scenes

    require(1 <= arguments.count <= 100_000, "count", "from 1 to 100,000", arguments.count)
    require(16 <= arguments.size <= 1024, "size", "from 16 to 1,024", arguments.size)
    folder = arguments.folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder}: exists and is not an empty folder; choose another")
    written = write_scenes(folder, arguments.count, arguments.seed, arguments.size)
    for _ in track(written, "drawing", total=arguments.count, transient=True):
        pass
    print(f"data   {folder / 'captions.jsonl'}, {arguments.count:,} pictures")
    print(f"train  unrolled train caption --data {folder / 'captions.jsonl'}")
    return 0
