"""Classifying recordings, or features of them: `train classify` with `level=audio`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unrolled.data.audio import AudioFeatures
from unrolled.data.class_batches import EncodedTexts, stratified
from unrolled.data.frame_batches import Augmentation
from unrolled.data.frame_reader import Account, FrameReader, InputReader, kind_of_items, store_frames, usual_rate
from unrolled.data.frames import FrameStore, Normalisation, stored_moments
from unrolled.data.labelled_sounds import NormalisedFrames, SoundBatches, read_labelled_sounds
from unrolled.data.lines import read_json
from unrolled.data.notes import lacking_note
from unrolled.data.tokens import Progress
from unrolled.data.transcripts import Item, Kind, is_list, split_by_group
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.models.classifier import Classifier
from unrolled.settings import to_json
from unrolled.tasks.base import Task
from unrolled.tasks.checks import HELD_OUT_BY_DEV, refuse_unused
from unrolled.tasks.classifying import ClassifyingTask
from unrolled.tasks.classifying_settings import CLASSES_FILE, Classes, ClassEvaluation, ClassifyingConfig
from unrolled.training import Run

FRAMES_FILE, SOUNDS_FILE = "frames.bin", "sounds.json"


def prepare_sounds(run: Run, settings: ClassifyingConfig, progress: Progress) -> None:
    """Read the recordings, and write their frames and classes into a new run's directory."""
    config, account = settings.texts, Account()
    if not config.data:
        said = "`data` is missing: a folder of recordings with a sub-folder for every class, or a list of files"
        raise ConfigurationError(said, setting="data")
    if settings.model.vectors is not None:
        raise ConfigurationError("`vectors` are for words; recordings have none", setting="vectors")
    if run.origin is None and not any(is_list(path) for path in (config.data, config.dev) if path):
        why = "names a column of a list, and there is none: it has no meaning for a folder or an archive"
        refuse_unused(config, ["text_column", "label_column"], why)  # a run may take them from another one
    train, dev = _parts(settings)
    kind = kind_of_items([*train, *dev])
    if kind == "pictures":
        raise DataError(f"{config.data}: holds pictures; `level=audio` reads recordings and features", setting="level")
    if kind == "features" and settings.sounds.speeds:
        raise ConfigurationError("`speeds` is for recordings; `tempo` stretches features", setting=("speeds", "tempo"))
    rate = (settings.sounds.rate or usual_rate(train)) if kind == "audio" else 0
    reader = reader_for(settings, kind, rate)
    given = store_frames(run.path / FRAMES_FILE, reader, train, dev, settings.sounds.speeds, account, progress)
    rows = {
        part: [(item.name, item.text) for item in found] for part, found in zip(("train", "dev"), given, strict=True)
    }
    counts = Counter(label for _, label in rows["train"])
    if len(counts) < 2:
        what = f"only the class {next(iter(counts))!r}" if counts else "nothing that can be read"
        said = ": ".join(filter(None, [f"{config.data}: there is {what} to train on", account.unread(kind)]))
        raise DataError(said, setting="data")
    names = sorted(counts)
    unseen = Counter(label for _, label in rows["dev"] if label not in counts)
    notes = (*account.notes(kind), *lacking_note(unseen, "label", "the dev part"))
    store = FrameStore(run.path / FRAMES_FILE)
    mean, deviation = store.moments(range(len(rows["train"])))
    stored = {**rows, "mean": mean.tolist(), "deviation": deviation.tolist()}
    (run.path / SOUNDS_FILE).write_text(json.dumps(stored, ensure_ascii=False) + "\n", encoding="utf-8")
    each = tuple(counts[name] for name in names)
    classes = Classes(tuple(names), tuple(sorted(unseen)), False, each, notes, kind, store.width, rate)
    text = json.dumps(to_json(classes), ensure_ascii=False, indent=2) + "\n"
    (run.path / CLASSES_FILE).write_text(text, encoding="utf-8")


def reader_for(settings: ClassifyingConfig, kind: Kind, rate: int) -> FrameReader:
    """Return the reader of a run's recordings or features."""
    sounds = settings.sounds
    return FrameReader(kind, AudioFeatures(sounds.features, sounds.bins, rate or 16_000), height=1)


def _parts(settings: ClassifyingConfig) -> tuple[list[Item], list[Item]]:
    """Return the items to train on and those held out."""
    config, group, seed = settings.texts, settings.sounds.group, settings.training.seed
    if config.dev:
        refuse_unused(settings.sounds, ["group"], HELD_OUT_BY_DEV, ["dev"])
    found = _read(config.data, settings)
    if config.dev:
        return found, _read(config.dev, settings)
    if group:
        held = split_by_group([item.name for item in found], group, config.val_fraction, seed)
        ours, theirs = np.flatnonzero(~held).tolist(), np.flatnonzero(held).tolist()
    else:
        ours, theirs = stratified([item.text for item in found], config.val_fraction, seed)
    if not ours:
        raise DataError(f"{config.data}: nothing is left to train on; lower `val_fraction`", setting="val_fraction")
    return [found[k] for k in ours], [found[k] for k in theirs]


def _read(path: str, settings: ClassifyingConfig) -> list[Item]:
    config = settings.texts
    default = type(config)()
    file = "" if config.text_column == default.text_column else config.text_column
    label = "" if config.label_column == default.label_column else config.label_column
    return read_labelled_sounds(path, file, label)


