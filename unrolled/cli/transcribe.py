"""`unrolled transcribe RUN FILE...`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

from tyro.conf import Positional, arg

from unrolled.cli.flags import Trust, as_flags
from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError, DataError
from unrolled.tasks import open_task
from unrolled.tasks.transcribing_settings import DecodingConfig

if TYPE_CHECKING:
    import numpy as np

    from unrolled.tasks.transcribing import TranscribingTask
    from unrolled.tasks.transcribing_decoding import Decoder, Transcript

#: Files that are transcribed at once.
_BLOCK = 64
#: Seconds of sound that are read at once in a stream.
_PIECE = 0.1


@dataclass(frozen=True)
class Arguments:
    """Transcribe recordings, pictures of lines, or features.

    The output is a text for one file, and for several a name, a tab and a text per line. A file that cannot be read is
    reported, and the others are transcribed.
    """

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory."""
    files: Annotated[tuple[str, ...], Positional, arg(metavar="FILE")]
    """Files of the kind of training, or folders of them; with `stream`, one recording, or -: raw samples on standard
    input, 16 bits, one channel, at the run's rate."""
    json: bool = False
    """Write a JSON object per file, with the time and confidence of every character."""
    stream: bool = False
    """Transcribe sound as it comes, and print the text whenever it changes. The model must read forwards."""
    beam: int = 0
    """Hypotheses of the prefix beam; 0: the best path (16 with `lm` or `lexicon`)."""
    lm: Annotated[str, arg(metavar="RUN|FILE")] = ""
    """A language model for the beam: a run of `unrolled train lm --level char`, or a file of KenLM."""
    lm_weight: float = 0.5
    """Weight of the language model's log-probabilities."""
    length_bonus: float = 1.0
    """What each character adds to the score of a text, in nats, with a language model."""
    lexicon: Annotated[str, arg(metavar="FILE")] = ""
    """A file of words; only these are written."""
    checkpoint: Literal["best", "last"] = "best"
    """Checkpoint to use."""
    device: str = "cpu"
    """cpu, cuda, mps."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    if not arguments.files:
        raise ConfigurationError("name at least one FILE")
    if "-" in arguments.files and not arguments.stream:
        raise ConfigurationError("-: only --stream reads standard input; name a file", setting="stream")
    names = ("beam", "lm", "lm_weight", "length_bonus", "lexicon")
    decoding = DecodingConfig(**{name: getattr(arguments, name) for name in names})
    from unrolled.tasks.transcribing import TranscribingTask

    task = open_task(arguments.run, arguments.device, arguments.checkpoint, TranscribingTask, trust=arguments.trust)
    decoder = task.decoder(decoding, arguments.trust)
    for note in decoder.notes:
        print(f"unrolled: note: {note}", file=sys.stderr)
    if arguments.stream:
        return _stream(task, decoder, arguments)
    return _whole(task, decoder, arguments)


def _whole(task: TranscribingTask, decoder: Decoder, arguments: Arguments) -> int:
    """Transcribe whole files; 2 if one of them could not be read."""
    files, failed = list(_files(arguments.files, task.signal.kind)), 0
    for first in range(0, len(files), _BLOCK):
        read: list[str] = []
        frames: list[np.ndarray] = []
        for file in files[first : first + _BLOCK]:
            try:
                frames.append(task.inputs.of_source(file))
                read.append(file)
            except DataError as error:
                print(f"unrolled: error: {as_flags(error)}", file=sys.stderr)
                failed += 1
        for file, found in zip(read, task.decode(frames, decoder), strict=True):
            _say(found, file if len(files) > 1 else "", arguments.json, file)
        sys.stdout.flush()
    return 2 if failed else 0


def _say(found: Transcript, label: str, as_json: bool, file: str) -> None:
    if as_json:
        print(json.dumps({"file": file, **found.json()}, ensure_ascii=False))
    else:
        print(f"{label}\t{found.text}" if label else found.text)


def _files(named: Sequence[str], kind: str) -> Iterator[str]:
    """Iterate over the files, and over those of the run's kind in the folders."""
    from unrolled.data.transcripts import kind_of

    for name in named:
        path = Path(name)
        if not path.is_dir():
            yield name
            continue
        found = []
        for each in sorted(path.rglob("*")):
            try:
                if each.is_file() and kind_of(each) == kind:
                    found.append(str(each))
            except DataError:
                continue  # a file of another kind, such as a transcript
        if not found:
            raise DataError(f"{name}: there are no {kind} in this folder")
        yield from found


def _stream(task: TranscribingTask, decoder: Decoder, arguments: Arguments) -> int:
    """Print the transcript of one recording as it grows; in the end the whole."""
    from unrolled.tasks.transcribing_stream import TranscriptStream

    if len(arguments.files) > 1:
        raise ConfigurationError("--stream takes one recording", setting="stream")
    if task.signal.kind != "audio":
        said = f"{task.run.path}: its model reads {task.signal.kind}; --stream needs one trained on recordings"
        raise ConfigurationError(said, setting="stream")
    stream = TranscriptStream(task, decoder)
    rewrite = sys.stdout.isatty() and not arguments.json
    text = ""
    for piece in _pieces(task, arguments.files[0]):
        found = stream.feed(piece)
        if found.text != text:
            text = found.text
            seconds = stream.frames * 0.01
            if arguments.json:
                print(json.dumps({"seconds": round(seconds, 2), "text": text}, ensure_ascii=False))
            else:
                print(f"\r\x1b[K{text}" if rewrite else f"{seconds:.1f}\t{text}", end="" if rewrite else "\n")
            sys.stdout.flush()
    if rewrite:
        print("\r\x1b[K", end="")
    _say(stream.finish(), "", arguments.json, arguments.files[0])
    return 0


def _pieces(task: TranscribingTask, file: str) -> Iterator[np.ndarray]:
    """Iterate over a recording, or over raw samples on standard input, in pieces."""
    import numpy as np

    from unrolled.data.audio import read_audio, resample

    rate = task.reader.audio.rate
    size = round(_PIECE * rate)
    if file != "-":
        recording = read_audio(file)
        samples = resample(recording.samples, recording.rate, rate)
        yield from (samples[first : first + size] for first in range(0, len(samples), size))
        return
    if sys.stdin is None or sys.stdin.closed:
        raise DataError("standard input is closed: pipe samples into it, or name a file")
    source, odd = cast(BufferedReader, sys.stdin.buffer), b""
    while data := source.read1(2 * size):  # what there is, without waiting for more
        data, odd = odd + data, b""
        if len(data) % 2:
            data, odd = data[:-1], data[-1:]
        yield np.frombuffer(data, "<i2").astype(np.float32) / 32768
