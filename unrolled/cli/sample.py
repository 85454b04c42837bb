"""`unrolled sample RUN`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.data.lines import readable
from unrolled.errors import DecodingError
from unrolled.settings import require
from unrolled.tasks import open_task
from unrolled.training.checkpoint import Which

if TYPE_CHECKING:
    from unrolled.tasks.language import LanguageTask

#: Tokens, read and written, for which the eager loop is faster than to plan, or to look for a plan that is kept.
_FEW = 200


@dataclass(frozen=True)
class Arguments:
    """Generate text from a run's best checkpoint."""

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory."""
    prime: str = ""
    """Text to go on from, in any script."""
    length: int = 1000
    """Tokens to generate: characters, words, bytes or BPE pieces, as the run was trained."""
    temperature: float = 0.8
    """Below 1 safer, above 1 wilder; 0: always the most probable token."""
    top_k: int = 0
    """Choose among the k most probable tokens; 0: among all."""
    top_p: float = 1.0
    """Choose among the fewest tokens whose probabilities reach p together."""
    seed: Annotated[int | None, arg(metavar="N")] = None
    """The same seed gives the same text."""
    stop: str = ""
    """End a text in front of this string."""
    count: int = 1
    """Texts to generate, all at once."""
    checkpoint: Which = "best"
    """Which weights."""
    device: str = "cpu"
    """cpu, cuda, mps."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    import torch

    from unrolled.decoding import Sampling, generate
    from unrolled.tasks.language import LanguageTask

    # Bytes that are not UTF-8 are no text to go on from.
    arguments = replace(arguments, prime=readable(arguments.prime), stop=readable(arguments.stop))
    require(arguments.length >= 1, "length", "at least 1", arguments.length)
    require(1 <= arguments.count <= 10_000, "count", "from 1 to 10,000", arguments.count)
    require(arguments.seed is None or 0 <= arguments.seed < 1 << 63, "seed", "from 0 to below 2^63", arguments.seed)
    sampling = Sampling(arguments.temperature, arguments.top_k, arguments.top_p)
    task = open_task(arguments.run, arguments.device, arguments.checkpoint, LanguageTask, trust=arguments.trust)
    if note := task.unknown_note(task.vocabulary.unknown(arguments.prime)):
        print(f"unrolled: note: of --prime, {note}", file=sys.stderr)
    generator = torch.Generator(task.device)
    if arguments.seed is None:
        generator.seed()
    else:
        generator.manual_seed(arguments.seed)
    prompt = task.prompt(arguments.prime or "\n", arguments.count)
    if len(prompt) + arguments.length <= _FEW:
        task.model.recurrent.backend = "eager"
    try:
        _print_texts(task, generate(task.model, prompt, sampling, generator), arguments)
    except DecodingError:
        if arguments.count == 1:
            print()  # behind the text before
        raise
    return 0


def _print_texts(task: LanguageTask, steps, arguments: Arguments) -> None:
    """One text is shown while it grows; several are shown when they are done."""
    from unrolled.decoding import TextStream

    context = task.vocabulary.encode(arguments.prime).tolist()
    streams = [TextStream(task.vocabulary, arguments.stop, context) for _ in range(arguments.count)]
    texts = [arguments.prime] * arguments.count
    alone = arguments.count == 1
    if alone:
        print(arguments.prime, end="", flush=True)
    for _ in range(arguments.length):
        for k, token in enumerate(next(steps).tolist()):
            new = streams[k].feed(token)
            texts[k] += new
            if alone:
                print(new, end="", flush=True)
        if all(stream.stopped for stream in streams):
            break
    rest = [stream.finish() for stream in streams]
    if alone:
        print(rest[0])
        return
    for k, text in enumerate(texts):
        print(f"--- {k + 1} of {arguments.count} ---\n{text}{rest[k]}")