class SoundClassifyingTask(ClassifyingTask):
    """A classifier with its recordings, or features of them."""

    def read(self) -> None:
        self._number = {name: k for k, name in enumerate(self.classes.names)}
        kind: Kind = "features" if self.classes.kind == "features" else "audio"
        normalise = Normalisation(moments=self._moments())
        self.inputs = InputReader(reader_for(self.config, kind, self.classes.rate), self.classes.width, normalise)

    @cached_property
    def _stored(self) -> Any:
        path = self.run.path / SOUNDS_FILE
        try:
            return read_json(path)
        except DataError as error:
            raise RunError(f"{path}: missing or damaged ({error})") from error

    def _moments(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the mean and the deviation of the training data's features, if they are normalised by these."""
        if self.config.sounds.normalise == "sequence":
            return None
        try:
            return stored_moments(self._stored, self.classes.width)
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.run.path / SOUNDS_FILE}: missing or damaged ({error})") from error

    @cached_property
    def frames(self) -> FrameStore:
        """The frames of all recordings of the run."""
        return FrameStore(self.run.path / FRAMES_FILE)

    @cached_property
    def texts(self) -> dict[str, EncodedTexts]:
        """The recordings of the run, as frames that are normalised when they are read: "train" and "dev"."""
        path, names = self.run.path / SOUNDS_FILE, [*self.classes.names, *self.classes.unseen]
        number = {name: k for k, name in enumerate(names)}
        try:
            labels = {part: [number[label] for _, label in self._stored[part]] for part in ("train", "dev")}
            if sum(map(len, labels.values())) != len(self.frames) or self.frames.width != self.classes.width:
                raise ValueError("it does not fit the frames")
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: missing or damaged ({error})") from error
        first, found = 0, {}
        for part, targets in labels.items():
            numbers = range(first, first + len(targets))
            found[part] = EncodedTexts(
                NormalisedFrames(self.frames, numbers, self.inputs.normalise), np.array(targets, np.int64)
            )
            first += len(targets)
        return found

    def build(self) -> Classifier:
        return self._model(self.classes.width, len(self.classes.names))

    def _model(self, tokens: int, classes: int) -> Classifier:
        weights = self._class_weights() if classes == len(self.classes.names) else None
        return self.config.model.build(tokens, classes, False, weights, embedded=False)

    def token_keys(self) -> Mapping[str, Sequence[str]]:
        return {"classes": self.classes.names}

    def weights_from(self, source: Task) -> Mapping[str, str]:
        if not isinstance(source, SoundClassifyingTask):
            said = f"{source.run.path}: a classifier of recordings starts from another one, not from texts"
            raise RunError(said, setting="init_from")
        return Task.weights_from(self, source)

    def grown(self, tokens: str) -> Classifier:
        return self._model(self.classes.width, len(self.classes.names) + 1)

    def verify(self) -> None:
        """Raise RunError if the recordings do not fit the classes."""
        _ = self.texts

    def epoch(self, number: int) -> SoundBatches:  # type: ignore[override]
        training, sounds = self.config.training, self.config.sounds
        how = Augmentation(sounds.tempo, sounds.time_masks, sounds.feature_masks, False, sounds.noise)
        frames: NormalisedFrames = self.train.tokens  # type: ignore[assignment]
        seed = (training.seed, number)
        chosen = how if sounds.augment else Augmentation()
        return SoundBatches(frames, self.train.targets, training.batch_size, seed, chosen)

    def preview(self, step: int) -> str:
        """Return the name of a recording of the dev part, or of training, its class, and the predicted ones."""
        name = "dev" if len(self.dev) else "train"
        part = self.texts[name]
        row = (step // max(1, self.config.training.sample_every)) % len(part)
        chances = self._of_frames([part.tokens[row]])[0]
        best = ", ".join(f"{label} {chance:.2f}" for label, chance in list(chances.items())[:3])
        return f"{self._stored[name][row][0]}\nlabel {self._labels(part)[row][0]}; found {best}"

    def count(self) -> dict[str, int]:
        frames = int(self.frames.lengths[: len(self.train)].sum())
        return {"train": len(self.train), "dev": len(self.dev), "tokens": frames, "vocabulary": 0}

    # -- use -----------------------------------------------------------------------------------------------------

    def probabilities(self, texts: Sequence[str | Path | np.ndarray]) -> list[dict[str, float]]:
        """Return the probability of every class for each recording, a file or features `[T, D]`, the best first.

        Raises DataError if one cannot be read.
        """
        if isinstance(texts, str):
            raise ConfigurationError("recordings must be a list of files, not one string", setting="texts")
        return self._of_frames([self.inputs.of_source(source) for source in texts])

    def _asked(self, asked: ClassEvaluation) -> tuple[EncodedTexts, list[tuple[str, ...]], list[str]]:
        """Return the recordings of a folder or list, their classes, and notes about them."""
        items = read_labelled_sounds(asked.data, asked.text_column, asked.label_column)
        inputs, labels, notes = self.inputs.of_all(items, asked.data)
        unseen = Counter(label for label in labels if label not in self._number)
        number = {name: k for k, name in enumerate([*self.classes.names, *unseen])}
        part = EncodedTexts(inputs, np.array([number[label] for label in labels], np.int64))
        return part, [(label,) for label in labels], [*notes, *lacking_note(unseen, "label", asked.data)]
