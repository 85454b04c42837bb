"""Transcribing: recordings and pictures of lines to text, by CTC, with its error rates."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrolled.data.audio import AudioFeatures
from unrolled.data.batch import batches_by_length
from unrolled.data.frame_batches import Augmentation, FrameBatch, FrameBatches, collate
from unrolled.data.frame_reader import FrameReader, InputReader
from unrolled.data.frames import FrameStore, Normalisation, stored_moments
from unrolled.data.lines import read_json
from unrolled.data.tag_batches import Index
from unrolled.data.tokens import Progress
from unrolled.data.transcripts import read_items
from unrolled.errors import DataError, RunError
from unrolled.metrics.report import Report, Value
from unrolled.metrics.transcripts import EditCounts, TranscriptScore, score_transcripts
from unrolled.models.transcriber import Transcriber
from unrolled.tasks.base import Task
from unrolled.tasks.transcribing_data import FRAMES_FILE, ITEMS_FILE, LABELS_FILE, MOMENTS_FILE, prepare
from unrolled.tasks.transcribing_decoding import Decoder, Transcript
from unrolled.tasks.transcribing_settings import (
    SIGNAL_FILE,
    DecodingConfig,
    TranscribingConfig,
    TranscribingInfo,
    TranscriptEvaluation,
)
from unrolled.training import Run

#: The most frames that are read at once in use.
_FRAMES_AT_ONCE = 32_768


@dataclass(frozen=True)
class Items:
    """The items of a run in the order of its frames: names, texts, and the numbers of those in each part."""

    names: list[str]
    texts: list[str]
    train: list[int]
    dev: list[int]


class TranscribingTask(TranscribingInfo, Task):
    """A transcriber with its frames and transcripts."""

    model: Transcriber

    @classmethod
    def prepare(cls, run: Run, settings: TranscribingConfig, progress: Progress = lambda what, share: None) -> None:
        """Read the recordings or pictures and their transcripts into a new run's directory."""
        prepare(run, settings, progress)

    def read(self) -> None:
        self.labels = Index.load(self.run.path / LABELS_FILE)
        config = self.config.transcripts
        audio = AudioFeatures(config.features, config.bins, self.signal.rate or 16_000)
        self.reader = FrameReader(self.signal.kind, audio, config.height)  # type: ignore[arg-type]
        self.normalise = Normalisation(self.signal.kind == "pictures", self._moments())
        self.inputs = InputReader(self.reader, self.signal.width, self.normalise)
        #: The share of steps at which the last batches of training had a blank.
        self._blanks = 0.0

    def _moments(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the mean and the deviation of the training data's features, if they are normalised by these."""
        if self.signal.kind == "pictures" or not self.normalises_by_training:
            return None
        path = self.run.path / MOMENTS_FILE
        try:
            return stored_moments(read_json(path), self.signal.width)
        except (ValueError, KeyError, TypeError, DataError) as error:
            raise RunError(f"{path}: missing or damaged ({error})") from error

    @cached_property
    def frames(self) -> FrameStore:
        """The frames of all items of the run."""
        store = FrameStore(self.run.path / FRAMES_FILE)
        if store.width != self.signal.width:
            raise RunError(f"{self.run.path / SIGNAL_FILE}: damaged, its `width` is not that of the frames")
        return store

    @cached_property
    def items(self) -> Items:
        """The transcripts of the run, in the order of their frames."""
        path = self.run.path / ITEMS_FILE
        try:
            stored = read_json(path)
            items = Items(*(stored[name] for name in ("names", "texts", "train", "dev")))
            if not all(isinstance(text, str) for text in (*items.names, *items.texts)):
                raise TypeError("names and texts must be strings")
            if not len(items.names) == len(items.texts) == len(self.frames):
                raise ValueError("it has not as many items as there are sequences of frames")
            if not items.train:
                raise ValueError("there is nothing to train on")
            if not all(isinstance(part, list) for part in (items.train, items.dev)):
                raise TypeError("train and dev must be lists")
            numbers = [*items.train, *items.dev]
            if not all(type(k) is int and 0 <= k < len(self.frames) for k in numbers):
                raise ValueError("a number is outside of the items")
        except (ValueError, KeyError, TypeError, DataError) as error:
            raise RunError(f"{path}: missing or damaged ({error})") from error
        return items

    @cached_property
    def _labels_of_items(self) -> list[list[int]]:
        return [self.labels_of(text) for text in self.items.texts]

    def labels_of(self, text: str) -> list[int]:
        """Return the labels of a text; characters without a label are left out."""
        return [self.labels.number[character] for character in text if character in self.labels.number]

    def build(self) -> Transcriber:
        return self.config.model.build(self.signal.width, len(self.labels), self.signal.kind)

    def token_keys(self) -> dict[str, Sequence[Hashable]]:
        return {"labels": self.labels.strings}

    def grown(self, tokens: str) -> Transcriber:
        return self.config.model.build(self.signal.width, len(self.labels) + 1, self.signal.kind)

    # -- the loop's view -----------------------------------------------------------------------------------------

    @cached_property
    def augmentation(self) -> Augmentation:
        """What training changes in the data at random."""
        training = self.config.training
        if not training.augment:
            return Augmentation()
        if self.signal.kind == "pictures":
            return Augmentation(distort=training.distort)
        return Augmentation(training.tempo, training.time_masks, training.feature_masks, False, training.noise)

    def epoch(self, number: int) -> FrameBatches:
        training = self.config.training
        return FrameBatches(
            self.frames,
            self.items.train,
            self._labels_of_items,
            self.normalise,
            training.batch_size,
            (training.seed, number),
            self.augmentation,
        )

    def loss(self, batch: FrameBatch, state: None = None) -> tuple[Tensor, None]:
        """Return the negative log-likelihood of the transcripts, summed over the sequences, in nats."""
        total, blanks = self.model.loss(batch, batch.targets)
        self._blanks = 0.9 * self._blanks + 0.1 * float(blanks)
        return total, None

    def describe(self, loss: float) -> str:
        """Return the loss per character, and the share of steps whose most probable label is the blank."""
        return f"loss {loss:.3f}, {self._blanks:.0%} blanks"

    def validate(self, step: int | None = None) -> float | None:
        """Return the character error rate of the best paths on the dev part."""
        return self._score_dev(self.best_path).cer if self.items.dev else None

    def preview(self, step: int) -> str:
        """Return a transcript of the dev part, or of training, with the model's."""
        part = self.items.dev or self.items.train
        number = part[(step // max(1, self.config.training.sample_every)) % len(part)]
        found = self.best_path(self._scores([self.normalise(self.frames[number])]))[0].text
        lines = [f"{self.items.names[number]}", f"  it says    {self.items.texts[number]}", f"  the model  {found}"]
        if not found and self._blanks > 0.99:
            lines.append(
                "  Every step is a blank. Most runs begin so, until the loss falls below about 2.8; if it does not "
                "fall for long, try another `learning_rate`."
            )
        return "\n".join(lines)

    def count(self) -> dict[str, int]:
        return {
            "train": len(self.items.train),
            "dev": len(self.items.dev),
            "labels": len(self.labels),
            "frames": int(self.frames.lengths[self.items.train].sum()),
        }

    def closing(self) -> list[str]:
        """Return the error rates of the best checkpoint on the dev part."""
        return self.load("best").evaluate(TranscriptEvaluation()).lines() if self.items.dev else []

    # -- use -----------------------------------------------------------------------------------------------------

    def transcribe(
        self, sources: Sequence[str | Path | np.ndarray], decoding: DecodingConfig | None = None
    ) -> list[Transcript]:
        """Return the transcripts of files, or of features `[T, D]` before normalisation.

        Raises DataError if one of them cannot be read.
        """
        inputs = [self.inputs.of_source(source) for source in sources]
        return self.decode(inputs, self.decoder(decoding))

    def decoder(self, decoding: DecodingConfig | None = None, trust: bool = False) -> Decoder:
        """Return the decoder that a configuration describes. trust: see `open_task`, for the language model's run."""
        return Decoder(self.labels.strings, decoding or DecodingConfig(), self.seconds_per_step, self.device, trust)

    @property
    def seconds_per_step(self) -> float | None:
        """The seconds of sound in a step; None if the data are not sound."""
        model = self.config.model
        stride = model.stride if model.front_for(self.signal.kind) == "join" else 4
        return 0.01 * stride if self.signal.kind == "audio" else None

    @cached_property
    def best_path(self) -> Decoder:
        """The decoder by the best path."""
        return self.decoder()

    def decode(self, inputs: Sequence[np.ndarray], decoder: Decoder) -> list[Transcript]:
        """Return the transcripts of inputs `[T, D]`, in their order; batches hold inputs of similar lengths."""
        found: list[Any] = [None] * len(inputs)
        for some in batches_by_length([len(one) for one in inputs], _FRAMES_AT_ONCE):
            for k, transcript in zip(some, decoder(self._scores([inputs[k] for k in some])), strict=True):
                found[k] = transcript
        return found

    @torch.no_grad()
    def _scores(self, inputs: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities `[S, B, K]` of the labels, and the lengths `[B]`."""
        self.model.eval()
        scores, lengths = self.model(collate(inputs).to(self.device))
        return scores.cpu(), lengths.cpu()

    def _score_dev(self, decoder: Decoder) -> TranscriptScore:
        dev = self.items.dev
        found = self.decode([self.normalise(self.frames[k]) for k in dev], decoder)
        return score_transcripts([self.items.texts[k] for k in dev], [each.text for each in found])

    def evaluate(self, asked: TranscriptEvaluation) -> Report:
        """Report the error rates of characters and words over `asked.data` or the dev part, and the confusions."""
        decoder = self.decoder(asked)
        notes = list(decoder.notes)
        if asked.data:
            config, alone = self.config.transcripts, list[Path]()
            items = read_items(asked.data, config.file_column, config.text_column, alone=alone)
            inputs, texts, left_out = self.inputs.of_all(items, asked.data)
            notes += left_out
            notes += [f"left out: {file}: there is no transcript next to it" for file in alone]
            found = [each.text for each in self.decode(inputs, decoder)]
            score, data = score_transcripts(texts, found), asked.data
        elif self.items.dev:
            score, data = self._score_dev(decoder), "dev"
        else:
            raise DataError(f"{self.run.path}: nothing was held out; give `data`", setting="data")
        values = [
            Value("cer", score.cer, "character error rate", _rate(score.characters, "characters")),
            Value("wer", score.wer, "word error rate", _rate(score.words, "words")),
            Value("right", score.right / max(1, score.count), "entirely right", f"{score.right:,} of {score.count:,}"),
        ]
        for name, counts in (("characters", score.characters), ("words", score.words)):
            said = "; ".join(f"{_shown(a)} → {_shown(b)} {times:,}" for a, b, times in counts.commonest(8))
            common = [[a, b, times] for a, b, times in counts.commonest(50)]
            values.append(Value(f"confusions.{name}", common, f"confused {name}" if said else "", said))
        values.append(Value("confusion", score.characters.by_true()))
        return Report(data, f"{data}: {score.count:,} transcripts, {decoder}", tuple(values), tuple(notes))


def _rate(counts: EditCounts, what: str) -> str:
    return (
        f"{counts.rate:.2%} of {counts.total:,} {what} ({counts.substitutions:,} substituted, {counts.deletions:,} "
        f"left out, {counts.insertions:,} added)"
    )


def _shown(part: str) -> str:
    return repr(part) if part.isspace() else part or "∅"


def create_run(path: Path, config: TranscribingConfig) -> TranscribingTask:
    """Create a run directory with its frames and transcripts; nothing remains of it after an error."""
    return TranscribingTask.create(path, config)
