"""The command `unrolled inspect surface`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from unrolled.analysis.figures import save, targets
from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError
from unrolled.settings import require


@dataclass(frozen=True)
class Arguments:
    """Draw the error surface of a one-unit recurrent net over (w, b), and plain and clipped gradient descent over it.

    The net computes h = w σ(h') + b for --steps steps from h = 0.5; the error is (σ(h) - target)² (Pascanu et al. 2013,
    figure 6).
    """

    steps: int = 50
    """Number of steps of the net."""
    target: float = 0.7
    """Target of the net's output σ(h) after the last step."""
    w: Annotated[tuple[float, float], arg(metavar="LOW HIGH")] = (3.5, 6.5)
    """Range of w."""
    b: Annotated[tuple[float, float], arg(metavar="LOW HIGH")] = (-3.5, -1.5)
    """Range of b."""
    start: Annotated[tuple[float, float], arg(metavar="W B")] = (5.0, -2.3)
    """Where both descents start."""
    learning_rate: float = 1.0
    """Learning rate of both descents."""
    clip_norm: float = 0.1
    """Norm to which the second descent rescales larger gradients."""
    updates: int = 50
    """Updates of each descent."""
    out: Annotated[Path, arg(metavar="FIGURE")] = Path("surface")
    """Write FIGURE.png and FIGURE.svg."""
    overwrite: bool = False
    """Replace existing files."""


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    from unrolled.cli.inspecting import print_table
    from unrolled.experiments.surface import OneUnit, descend, draw_surface

    require(1 <= arguments.steps <= 10_000, "steps", "from 1 to 10,000", arguments.steps)
    require(1 <= arguments.updates <= 100_000, "updates", "from 1 to 100,000", arguments.updates)
    require(0 < arguments.learning_rate < math.inf, "learning_rate", "above 0", arguments.learning_rate)
    require(0 < arguments.clip_norm < math.inf, "clip_norm", "above 0", arguments.clip_norm)
    for name in ("w", "b"):
        low, high = getattr(arguments, name)
        if not -math.inf < low < high < math.inf:
            raise ConfigurationError(f"--{name} must be two numbers, the smaller first, got {low} {high}")
    if not all(map(math.isfinite, (*arguments.start, arguments.target))):
        raise ConfigurationError("--start and --target must be finite numbers")
    paths = targets(arguments.out, arguments.overwrite)
    unit = OneUnit(arguments.steps, target=arguments.target)
    given = {"learning_rate": arguments.learning_rate, "updates": arguments.updates}
    descents = {
        "plain": descend(unit, arguments.start, **given),  # type: ignore[arg-type]
        f"clipped at norm {arguments.clip_norm:g}": descend(
            unit,
            arguments.start,
            clip_norm_at=arguments.clip_norm,
            **given,  # type: ignore[arg-type]
        ),
    }
    rows = [
        [name, float(way.errors[0]), float(way.errors[-1]), float(way.errors.min()), way.largest_step]
        for name, way in descents.items()
    ]
    print_table(("descent", "first error", "last error", "lowest", "largest step"), rows)
    save(draw_surface(unit, descents, arguments.w, arguments.b), paths)
    print(f"figure {' '.join(map(str, paths))}")
    return 0
