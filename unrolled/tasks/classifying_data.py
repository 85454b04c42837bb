"""What a classifier's run keeps of its texts: they are read, split, checked, cut and written as numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from unrolled.data import Vocabulary
from unrolled.data.audio import AUDIO_SUFFIXES
from unrolled.data.class_batches import EncodedTexts, cut, save_texts, stratified
from unrolled.data.labelled import LabelledText, LabelledTexts, count_labels, format_of, read_labelled, repeats
from unrolled.data.lines import readable
from unrolled.data.notes import lacking_note, many
from unrolled.data.tokens import Progress, learn_vocabulary
from unrolled.errors import ConfigurationError, DataError
from unrolled.settings import to_json
from unrolled.tasks.checks import refuse_unused
from unrolled.tasks.classifying_settings import CLASSES_FILE, Classes, ClassifyingConfig, LabelledConfig
from unrolled.training import Run

VOCABULARY_FILE, TEXTS_FILE = "vocabulary.json", "texts.safetensors"


def prepare(run: Run, settings: ClassifyingConfig, progress: Progress, vocabulary: Vocabulary | None = None) -> None:
    """Read the texts, learn the vocabulary unless one is given, and write both into a new run's directory."""
    config = settings.texts
    if not config.data:
        said = "`data` is missing: a file of labelled texts, or a folder with a sub-folder for every class"
        raise ConfigurationError(said, setting="data")
    folder = Path(config.data)
    if folder.is_dir() and any(path.suffix.lower() in AUDIO_SUFFIXES for path in folder.glob("*/*")):
        raise ConfigurationError(f"{config.data}: holds recordings; add `level=audio`", setting="level")
    names = [each.name for each in fields(settings.sounds)]
    refuse_unused(settings.sounds, names, "is for recordings: add `level=audio`, or leave it out", ["level"])
    paths = [path for path in (config.data, config.dev) if path]
    if run.origin is None and all((config.format or format_of(path)) == "folder" for path in paths):
        why = "names a column of a table, and there is none: it has no meaning for a folder"
        refuse_unused(config, ["text_column", "label_column"], why)  # a run may take them from another one
    train, dev, notes = _parts(settings)
    counts, multi = count_labels(train), any(one.multi for one in train)
    if len(counts) < 2 and not multi:
        same = repr(next(iter(counts)))
        said = f"{config.data}: all texts of training have the same label, {same}; is it the right `label_column`?"
        raise DataError(said, setting="label_column")
    if not counts:
        raise DataError(f"{config.data}: no text of training has a label")
    names = sorted(counts)
    unseen = Counter({name: count for name, count in count_labels(dev).items() if name not in counts})
    notes += repeats(train, dev) + lacking_note(unseen, "label", "the dev part")
    if vocabulary is None:
        texts = [as_read(one.text, config) for one in train]
        vocabulary = learn_vocabulary(
            config.level, lambda: iter(texts), size=config.vocab_size, min_count=config.min_count
        )
    vocabulary.save(run.path / VOCABULARY_FILE)
    known, parts = [*names, *sorted(unseen)], {}
    for name, part in (("train", train), ("dev", dev)):
        tokens = []
        for number, one in enumerate(part):
            tokens.append(encode(vocabulary, as_read(one.text, config)))
            if number % 1000 == 0:
                progress(f"encoding the texts of {name}", number / len(part))
        kept = [cut(one, config.max_length, config.keep) for one in tokens]
        longer = sum(len(one) < len(whole) for one, whole in zip(kept, tokens, strict=True))
        if longer:
            left = sum(map(len, kept)) / sum(map(len, tokens))
            notes.append(
                f"{many(longer, 'text')} of the {name} part {'is' if longer == 1 else 'are'} longer than "
                f"{config.max_length:,} tokens and cut; {left:.0%} of all tokens are read"
            )
        parts[name] = EncodedTexts(kept, targets_of(part, known, multi))
    save_texts(run.path / TEXTS_FILE, parts)
    classes = Classes(tuple(names), tuple(sorted(unseen)), multi, tuple(counts[name] for name in names), tuple(notes))
    text = json.dumps(to_json(classes), ensure_ascii=False, indent=2) + "\n"
    (run.path / CLASSES_FILE).write_text(text, encoding="utf-8")


def _parts(settings: ClassifyingConfig) -> tuple[list[LabelledText], list[LabelledText], list[str]]:
    """Return the texts to train on, those held out, and notes."""
    config = settings.texts
    whole = _read(config.data, settings)
    if config.dev:
        held_out = _read(config.dev, settings)
        if whole.multi != held_out.multi:
            kinds = ["one label each", "lists of labels"]
            if whole.multi:
                kinds.reverse()
            raise DataError(f"{config.data}: its texts have {kinds[0]}, those of {config.dev} have {kinds[1]}")
        return whole.texts, held_out.texts, [*whole.notes, *held_out.notes]
    ours, theirs = stratified([one.labels for one in whole.texts], config.val_fraction, settings.training.seed)
    if not ours:
        raise DataError(f"{config.data}: no texts are left to train on; lower `val_fraction`", setting="val_fraction")
    return [whole.texts[k] for k in ours], [whole.texts[k] for k in theirs], whole.notes


def _read(path: str, settings: ClassifyingConfig) -> LabelledTexts:
    config = settings.texts
    return read_labelled(path, config.text_column, config.label_column, form=config.format)


def as_read(text: str, config: LabelledConfig) -> str:
    """Return a text as the model reads it: in lower case if the settings say so."""
    return readable(text).lower() if config.lowercase else readable(text)


def encode(vocabulary: Vocabulary, text: str) -> np.ndarray:
    """Return a text as tokens: at least one, which is the first of the vocabulary if it knows nothing of the text."""
    tokens = vocabulary.encode(text)
    return tokens if len(tokens) else np.zeros(1, dtype=np.int64)


def targets_of(texts: Sequence[LabelledText], names: Sequence[str], multi: bool) -> np.ndarray:
    number = {name: k for k, name in enumerate(names)}
    if not multi:
        return np.array([number[one.labels[0]] for one in texts], np.int64)
    targets = np.zeros((len(texts), len(names)), np.int64)
    for row, one in enumerate(texts):
        targets[row, [number[label] for label in one.labels]] = 1
    return targets
