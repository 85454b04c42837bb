"""Transcribes sound or features as they come, with a model that reads forwards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from unrolled.cells import State
from unrolled.data.audio import AudioStream
from unrolled.data.frames import as_stored
from unrolled.errors import ConfigurationError, DataError
from unrolled.models.transcriber import BLANK
from unrolled.tasks.transcribing import TranscribingTask
from unrolled.tasks.transcribing_decoding import Decoder, Transcript


class TranscriptStream:
    """A transcript that grows as sound comes: `feed` pieces of it, and `finish`.

    Both return the transcript so far, and `finish` returns exactly that of the whole.
    Raises ConfigurationError if the run's model reads both ways or its data are pictures.
    """

    def __init__(self, task: TranscribingTask, decoder: Decoder | None = None) -> None:
        config = task.config.model
        if task.signal.kind == "pictures":
            said = f"{task.run.path}: its model reads pictures, not sound as it comes: train one on recordings"
            raise ConfigurationError(said)
        if not task.model.streams:
            both, convolved = config.bidirectional, config.front_for(task.signal.kind) == "convolve"
            reads = " and ".join([*(["both ways"] * both), *(["by convolution"] * convolved)])
            advice = [*(["no_bidirectional"] * both), *(["front=join"] * convolved)]
            raise ConfigurationError(
                f"{task.run.path}: its model reads {reads}, so it cannot transcribe sound as it comes: train one with "
                + " and ".join(f"`{each}`" for each in advice),
                setting=[each.partition("=")[0] for each in advice],
            )
        if not task.normalises_by_training:
            raise ConfigurationError(
                f"{task.run.path}: it normalises each recording as a whole, so it cannot transcribe sound as it "
                "comes: train one with `normalise=training`",
                setting="normalise",
            )
        self.task, self.decoder = task, decoder or task.best_path
        self._audio = AudioStream(task.reader.audio) if task.signal.kind == "audio" else None
        self._waiting = np.zeros((0, task.signal.width), np.float32)
        self._state: State | None = None
        #: The scores of the steps that may still change the text: for the best path, those after the last blank.
        self._scores = torch.zeros(0, len(task.labels))
        self._steps_before, self._text = 0, Transcript("", (), 0.0, self.decoder.seconds_per_step)
        beam = self.decoder.beam
        self._beam = None if beam is None else beam.start()
        #: The frames that were read.
        self.frames = 0

    def feed(self, piece: np.ndarray) -> Transcript:
        """Return the transcript after more samples `[n]` at the run's rate, or more features `[t, D]`."""
        if self._audio is None and (piece.ndim != 2 or piece.shape[1] != self.task.signal.width):
            raise DataError(f"features must be [t, {self.task.signal.width}], got {list(piece.shape)}")
        self._read(piece if self._audio is None else self._audio.feed(piece), last=False)
        return self._transcript(final=False)

    def finish(self) -> Transcript:
        """Return the transcript of all that was fed."""
        nothing = np.zeros((0, self.task.signal.width), np.float32)
        self._read(nothing if self._audio is None else self._audio.finish(), last=True)
        return self._transcript(final=True)

    def _read(self, frames: np.ndarray, last: bool) -> None:
        self.frames += len(frames)
        stored = as_stored(frames, self.task.reader.dtype, "the sound")  # rounded as the frames of training are
        ready = np.concatenate([self._waiting, self.task.normalise(stored)])
        stride = self.task.config.model.stride
        count = len(ready) if last else len(ready) // stride * stride
        inputs = torch.from_numpy(ready[:count]).unsqueeze(1).to(self.task.device)
        self._waiting = ready[count:]
        scores, self._state = self.task.model.feed(inputs, self._state)
        scores = scores[:, 0].cpu()
        self._scores = torch.cat([self._scores, scores])
        if self._beam is not None and self.decoder.beam is not None:
            self._beam = self.decoder.beam.feed(self._beam, scores)

    def _transcript(self, final: bool) -> Transcript:
        if self._beam is not None:
            return self.decoder.result(self._beam, self._scores, final)
        blanks = (self._scores.argmax(1) == BLANK).nonzero()
        settled = int(blanks[-1]) + 1 if len(blanks) else 0
        self._text = self._joined(self._text, self._scores[:settled])
        self._scores, self._steps_before = self._scores[settled:], self._steps_before + settled
        return self._joined(self._text, self._scores)

    def _joined(self, before: Transcript, scores: Tensor) -> Transcript:
        """Return a transcript with what the best path says in the next steps, `[S, K]`."""
        if not len(scores):
            return before
        new, first = self.decoder((scores.unsqueeze(1), torch.tensor([len(scores)])))[0], self._steps_before
        moved = (replace(each, first=each.first + first, last=each.last + first) for each in new.characters)
        return replace(
            before,
            text=before.text + new.text,
            characters=(*before.characters, *moved),
            log_prob=before.log_prob + new.log_prob,
        )
