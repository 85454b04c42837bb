"""The command `unrolled inspect sensitivity`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from unrolled.analysis.figures import save, targets
from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError
from unrolled.settings import require
from unrolled.training.checkpoint import Which

if TYPE_CHECKING:
    from torch import Tensor

    from unrolled.models import LanguageModel


@dataclass(frozen=True)
class Arguments:
    """Show how long the first input has an effect: ∂h_t/∂x_1 over time in a tanh net and an LSTM, set by hand.

    With RUN, also show it for each layer of a trained language model, next to the same model before training (Graves
    2012, figure 4.4).
    """

    run: Annotated[str | None, Positional, arg(metavar="RUN")] = None
    """Run directory of a language model."""
    gates: Annotated[tuple[str, ...], arg(metavar="GATES...")] = ("i", "f", "f", "fo", "f", "fo", "f", "f", "", "o")
    """Open gates of the LSTM at each step: i writes, f keeps, o shows; -: none."""
    length: int = 40
    """Number of tokens that RUN reads."""
    text: Annotated[str | None, arg(metavar="FILE")] = None
    """Text for RUN to read (default: the text that its training held out)."""
    checkpoint: Which = "best"
    """Weights of RUN to use."""
    out: Annotated[Path, arg(metavar="FIGURE")] = Path("sensitivity")
    """Write FIGURE.png and FIGURE.svg."""
    overwrite: bool = False
    """Replace existing files."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    from unrolled.analysis.sensitivity import draw_sensitivity
    from unrolled.cli.inspecting import open_task, print_table, tokens_for

    require(2 <= arguments.length <= 1000, "length", "from 2 to 1,000", arguments.length)
    if arguments.text is not None and arguments.run is None:
        raise ConfigurationError("--text is read by a trained model: give its RUN")
    paths = targets(arguments.out, arguments.overwrite)
    schedule = [word.replace("-", "") for word in arguments.gates]
    rows, ticks = _by_hand(schedule)
    if arguments.run is not None:
        task = open_task(arguments.run, arguments.checkpoint, arguments.trust)
        tokens = tokens_for(task, arguments.text, arguments.length, 2)
        fresh: Any = task.fresh_model().eval()
        of_layers = {**_layers(fresh, tokens, "before training"), **_layers(task.model, tokens, "trained")}
        ticks[next(iter(of_layers))] = [_visible(task.vocabulary.decode([token])) for token in tokens]
        rows |= of_layers
    left = [[name, float(row[0]), float(row[len(row) // 2]), float(row[-1])] for name, row in rows.items()]
    print_table(("sensitivity to input 1", "at step 1", "halfway", "at the last"), left)
    save(draw_sensitivity(rows, ticks), paths)
    print(f"figure {' '.join(map(str, paths))}")
    return 0


def _by_hand(schedule: list[str]) -> tuple[dict[str, Tensor], dict[str, Sequence[str]]]:
    from unrolled.analysis.sensitivity import gates_by_hand, sensitivity, vanilla_by_hand

    vanilla = sensitivity(*vanilla_by_hand(len(schedule)))[:, 0]
    gated = sensitivity(*gates_by_hand(schedule))
    rows = {"tanh net, h": vanilla, "LSTM, cell state c": gated[:, 1], "LSTM, output h": gated[:, 0]}
    return rows, {"tanh net, h": [word or "-" for word in schedule]}


def _layers(model: LanguageModel, tokens, when: str) -> dict[str, Tensor]:
    import torch

    from unrolled.analysis.sensitivity import sensitivity
    from unrolled.analysis.states import trace

    with torch.no_grad():
        layers = trace(model.recurrent, model.embed(torch.from_numpy(tokens)[:, None]))
    return {
        f"layer {number}, {name}, {when}": sensitivity(layer.cell, layer.inputs.squeeze(1))[:, k]
        for number, layer in enumerate(layers, 1)
        for k, name in enumerate(model.recurrent.state_names)
    }


def _visible(text: str) -> str:
    return {"\n": "↵", " ": "␣", "\t": "⇥"}.get(text, text)
