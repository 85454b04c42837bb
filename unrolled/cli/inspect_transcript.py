"""The command `unrolled inspect transcript`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from unrolled.analysis.figures import save, targets
from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError, DataError
from unrolled.tasks import open_task
from unrolled.training.checkpoint import Which

if TYPE_CHECKING:
    import numpy as np

    from unrolled.tasks.transcribing import TranscribingTask


@dataclass(frozen=True)
class Arguments:
    """Show where a transcriber writes each character: its input, the probability of every label at every step, and how
    much one character depends on every part of the input (Graves 2012, figures 7.1 and 7.4)."""

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory of a transcriber."""
    file: Annotated[str | None, Positional, arg(metavar="FILE")] = None
    """Recording, picture or features (the first that its training held out)."""
    character: int = 0
    """Number of the character whose dependence on the input is shown, from 1; 0: the one in the middle."""
    checkpoint: Which = "best"
    """Weights to use."""
    out: Annotated[Path, arg(metavar="FIGURE")] = Path("transcript")
    """Write FIGURE.png and FIGURE.svg."""
    overwrite: bool = False
    """Replace existing files."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    import torch

    from unrolled.analysis.transcripts import Placed, draw_transcript, label_sensitivity
    from unrolled.data.frame_batches import collate
    from unrolled.tasks.transcribing import TranscribingTask

    paths = targets(arguments.out, arguments.overwrite)
    task = open_task(arguments.run, "cpu", arguments.checkpoint, TranscribingTask, trust=arguments.trust)
    name, inputs, wanted = _inputs(task, arguments.file)
    with torch.no_grad():
        scores, _ = task.model(collate([inputs]))
    found = task.decode([inputs], task.best_path)[0]
    probabilities = scores[:, 0].exp().numpy()
    placed = []
    for one in found.characters:
        label = task.labels.number[one.text]
        step = one.first + int(probabilities[one.first : one.last + 1, label].argmax())
        placed.append(Placed(one.text, label, step))
    if not 0 <= arguments.character <= len(placed):
        raise ConfigurationError(
            f"--character must be from 1 to {len(placed)}, the characters of {found.text!r}, or 0", setting="character"
        )
    chosen, sensitivity = None, None
    if placed:
        chosen = placed[arguments.character - 1 if arguments.character else len(placed) // 2]
        sensitivity = label_sensitivity(task.model, torch.from_numpy(inputs), chosen.step, chosen.label)[0].numpy()
    figure = draw_transcript(
        inputs,
        probabilities,
        task.labels.strings,
        placed,
        sensitivity,
        chosen,
        seconds=task.seconds_per_step,
        title=f"{name}: {found.text or '(nothing)'}",
    )
    print(f"{name}: {found.text}")
    if wanted is not None:
        print(f"{' ' * len(name)}  {wanted} (its transcript)")
    save(figure, paths)
    print(f"figure {' '.join(map(str, paths))}")
    return 0


def _inputs(task: TranscribingTask, file: str | None) -> tuple[str, np.ndarray, str | None]:
    """Return the name, the inputs of the model and, if it is known, the transcript."""
    if file is not None:
        return file, task.inputs.of_source(file), None
    part = task.items.dev or task.items.train
    if not part:
        raise DataError(f"{task.run.path}: there is nothing in it; name a FILE")
    number = part[0]
    return task.items.names[number], task.normalise(task.frames[number]), task.items.texts[number]
