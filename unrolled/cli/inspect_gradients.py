"""The command `unrolled inspect gradients`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from unrolled.analysis.figures import save, targets
from unrolled.cells import CELL_NAMES, CELLS
from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError
from unrolled.settings import require
from unrolled.training.checkpoint import Which

if TYPE_CHECKING:
    from unrolled.analysis.gradients import GradientFlow
    from unrolled.cells import Cell


@dataclass(frozen=True)
class Arguments:
    """Show how far gradients reach: the exact norm of ∂s_t/∂s_k against t-k, where s is the whole state of a cell.

    By default it is computed for fresh cells over random input. With RUN of a language model, it is computed for each
    layer, over text. With --radius, it is computed for a random net whose recurrent weights are scaled to that spectral
    radius, with tanh and with ReLU. With RUN of any other task, the command shows the norm of ∂loss/∂s_t at every step
    t of each cell, over a batch of the run's own data.
    """

    run: Annotated[str | None, Positional, arg(metavar="RUN")] = None
    """Run directory, of any task."""
    cells: Annotated[tuple[str, ...], arg(metavar="NAME...", help=f"Fresh cells, of {CELL_NAMES}.")] = tuple(CELLS)
    length: int = 50
    """Maximum number of steps to look back. For tasks other than language models: each cell's last steps to show."""
    hidden_size: int = 32
    """Hidden size of the fresh cells, or of the net of --radius."""
    keep_bias: Annotated[float | None, arg(metavar="B")] = None
    """Initial bias of the fresh cells' gates that keep the state, such as an LSTM's forget gate.
    The bias of an LSTM's input gate is minus this. log(steps to remember) is a common choice."""
    state: Annotated[str | None, arg(metavar="NAME")] = None
    """Use only this state, h or c (default: all together)."""
    text: Annotated[str | None, arg(metavar="FILE")] = None
    """Text for RUN to read (default: the text that its training held out)."""
    radius: Annotated[tuple[float, ...], arg(metavar="R...")] = ()
    """Spectral radii of the random net, for example 0.5 0.9 1 1.1 2."""
    clip_norm: float = 0.0
    """With --radius: rescale the gradient to this norm after every step back; 0: never."""
    clip_value: float = 0.0
    """With --radius: clip each element of the gradient to ± this; 0: never."""
    seed: int = 1
    """Seed of weights and inputs."""
    checkpoint: Which = "best"
    """Weights of RUN to use."""
    out: Annotated[Path, arg(metavar="FIGURE")] = Path("gradients")
    """Write FIGURE.png and FIGURE.svg."""
    overwrite: bool = False
    """Replace existing files."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    require(1 <= arguments.length <= 100_000, "length", "from 1 to 100,000", arguments.length)
    require(1 <= arguments.hidden_size <= 4096, "hidden_size", "from 1 to 4,096", arguments.hidden_size)
    require(0 <= arguments.seed < 1 << 63, "seed", "from 0 to below 2^63", arguments.seed)
    for name in ("clip_norm", "clip_value"):
        require(getattr(arguments, name) >= 0, name, "0 (off) or above", getattr(arguments, name))
    if arguments.run is not None and arguments.radius:
        raise ConfigurationError("--radius uses a random net; leave out RUN")
    fresh = ("cells", "hidden_size", "keep_bias", "seed")
    changed = [name for name in fresh if getattr(arguments, name) != getattr(Arguments, name)]
    if arguments.run is not None and changed:
        raise ConfigurationError(f"`{changed[0]}` is about fresh cells; leave it out, or RUN", setting=changed[0])
    if (arguments.clip_norm or arguments.clip_value) and not arguments.radius:
        raise ConfigurationError("--clip-norm and --clip-value belong to --radius")
    if arguments.text is not None and arguments.run is None:
        raise ConfigurationError("--text is read by a trained model: give its RUN")
    paths = targets(arguments.out, arguments.overwrite)
    if arguments.radius:
        figure = _scaled(arguments)
    elif arguments.run is not None:
        figure = _trained(arguments)
    else:
        figure = _fresh(arguments)
    save(figure, paths)
    print(f"figure {' '.join(map(str, paths))}")
    return 0


def _fresh(arguments: Arguments):
    import torch

    from unrolled.analysis.flows import flow_from_several_ends
    from unrolled.analysis.gates import keep_memory
    from unrolled.analysis.gradients import draw_flows
    from unrolled.layers.wrap import make_cell

    flows: dict[str, GradientFlow] = {}
    size = arguments.hidden_size
    cells: dict[str, Cell] = {}
    for name in dict.fromkeys(arguments.cells):
        torch.manual_seed(arguments.seed)  # the same inputs for all
        inputs = torch.randn(arguments.length, size, dtype=torch.float64)
        cells[name] = cell = make_cell(name, size, size, torch.float64)
        if arguments.keep_bias is not None:
            keep_memory(cell, arguments.keep_bias)
        flows[name] = flow_from_several_ends(cell, inputs, None, arguments.state)
    _print_flows(flows, cells)
    return draw_flows(flows, f"Fresh cells of {size} units over random input")


def _trained(arguments: Arguments):
    import torch

    from unrolled.analysis.flows import flows_over
    from unrolled.analysis.gradients import draw_flows
    from unrolled.cli.inspecting import open_task, tokens_for
    from unrolled.tasks import task_of
    from unrolled.training import open_run

    if not task_of(open_run(arguments.run or "")).reads_text:
        return _of_the_loss(arguments)
    task = open_task(arguments.run or "", arguments.checkpoint, arguments.trust)
    length = arguments.length
    tokens = tokens_for(task, arguments.text, 11 * length, 2)
    flows, cells = flows_over(task.model, torch.from_numpy(tokens), length, arguments.state)
    _print_flows(flows, cells)
    return draw_flows(flows, f"{task.config.model.cell} of {arguments.run}, over text")


def _of_the_loss(arguments: Arguments):
    from unrolled.analysis.loss_flow import draw_loss_gradients, loss_gradients, loss_table
    from unrolled.cli.inspecting import print_table
    from unrolled.tasks import open_task
    from unrolled.tasks.base import Task

    task: Task = open_task(arguments.run or "", "cpu", arguments.checkpoint, trust=arguments.trust)
    if arguments.text is not None:
        raise ConfigurationError(f"--text is read by language models; {arguments.run} is a {task.kind} run")
    batch, what = task.examined()
    batch = batch.to(task.device)
    norms = loss_gradients(task.model, lambda: task.loss(batch, None)[0] / max(1, batch.count), arguments.state)
    print_table(*loss_table(norms, arguments.length))
    return draw_loss_gradients(norms, arguments.length, f"{arguments.run}, over {what}")


def _print_flows(flows: dict[str, GradientFlow], cells: dict[str, Cell]) -> None:
    from unrolled.analysis.flows import flow_table, matrix_table
    from unrolled.cli.inspecting import print_table

    print_table(*flow_table(flows))
    print()
    print_table(*matrix_table(cells))


def _scaled(arguments: Arguments):
    from unrolled.analysis.scaled import carry_back, draw_scaled, scaled_table
    from unrolled.cli.inspecting import print_table

    for radius in arguments.radius:
        require(0 < radius <= 100, "radius", "above 0 and at most 100", radius)
    runs = [
        carry_back(
            radius,
            nonlinearity,
            hidden_size=arguments.hidden_size,
            steps=arguments.length,
            clip_norm_at=arguments.clip_norm,
            clip_value_at=arguments.clip_value,
            seed=arguments.seed,
        )
        for nonlinearity in ("tanh", "relu")
        for radius in arguments.radius
    ]
    print_table(*scaled_table(runs))
    clipped = [
        f"{what} clipped at {at:g}"
        for what, at in (("norm", arguments.clip_norm), ("values", arguments.clip_value))
        if at
    ]
    return draw_scaled(runs, f", {' and '.join(clipped)}" if clipped else "")
