"""`unrolled caption RUN PICTURE...`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from unrolled.cli.flags import Trust, as_flags
from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError, DataError, UnrolledError
from unrolled.settings import require
from unrolled.tasks import open_task

if TYPE_CHECKING:
    from unrolled.models.captioner import PictureFeatures
    from unrolled.tasks.captioning import CaptioningTask
    from unrolled.tasks.describer import Caption, Describer

#: Pictures that are described at once.
_BLOCK = 16


@dataclass(frozen=True)
class Arguments:
    """Describe pictures, with one line for each. Several runs form an ensemble.

    The output is a caption for one picture, and for several a name, a tab and a caption per line. A picture that cannot
    be read is reported, and the others are described.
    """

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory."""
    pictures: Annotated[tuple[str, ...], Positional, arg(metavar="PICTURE")]
    """Picture files, or folders of them."""
    ensemble: Annotated[tuple[str, ...], arg(metavar="RUN...")] = ()
    """More runs with the same words and encoder, whose probabilities are averaged with RUN's."""
    beam: int = 3
    """Hypotheses kept at each step; 1: greedy search (argmax)."""
    n_best: int = 0
    """Print this many captions of each picture, with scores; 0: print only the best, without its score."""
    length_penalty: float = 0.7
    """Exponent of the length by which a log-probability is divided; 0: no division, so short captions win."""
    min_length: int = 0
    """Minimum number of words."""
    no_repeat: int = 0
    """Let no sequence of this many words occur twice in a caption; 0: no limit."""
    diversity: float = 0.0
    """Penalty of a word for each time an earlier group chose it; above 0, the beam is searched in --groups."""
    groups: Annotated[int | None, arg(metavar="N")] = None
    """Number of groups in the beam that avoid each other's choices (default: one per hypothesis)."""
    prefix: Annotated[str, arg(metavar="TEXT")] = ""
    """Words that every caption begins with: "a dog"."""
    sample: int = 0
    """Sample this many captions of each picture instead of searching for the best; 0: search."""
    temperature: float = 1.0
    """Temperature of --sample."""
    top_p: float = 1.0
    """Nucleus of --sample: draw from the fewest words whose total probability reaches this."""
    seed: int = 1
    """Seed of --sample."""
    json: bool = False
    """Write a JSON object per picture, with all captions, their log-probabilities and scores."""
    attention: Annotated[Path | None, arg(metavar="OUT.png")] = None
    """Draw where the decoder looks in the first picture before each word; for show-attend-tell."""
    tree: Annotated[Path | None, arg(metavar="OUT")] = None
    """Write the search tree of the first picture, as data (OUT.json) or as a picture (OUT.svg)."""
    overwrite: bool = False
    """Replace existing files."""
    checkpoint: Literal["best", "last"] = "best"
    """Checkpoint to use."""
    device: str = "cpu"
    """cpu, cuda, mps."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    _check(arguments)
    if not arguments.sample:
        _search(arguments)  # says what is wrong with it before a picture is read
    from unrolled.tasks.captioning import CaptioningTask
    from unrolled.tasks.describer import Describer

    tasks = [
        open_task(run, arguments.device, arguments.checkpoint, CaptioningTask, trust=arguments.trust)
        for run in (arguments.run, *arguments.ensemble)
    ]
    describer = Describer(tasks)
    files, failed, first = list(_files(arguments.pictures)), 0, True
    for k in range(0, len(files), _BLOCK):
        read, features = _read(tasks, files[k : k + _BLOCK])
        failed += len(files[k : k + _BLOCK]) - len(read)
        if not read:
            continue
        found = _captions(describer, features, arguments)
        if first:
            _draw(describer, features, read[0], found[0], arguments)
            first = False
        for file, some in zip(read, found, strict=True):
            _say(file if len(files) > 1 else "", file, some, arguments)
        sys.stdout.flush()
    return 2 if failed else 0


def _check(arguments: Arguments) -> None:
    if not arguments.pictures:
        raise ConfigurationError("name at least one PICTURE")
    if "" in arguments.pictures:  # an empty variable of a shell, which would be the folder that the user is in
        raise ConfigurationError("a PICTURE is empty: name a file or a folder")
    for name in ("n_best", "sample", "seed"):
        require(getattr(arguments, name) >= 0, name, "0 or above", getattr(arguments, name))
    require(arguments.sample <= 1000, "sample", "at most 1,000", arguments.sample)
    if arguments.sample and (arguments.n_best or arguments.tree is not None or arguments.prefix):
        raise ConfigurationError("--sample draws captions, it has no --n-best, --tree or --prefix", setting="sample")
    for name, endings in (("attention", (".png", ".svg", ".pdf")), ("tree", (".json", ".svg"))):
        path = getattr(arguments, name)
        if path is None:
            continue
        if path.suffix not in endings:
            raise ConfigurationError(f"--{name} {path}: the name must end in {' or '.join(endings)}")
        from unrolled.analysis.figures import check_target

        check_target(path, arguments.overwrite)


def _files(named: Sequence[str]) -> Iterator[str]:
    """Iterate over the files, and over the pictures in the folders."""
    from unrolled.data.pictures import IMAGE_SUFFIXES

    for name in named:
        path = Path(name)
        if not path.is_dir():
            yield name
            continue
        found = [
            str(each)
            for each in sorted(path.rglob("*"))
            if each.suffix.lower() in IMAGE_SUFFIXES and not each.name.startswith(".")
        ]
        if not found:
            raise DataError(f"{name}: there are no pictures in this folder")
        yield from found


def _read(tasks: Sequence[CaptioningTask], files: Sequence[str]) -> tuple[list[str], PictureFeatures]:
    """Return the pictures that can be read and their features; the others are reported."""
    from unrolled.data.pictures import read_picture

    read, arrays = [], []
    for file in files:
        try:
            arrays.append(read_picture(file))
            read.append(file)
        except DataError as error:
            print(f"unrolled: error: {as_flags(error)}", file=sys.stderr)
    return read, tasks[0].encode_arrays(arrays, grids=any(task.config.model.reads_grid for task in tasks))


def _search(arguments: Arguments) -> Any:
    from unrolled.decoding import search_for

    names = ("length_penalty", "min_length", "no_repeat", "groups", "diversity")
    options = {name: getattr(arguments, name) for name in names}
    return search_for(beam=arguments.beam, n_best=max(1, arguments.n_best), **options)


def _captions(describer: Describer, features: PictureFeatures, arguments: Arguments) -> list[list[Caption]]:
    if not arguments.sample:
        return describer.describe(features, _search(arguments), arguments.prefix)
    import torch

    from unrolled.decoding import Sampling

    how = Sampling(arguments.temperature, 0, arguments.top_p)
    generator = torch.Generator(describer.device).manual_seed(arguments.seed)
    return describer.sample(features, how, arguments.sample, generator)


def _say(label: str, file: str, found: Sequence[Caption], arguments: Arguments) -> None:
    if arguments.json:
        captions = [{"caption": one.text, "log_prob": one.log_prob, "score": one.score} for one in found]
        print(json.dumps({"file": file, "captions": captions}, ensure_ascii=False))
        return
    start = f"{label}\t" if label else ""
    if arguments.n_best or arguments.sample:
        for one in found:
            print(f"{start}{one.score:.4f}\t{one.text}")
    else:
        print(f"{start}{found[0].text if found else ''}")


def _draw(
    describer: Describer, features: PictureFeatures, file: str, found: Sequence[Caption], arguments: Arguments
) -> None:
    """Write the figures of the first picture that the user asks for."""
    if arguments.attention is None and arguments.tree is None:
        return
    from unrolled.models.captioner import PictureFeatures

    grid = None if features.grid is None else features.grid[:1]
    one = PictureFeatures(features.vector[:1], grid)
    if arguments.tree is not None:
        from unrolled.analysis.search_trees import tree_svg
        from unrolled.decoding import tree_json

        root = describer.tree(one, _search(arguments), arguments.prefix)
        as_text = describer.token_text
        text = tree_json([root], as_text) if arguments.tree.suffix == ".json" else tree_svg(root, as_text, file)
        arguments.tree.write_text(text, encoding="utf-8")
    if arguments.attention is not None:
        from unrolled.analysis.captions import draw_attention
        from unrolled.data.pictures import read_picture

        words = found[0].words if found else ()
        weights = describer.attention(one, words)
        if weights is None:
            raise UnrolledError("--attention: this decoder attends to nothing; train --model show-attend-tell")
        figure = draw_attention(read_picture(file), words, weights)
        figure.savefig(arguments.attention, dpi=120)
