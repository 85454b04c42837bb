"""The command `unrolled sample RUN`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.data.lines import readable
from unrolled.errors import DecodingError
from unrolled.tasks import open_task
from unrolled.training.checkpoint import Which


@dataclass(frozen=True)
class Arguments:
    """Generate text from a run."""

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory."""
    prime: str = ""
    """Text to continue, in any script."""
    length: int = 1000
    """Tokens to generate: characters, words, bytes or BPE pieces, as the run was trained."""
    temperature: float = 0.8
    """Below 1 the text is safer, above 1 wilder; 0: always the most probable token."""
    top_k: int = 0
    """Sample from the k most probable tokens; 0: from all."""
    top_p: float = 1.0
    """Nucleus sampling: sample from the fewest tokens whose probabilities sum to at least p."""
    seed: Annotated[int | None, arg(metavar="N")] = None
    """Random seed; the same seed gives the same text."""
    stop: str = ""
    """End a text before this string."""
    count: int = 1
    """Number of texts, generated as one batch."""
    checkpoint: Which = "best"
    """Weights to use."""
    device: str = "cpu"
    """Device: cpu, cuda or mps."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    from unrolled.tasks.language import LanguageTask

    task = open_task(arguments.run, arguments.device, arguments.checkpoint, LanguageTask, trust=arguments.trust)
    parts = task.stream(
        arguments.prime,
        count=arguments.count,
        length=arguments.length,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=arguments.seed,
        stop=arguments.stop,
    )
    if note := task.unknown_note(task.vocabulary.unknown(readable(arguments.prime))):
        print(f"unrolled: note: of --prime, {note}", file=sys.stderr)
    if arguments.count > 1:
        for k, text in enumerate(map("".join, zip(*parts, strict=True))):
            print(f"--- {k + 1} of {arguments.count} ---\n{text}")
        return 0
    try:
        for (part,) in parts:  # a single text is printed while it is generated
            print(part, end="", flush=True)
    except DecodingError:
        print()  # after the text so far
        raise
    print()
    return 0
