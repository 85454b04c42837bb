"""The command `unrolled inspect codes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from unrolled.analysis.figures import save, targets
from unrolled.cli.parsing import parse
from unrolled.experiments.names import OBJECTS
from unrolled.settings import require, require_choice


@dataclass(frozen=True)
class Arguments:
    """Train small nets to name drawn objects, leave one object out of training, and show how the nets name it.

    The nets have one output unit for each object (a local code) or for each property (a distributed code). For the
    table, each object is left out once; the figure shows --unseen.
    """

    unseen: Annotated[str, arg(metavar="OBJECT", help=f"Object in the figure: {', '.join(OBJECTS)}.")] = "circle"
    pixels: bool = False
    """Give the nets the pictures themselves, not height, width, and the share of its box that the object fills."""
    nets: int = 5
    """Nets for each object left out; the results are means over them."""
    seed: int = 1
    """Seed of weights and pictures."""
    out: Annotated[Path, arg(metavar="FIGURE")] = Path("codes")
    """Write FIGURE.png and FIGURE.svg."""
    overwrite: bool = False
    """Replace existing files."""


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    from unrolled.cli.inspecting import print_table
    from unrolled.experiments.codes import CODES, draw_codes, train_code

    require_choice("unseen", arguments.unseen, tuple(OBJECTS))
    require(1 <= arguments.nets <= 1000, "nets", "from 1 to 1,000", arguments.nets)
    require(0 <= arguments.seed < 1 << 62, "seed", "from 0 to below 2^62", arguments.seed)
    paths = targets(arguments.out, arguments.overwrite)
    found = {
        code: train_code(code, pixels=arguments.pixels, nets=arguments.nets, seed=arguments.seed) for code in CODES
    }
    rows = []
    for number, unseen in enumerate(OBJECTS):
        row = [unseen]
        for result in found.values():
            right = result.right[number]
            row += [f"{(right.sum() - right[number]) / (len(OBJECTS) - 1):.1%}", f"{right[number]:.1%}"]
        rows.append(row)
    heads = [f"{code}, {what}" for code in CODES for what in ("others", "unseen")]
    print("share of new pictures whose object is named correctly")
    print_table(("unseen object", *heads), rows)
    place = list(OBJECTS).index(arguments.unseen)
    shown = {code: result.activations[place] for code, result in found.items()}
    save(draw_codes(shown, arguments.unseen, arguments.seed), paths)
    print(f"figure {' '.join(map(str, paths))}")
    return 0
