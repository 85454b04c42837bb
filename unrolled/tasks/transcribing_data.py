"""The data of a transcriber's run: read, split into training and dev, checked against CTC's needs, and stored."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from unrolled.data.audio import AudioFeatures
from unrolled.data.frame_reader import Account, FrameReader, draw_lines, kind_of_items, store_frames, usual_rate
from unrolled.data.frames import FrameStore
from unrolled.data.notes import many, named
from unrolled.data.tag_batches import Index
from unrolled.data.tokens import Progress
from unrolled.data.transcripts import Item, Kind, is_list, kind_of, read_items, split_by_group
from unrolled.errors import ConfigurationError, DataError
from unrolled.settings import to_json
from unrolled.tasks.checks import HELD_OUT_BY_DEV, refuse_unused
from unrolled.tasks.transcribing_settings import SIGNAL_FILE, Signal, TranscribingConfig, TranscriptsConfig
from unrolled.training import Run

FRAMES_FILE, ITEMS_FILE, LABELS_FILE = "frames.bin", "transcripts.json", "vocabulary-labels.json"
MOMENTS_FILE = "normalisation.json"
#: How the blank is written in the file of labels; no character has several letters.
BLANK_NAME = "<blank>"


def prepare(run: Run, settings: TranscribingConfig, progress: Progress) -> None:
    """Read the items, store their frames, and write everything that training needs into a new run's directory."""
    config, account, alone = settings.transcripts, Account(), list[Path]()
    train, dev = _items(config, settings.training.seed, account, alone)
    kind = kind_of_items([*train, *dev])
    for file in alone:
        if kind_of(file) == kind:
            account.add("left out, because there is no transcript next to them", file.name)
    _check_settings(config, kind)
    rate = (config.rate or usual_rate(train)) if kind == "audio" else 0
    reader = FrameReader(kind, AudioFeatures(config.features, config.bins, rate or 16_000), config.height)
    given = store_frames(run.path / FRAMES_FILE, reader, train, dev, config.speeds, account, progress)
    if not given[0]:
        raise DataError(f"{config.data or config.render}: nothing of it can be read: {account.unread(kind)}")
    if config.dev and not given[1]:
        raise DataError(f"{config.dev}: nothing of it can be read: {account.unread(kind)}", setting="dev")
    stored = [*given[0], *given[1]]
    for name, text in {item.name: item.text for item in stored}.items():
        if not text:
            account.add("with an empty transcript", name)
    names, texts = [item.name for item in stored], [item.text for item in stored]
    parts = {"train": list(range(len(given[0]))), "dev": list(range(len(given[0]), len(stored)))}
    store = FrameStore(run.path / FRAMES_FILE)
    _leave_out_unalignable(settings, kind, store, texts, names, parts, account)
    notes = account.notes(kind)
    letters = sorted({letter for k in parts["train"] for letter in texts[k]})
    if not letters:
        raise DataError(f"{config.data or config.render}: all transcripts to train on are empty")
    Index([BLANK_NAME, *letters]).save(run.path / LABELS_FILE)
    unknown = Counter(letter for k in parts["dev"] for letter in texts[k] if letter not in letters)
    if unknown:
        shown = named([repr(letter) for letter, _ in unknown.most_common()])
        lacking, errors = many(len(unknown), "character"), many(unknown.total(), "error")
        notes.append(f"the dev part has {lacking} that training lacks, {errors}: {shown}")
    mean, deviation = store.moments(parts["train"])
    _write(run, MOMENTS_FILE, {"mean": mean.tolist(), "deviation": deviation.tolist()})
    _write(run, ITEMS_FILE, {"names": names, "texts": texts, **parts})
    _write(run, SIGNAL_FILE, to_json(Signal(kind, store.width, rate, tuple(notes))))


def _write(run: Run, name: str, stored: object) -> None:
    (run.path / name).write_text(json.dumps(stored, ensure_ascii=False) + "\n", encoding="utf-8")


def _items(config: TranscriptsConfig, seed: int, account: Account, alone: list[Path]) -> tuple[list[Item], list[Item]]:
    """Return the items to train on and those to validate on. alone: collects the files without a transcript."""
    if not config.data and not config.render:
        said = "`data` is missing: recordings or pictures with transcripts; or give `render`, a text to draw"
        raise ConfigurationError(said, setting=("data", "render"))
    _check_unused(config)
    columns = (config.file_column, config.text_column)
    found = read_items(config.data, *columns, alone=alone) if config.data else []
    drawn: list[Item] = []
    if config.render:
        drawn = list(draw_lines(config.render, config.copies, config.fonts, config.height, account))
    if config.dev:
        return [*found, *drawn], read_items(config.dev, *columns, alone=alone)
    held_of = found or drawn
    if not config.val_fraction:
        return [*found, *drawn], []
    held = split_by_group([item.name for item in held_of], config.group, config.val_fraction, seed)
    train = [item for item, out in zip(held_of, held, strict=True) if not out]
    dev = [item for item, out in zip(held_of, held, strict=True) if out]
    if not train:
        raise DataError(f"{config.data}: nothing is left to train on; lower `val_fraction`", setting="val_fraction")
    return [*train, *(drawn if found else [])], dev


def _check_unused(config: TranscriptsConfig) -> None:
    """Raise ConfigurationError for a setting that would have no effect with the others."""
    if config.dev:
        refuse_unused(config, ["group"], HELD_OUT_BY_DEV, ["dev"])
    if not config.render:
        why = "is about lines that are drawn: name their text with `render`"
        refuse_unused(config, ["copies", "fonts"], why, ["render"])
    if not any(is_list(path) for path in (config.data, config.dev) if path):
        why = "names a column of a list, and there is none: it has no meaning for a folder, an archive or drawn lines"
        refuse_unused(config, ["file_column", "text_column"], why)


def _check_settings(config: TranscriptsConfig, kind: Kind) -> None:
    """Raise ConfigurationError for a setting that has no use for this kind of data."""
    if kind != "audio" and config.speeds:
        raise ConfigurationError(
            "`speeds` is for recordings; `tempo` stretches features in time", setting=("speeds", "tempo")
        )


def _leave_out_unalignable(
    settings: TranscribingConfig,
    kind: Kind,
    store: FrameStore,
    texts: Sequence[str],
    names: Sequence[str],
    parts: dict[str, list[int]],
    account: Account,
) -> None:
    """Take the items out of training that CTC cannot align: they have fewer steps than characters and repeats."""
    with torch.device("meta"):
        front = settings.model.build(store.width, 2, kind).front
    steps = front.steps(torch.from_numpy(store.lengths)).numpy()
    needed = np.array([len(text) + sum(a == b for a, b in pairwise(text)) for text in texts], int)
    impossible = [k for k in parts["train"] if steps[k] < needed[k]]
    for k in impossible:
        account.add(
            "not trained on, with fewer steps than characters and repeats", f"{names[k]} ({steps[k]} < {needed[k]})"
        )
    parts["train"] = [k for k in parts["train"] if steps[k] >= needed[k]]
    if not parts["train"]:
        raise DataError(
            f"{settings.transcripts.data}: no sequence has as many steps as its transcript has characters: lower "
            "`stride`, or check that files and transcripts belong together",
            setting="stride",
        )
