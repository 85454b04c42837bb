"""Segmenting: sequences of frames with a label each, a segmenter, and the scores of frames and segments."""

from __future__ import annotations

import fnmatch
import json
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrolled.data.batch import batches_by_length
from unrolled.data.frame_batches import Augmentation, FrameBatch, FrameBatches, collate
from unrolled.data.frames import FrameStore, Normalisation, as_stored, stored_moments
from unrolled.data.labelled_frames import FrameSequence, read_frame_sequences
from unrolled.data.lines import read_json
from unrolled.data.notes import lacking_note, many
from unrolled.data.tag_batches import Index
from unrolled.data.tokens import Progress
from unrolled.data.transcripts import split_by_group
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.metrics.confusion import by_true, label_order
from unrolled.metrics.report import Report, Value
from unrolled.metrics.segments import score_segments, segments_of
from unrolled.models.segmenter import Segmenter
from unrolled.settings import to_json
from unrolled.tasks.base import Task
from unrolled.tasks.checks import HELD_OUT_BY_DEV, refuse_unused
from unrolled.tasks.segmenting_settings import (
    NOTICED_FILE,
    FramesConfig,
    Noticed,
    SegmentEvaluation,
    SegmentingConfig,
    SegmentingInfo,
)
from unrolled.training import Run

FRAMES_FILE, SEQUENCES_FILE, LABELS_FILE = "frames.bin", "sequences.json", "vocabulary-labels.json"
#: The most frames that are labelled at once.
_FRAMES_AT_ONCE = 65_536


def prepare(run: Run, config: FramesConfig, seed: int) -> None:
    """Read the sequences, and write everything that training needs into a new run's directory."""
    if not config.data:
        raise ConfigurationError("`data` is missing: an archive of labelled frames", setting="data")
    train, dev = _parts(config, seed)
    known = set().union(*(one.labels for one in train))
    unknown = Counter(label for one in dev for label in one.labels if label not in known)
    notes = lacking_note(unknown, "label", "the dev part")
    if len(known) == 1:
        notes.append(f"all frames of training have the same label, {next(iter(known))!r}")
    if config.background and config.background not in known:
        raise ConfigurationError(f"`background={config.background}`: no frame has this label", setting="background")
    Index(sorted(known, key=label_order)).save(run.path / LABELS_FILE)
    with FrameStore.write(run.path / FRAMES_FILE, "float32") as writer:
        for one in (*train, *dev):
            writer.add(one.frames, one.name)
    width = train[0].frames.shape[1]
    mean, deviation = FrameStore(run.path / FRAMES_FILE).moments(range(len(train)))
    stored = {
        "names": [one.name for one in (*train, *dev)],
        "labels": [list(one.labels) for one in (*train, *dev)],
        "train": len(train),
        "mean": mean.tolist(),
        "deviation": deviation.tolist(),
    }
    for name, content in ((SEQUENCES_FILE, stored), (NOTICED_FILE, to_json(Noticed(width, tuple(notes))))):
        (run.path / name).write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def _parts(config: FramesConfig, seed: int) -> tuple[list[FrameSequence], list[FrameSequence]]:
    """Return the sequences to train on and those to validate on."""
    if config.dev:
        refuse_unused(config, ["held_out"], HELD_OUT_BY_DEV, ["dev"])
    found = read_frame_sequences(config.data)
    if config.dev:
        dev = read_frame_sequences(config.dev)
        width, other = found[0].frames.shape[1], dev[0].frames.shape[1]
        if width != other:
            raise DataError(f"{config.dev}: frames of {other} values, those of {config.data} have {width}")
        return found, dev
    if config.held_out:
        held = np.array([fnmatch.fnmatchcase(one.name, config.held_out) for one in found])
        if held.all() or not held.any():
            what = "all sequences" if held.all() else f"no sequence (the first is {found[0].name})"
            raise DataError(f"{config.data}: `held_out` {config.held_out!r} matches {what}", setting="held_out")
    else:
        held = split_by_group([one.name for one in found], "", config.val_fraction, seed)
    pairs = list(zip(found, held, strict=True))
    return [one for one, out in pairs if not out], [one for one, out in pairs if out]


