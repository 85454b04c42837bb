"""The command `unrolled inspect words`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from unrolled.analysis.figures import check_target, save, targets
from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError
from unrolled.settings import require
from unrolled.training.checkpoint import Which

if TYPE_CHECKING:
    from unrolled.data.vectors import WordVectors


@dataclass(frozen=True)
class Arguments:
    """Examine word vectors from a file in word2vec's or GloVe's text format, or from a language model's embedding.

    Without --nearest, --analogy, --questions, --map and --export, only the number of vectors is printed.
    """

    source: Annotated[str, Positional, arg(metavar="FILE-OR-RUN")]
    """A file of vectors, or the run directory of a language model."""
    nearest: Annotated[tuple[str, ...], arg(metavar="WORD...")] = ()
    """Show the words nearest to each of these, by cosine."""
    analogy: Annotated[tuple[str, ...], arg(metavar="A B C")] = ()
    """Show the words nearest to A - B + C, for example king man woman."""
    questions: Annotated[Path | None, arg(metavar="FILE")] = None
    """Score the analogies in a file like word2vec's questions-words.txt."""
    map: Annotated[tuple[str, ...], arg(metavar="WORD...")] = ()
    """Draw these words in two dimensions (principal components)."""
    count: int = 8
    """Number of words to show in each list."""
    export: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the vectors as text, with word2vec's header line."""
    checkpoint: Which = "best"
    """Weights of a run to use."""
    out: Annotated[Path, arg(metavar="FIGURE")] = Path("words")
    """Write the map as FIGURE.png and FIGURE.svg."""
    overwrite: bool = False
    """Replace existing files."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    from unrolled.analysis.words import AnalogyScore, Neighbours, draw_map, score_analogies
    from unrolled.cli.inspecting import print_table
    from unrolled.data.vectors import write_vectors

    require(1 <= arguments.count <= 1000, "count", "from 1 to 1,000", arguments.count)
    if arguments.analogy and len(arguments.analogy) != 3:
        raise ConfigurationError(f"--analogy takes three words, A - B + C, got {len(arguments.analogy)}")
    paths = targets(arguments.out, arguments.overwrite) if arguments.map else []
    if arguments.export is not None:
        check_target(arguments.export, arguments.overwrite)
    vectors = _vectors(arguments)
    neighbours = Neighbours(vectors)
    print(f"{len(vectors.words):,} words, {vectors.width} numbers each")
    for word in arguments.nearest:
        _print_list(f"nearest to {word}", neighbours.nearest(neighbours.vector(word), arguments.count, [word]))
    if arguments.analogy:
        a, b, c = arguments.analogy
        _print_list(f"{a} - {b} + {c}", neighbours.analogy(a, b, c, arguments.count))
    if arguments.questions is not None:
        scores = score_analogies(neighbours, arguments.questions)
        scores["all"] = sum(scores.values(), AnalogyScore(0, 0, 0))
        rows = [
            [
                title,
                score.right,
                score.asked,
                f"{score.right / score.asked:.1%}" if score.asked else "-",
                score.left_out,
            ]
            for title, score in scores.items()
        ]
        print_table(("analogies", "right", "asked", "", "with unknown words"), rows)
    if arguments.map:
        save(draw_map(neighbours, arguments.map), paths)
        print(f"figure {' '.join(map(str, paths))}")
    if arguments.export is not None:
        write_vectors(arguments.export, vectors.words, vectors.values)
        print(f"vectors {arguments.export}")
    return 0


def _vectors(arguments: Arguments) -> WordVectors:
    import numpy as np

    from unrolled.cli.inspecting import open_task
    from unrolled.data.vectors import WordVectors, read_vectors

    if not Path(arguments.source).is_dir():
        return read_vectors(arguments.source)
    task = open_task(arguments.source, arguments.checkpoint, arguments.trust)
    if task.model.embedding is None:
        raise ConfigurationError(f"{arguments.source}: this model reads one-hot vectors and has no embedding")
    values = task.model.embedding.weight.detach().numpy().astype(np.float32)
    return WordVectors(tuple(task.vocabulary.names()), values)


def _print_list(title: str, found: list[tuple[str, float]]) -> None:
    from unrolled.cli.inspecting import print_table

    print_table((title, "cosine"), [[repr(word)[1:-1], f"{cosine:6.3f}"] for word, cosine in found])
