"""`unrolled segment RUN FILE`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError, DataError
from unrolled.tasks import open_task

if TYPE_CHECKING:
    from unrolled.tasks.segmenting import SegmentingTask


@dataclass(frozen=True)
class Arguments:
    """Label every frame of sequences.

    The output is a line per segment, with tabs between: the sequence, its first frame, the frame after its last, and
    the label.
    """

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory."""
    file: Annotated[str, Positional, arg(metavar="FILE")] = "-"
    """Archive (.npz) of frames, or a folder of them; labels in it are not read. With `online`: a text with a frame per
    line, numbers with spaces or commas between; -: standard input."""
    to: Literal["segments", "frames", "jsonl"] = "segments"
    """Form of the output: a line per segment, a line per frame, or a JSON object per sequence."""
    online: bool = False
    """Write each frame's label and its probability as soon as the frame is read. The model must read forwards."""
    checkpoint: Literal["best", "last"] = "best"
    """Checkpoint to use."""
    device: str = "cpu"
    """cpu, cuda, mps."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    if arguments.file == "-" and not arguments.online:
        raise ConfigurationError("name a FILE (.npz); only --online reads standard input", setting="online")
    if arguments.online and arguments.to != "segments":
        said = "--to is about whole sequences: --online writes a line per frame, so leave one of them out"
        raise ConfigurationError(said, setting="to")
    from unrolled.tasks.segmenting import SegmentingTask

    task = open_task(arguments.run, arguments.device, arguments.checkpoint, SegmentingTask, trust=arguments.trust)
    if arguments.online:
        return _online(task, arguments.file)
    from unrolled.data.labelled_frames import read_frame_sequences
    from unrolled.metrics.segments import segments_of

    sequences = read_frame_sequences(arguments.file, with_labels=False)
    labels = task.label([task.inputs_of(one) for one in sequences])
    for sequence, found in zip(sequences, labels, strict=True):
        if arguments.to == "jsonl":
            segments = [[one.first, one.end, one.label] for one in segments_of(found)]
            print(json.dumps({"name": sequence.name, "labels": found, "segments": segments}, ensure_ascii=False))
        elif arguments.to == "frames":
            for number, label in enumerate(found):
                print(f"{sequence.name}\t{number}\t{label}")
        else:
            for one in segments_of(found):
                print(f"{sequence.name}\t{one.first}\t{one.end}\t{one.label}")
    return 0


def _online(task: SegmentingTask, file: str) -> int:
    """Label frames as they are read."""
    import numpy as np

    from unrolled.data.lines import open_lines
    from unrolled.tasks.segmenting_stream import SegmentStream

    stream, source = SegmentStream(task), "standard input" if file == "-" else file
    for number, line in enumerate(open_lines(file), 1):
        if not line.strip():
            continue
        try:
            frame = np.array([float(part) for part in line.replace(",", " ").split()])
        except ValueError as error:
            raise DataError(f"{source}: line {number:,}: {error}") from error
        if len(frame) != task.noticed.width:
            wanted = f"{task.noticed.width} numbers, as each frame of training"
            raise DataError(f"{source}: line {number:,} must hold {wanted}, and holds {len(frame)}")
        if not (np.abs(frame) <= np.finfo(np.float32).max).all():
            raise DataError(f"{source}: line {number:,} holds a number that is not finite, or too large")
        label, probability = stream.feed(frame[None])[0]
        print(f"{label}\t{probability:.4f}")
        sys.stdout.flush()
    return 0