class SegmentingTask(SegmentingInfo, Task):
    """A segmenter with its sequences of frames."""

    model: Segmenter

    @classmethod
    def prepare(cls, run: Run, settings: SegmentingConfig, progress: Progress = lambda what, share: None) -> None:
        """Read the sequences of frames into a new run's directory."""
        prepare(run, settings.frames, settings.training.seed)

    def read(self) -> None:
        self.labels = Index.load(self.run.path / LABELS_FILE)
        path = self.run.path / SEQUENCES_FILE
        try:
            stored = read_json(path)
            self.names: list[str] = stored["names"]
            #: The labels of every sequence, as text.
            self.texts: list[list[str]] = stored["labels"]
            if not all(isinstance(name, str) for name in (*self.names, *chain.from_iterable(self.texts))):
                raise TypeError("names and labels must be strings")
            moments = stored_moments(stored, self.noticed.width)
            self._train = int(stored["train"])
            if not 0 < self._train <= len(self.names) or len(self.names) != len(self.texts):
                raise ValueError("it has not as many names as labels")
        except (ValueError, KeyError, TypeError, DataError) as error:
            raise RunError(f"{path}: missing or damaged ({error})") from error
        self.normalise = Normalisation(moments=moments)

    @cached_property
    def frames(self) -> FrameStore:
        """The frames of all sequences of the run."""
        store = FrameStore(self.run.path / FRAMES_FILE)
        if store.lengths.tolist() != [len(labels) for labels in self.texts]:
            raise RunError(f"{self.run.path / SEQUENCES_FILE}: its labels do not fit the frames")
        if store.width != self.noticed.width:
            raise RunError(f"{self.run.path / NOTICED_FILE}: damaged, its `width` is not that of the frames")
        return store

    @cached_property
    def _numbers(self) -> list[list[int]]:
        return [[self.labels.number.get(label, -1) for label in labels] for labels in self.texts]

    @property
    def train(self) -> range:
        """The numbers of the sequences to train on."""
        return range(self._train)

    @property
    def dev(self) -> range:
        """The numbers of the sequences held out."""
        return range(self._train, len(self.names))

    def build(self) -> Segmenter:
        return self.config.model.build(self.noticed.width, len(self.labels))

    def token_keys(self) -> dict[str, Sequence[Hashable]]:
        return {"labels": self.labels.strings}

    def grown(self, tokens: str) -> Segmenter:
        return self.config.model.build(self.noticed.width, len(self.labels) + 1)

    # -- the loop's view -----------------------------------------------------------------------------------------

    def epoch(self, number: int) -> FrameBatches:
        training = self.config.training
        return FrameBatches(
            self.frames,
            self.train,
            self._numbers,
            self.normalise,
            training.batch_size,
            (training.seed, number),
            Augmentation(noise=training.noise),
            by_length=False,
        )

    def loss(self, batch: FrameBatch, state: None = None) -> tuple[Tensor, None]:
        """Return the negative log-likelihood of the labels, summed over the frames, in nats."""
        return self.model.loss(batch, batch.targets), None

    @torch.no_grad()
    def validate(self, step: int | None = None) -> float | None:
        """Return the loss per frame of the dev part, over frames (with a CRF, sequences) whose labels are known."""
        total, count = 0.0, 0
        for number in self.dev:
            labels = self._numbers[number]
            if self.model.crf is not None and min(labels) < 0:
                continue
            batch = collate([self.normalise(self.frames[number])], [labels]).to(self.device)
            total, count = total + float(self.loss(batch)[0]), count + batch.count
        return total / count if count else None

    def preview(self, step: int) -> str:
        """Return the segments of a sequence of the dev part, or of training, and those of the model."""
        part = self.dev or self.train
        number = part[step % len(part)]
        (found,) = self.label([self.normalise(self.frames[number])])
        rows = [("labels", self.texts[number]), ("model", found)]
        lines = (
            f"  {name:7} " + " ".join(f"{one.label}×{one.end - one.first}" for one in segments_of(row))
            for name, row in rows
        )
        return "\n".join([self.names[number], *lines])

    def count(self) -> dict[str, int]:
        frames = int(self.frames.lengths[: self._train].sum())
        return {"train": len(self.train), "dev": len(self.dev), "frames": frames, "labels": len(self.labels)}

    def closing(self) -> list[str]:
        """Return the scores of the best checkpoint on the dev part."""
        return self.load("best").evaluate(SegmentEvaluation()).lines() if self.dev else []

    # -- use -----------------------------------------------------------------------------------------------------

    def segment(self, sequences: Sequence[np.ndarray]) -> list[list[str]]:
        """Return a label for every frame of sequences `[T, D]`; DataError if their frames have another width."""
        return self.label([self.inputs_of(FrameSequence(f"sequence {k}", one)) for k, one in enumerate(sequences, 1)])

    def inputs_of(self, sequence: FrameSequence) -> np.ndarray:
        """Return the inputs of the model, `[T, D]`; DataError if the frames have another width than in training."""
        frames = np.asarray(sequence.frames)
        if frames.ndim != 2 or frames.shape[1] != self.noticed.width:
            wanted = f"[T, {self.noticed.width}], as in training"
            raise DataError(f"{sequence.name}: its frames must be {wanted}, got {list(frames.shape)}")
        return self.normalise(as_stored(frames, "float32", sequence.name))

    def label(self, inputs: Sequence[np.ndarray]) -> list[list[str]]:
        """Return a label for every frame of inputs `[T, D]`, which are normalised."""
        found: list[list[str]] = [[] for _ in inputs]
        self.model.eval()
        for some in batches_by_length([len(one) for one in inputs], _FRAMES_AT_ONCE):
            rows = self.model.decode(collate([inputs[k] for k in some]).to(self.device))
            for k, row in zip(some, rows, strict=True):
                found[k] = [self.labels.strings[label] for label in row]
        return found

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        """Return the probability of every label for every frame of a sequence `[T, D]`, `[T, K]`."""
        inputs = self.inputs_of(FrameSequence("the sequence", frames))
        self.model.eval()
        found: np.ndarray = self.model.marginals(collate([inputs]).to(self.device))[:, 0].cpu().numpy()
        return found

    def evaluate(self, asked: SegmentEvaluation) -> Report:
        """Report the accuracy of frames, the edit score and the F1 of segments over `asked.data` or the dev part."""
        if asked.data:
            sequences = read_frame_sequences(asked.data)
            wanted: list[Any] = [list(one.labels) for one in sequences]
            inputs, data = [self.inputs_of(one) for one in sequences], asked.data
        elif self.dev:
            wanted = [self.texts[k] for k in self.dev]
            inputs, data = [self.normalise(self.frames[k]) for k in self.dev], "dev"
        else:
            raise DataError(f"{self.run.path}: nothing was held out; give `data`", setting="data")
        found = self.label(inputs)
        background = self.config.frames.background or None
        score = score_segments(wanted, found, background)
        loss = None if asked.data else self.validate()
        if loss is not None:
            self.require_number(loss, data)
        values = [
            Value("accuracy", score.accuracy, "accuracy", f"{score.accuracy:.2%} of {score.frames:,} frames"),
            Value("edit", score.edit, "edit score", f"{score.edit:.2%}"),
            *(Value(f"f1_{k}", value, f"F1@{k} of segments", f"{value:.2%}") for k, value in score.f1.items()),
            Value("loss", loss),
        ]
        pairs = Counter(pair for one, other in zip(wanted, found, strict=True) for pair in zip(one, other, strict=True))
        wrong = [f"{a} → {b} {count:,}" for (a, b), count in pairs.most_common() if a != b]
        values.append(Value("confused", len(wrong), "confused" if wrong else "", "; ".join(wrong[:6])))
        values.append(Value("confusion", by_true(pairs.elements())))
        heading = f"{data}: {many(len(wanted), 'sequence')}, {many(score.segments, 'segment')}"
        unknown = Counter(label for one in wanted for label in one if label not in self.labels.number)
        return Report(data, heading, tuple(values), tuple(lacking_note(unknown, "label", data)))


def create_run(path: Path, config: SegmentingConfig) -> SegmentingTask:
    """Create a run directory with its frames; nothing remains of it after an error."""
    return SegmentingTask.create(path, config)
