"""What a captioner's run keeps of its pictures: names, files and captions, as text and as numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import Tensor

from unrolled.data.caption_batches import EncodedCaptions
from unrolled.data.caption_tokens import caption_tokens
from unrolled.data.captions import CaptionedPicture, read_captions, read_names
from unrolled.data.lines import read_json
from unrolled.data.notes import many, named
from unrolled.data.tag_batches import Index
from unrolled.data.tokens import Progress
from unrolled.data.transcripts import split_by_group
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.settings import to_json
from unrolled.tasks.caption_features import Features, GivenFeatures, open_features
from unrolled.tasks.captioning_settings import NOTICED_FILE, CaptioningConfig, CaptionsConfig, Noticed
from unrolled.tasks.vectors import store_vectors
from unrolled.training import Run

WORDS_FILE, CAPTIONS_FILE, PICTURES_FILE = "vocabulary.json", "captions.safetensors", "pictures.json"
MOMENTS_FILE = "moments.safetensors"
#: The least deviation of a value that vectors are divided by.
_LEAST = 1e-3
#: The most pictures whose grids the moments are taken of.
_SAMPLED = 500


@dataclass(frozen=True)
class Pictures:
    """The pictures of a run, first those to train on, then those to validate on.

    keys: what identifies their features: hashes of the files, or names in a file of features. captions: as text.
    """

    names: list[str]
    files: list[str]
    keys: list[str]
    captions: list[list[str]]
    train: int

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def load(cls, path: Path) -> Pictures:
        """Read the pictures of a run; RunError if they are missing or damaged."""
        try:
            stored = read_json(path)
            found = cls(*(stored[name] for name in ("names", "files", "keys", "captions", "train")))
            lists = found.names, found.files, found.keys
            if not all(isinstance(text, str) for some in lists for text in some):
                raise TypeError("names, files and keys must be strings")
            if not all(isinstance(text, str) for some in found.captions for text in some):
                raise TypeError("captions must be strings")
            if len({len(found.captions), *map(len, lists)}) > 1 or not 0 < found.train <= len(found.names):
                raise ValueError("its lists do not fit together")
        except (ValueError, KeyError, TypeError, DataError) as error:
            raise RunError(f"{path}: missing or damaged ({error})") from error
        return found


def prepare(run: Run, settings: CaptioningConfig, progress: Progress, words: Index | None = None) -> None:
    """Read the captions, encode the pictures, learn the words unless they are given, and write all into a new run."""
    config = settings.captions
    if not config.data:
        raise ConfigurationError("`data` is missing: captions of pictures, a file or a folder", setting="data")
    train, dev, notes = _parts(config, settings.training.seed)
    features, keys, unread = open_features(config, [*train, *dev], settings.model.reads_grid, progress)
    if unread:
        notes.append(f"{many(len(unread), 'picture')} cannot be read and {_are(unread)} left out: {named(unread)}")
    kept = [key != "" for key in keys]
    count = sum(kept[: len(train)])
    pictures = [one for one, good in zip([*train, *dev], kept, strict=True) if good]
    if not count:
        raise DataError(f"{config.data}: no picture to train on can be read (the first: {unread[0]})")
    tokens = [[caption_tokens(caption)[: config.max_length] for caption in one.captions] for one in pictures]
    counts = Counter(word for some in tokens[:count] for caption in some for word in caption)
    if words is None:
        words = Index.learn(counts, config.min_count)
    if len(words) < 2:
        said = f"no word of {config.data} occurs at least {config.min_count} times; lower `min_count`"
        raise DataError(said, setting="min_count")
    rare = sum(times for word, times in counts.items() if word not in words.number)
    if rare:
        share = rare / counts.total()
        notes.append(
            f"{many(len(set(counts) - set(words.number)), 'rare word')}, {share:.1%} of the text, became <unk>"
        )
    words.save(run.path / WORDS_FILE)
    EncodedCaptions.of([[np.array([words[word] for word in one]) for one in some] for some in tokens]).save(
        run.path / CAPTIONS_FILE
    )
    stored = {
        "names": [one.name for one in pictures],
        "files": [str(one.file.resolve()) for one in pictures],
        "keys": [key for key in keys if key],
        "captions": [list(one.captions) for one in pictures],
        "train": count,
    }
    rows = features.rows(stored["keys"][:count])  # type: ignore[index]
    save_moments(run.path / MOMENTS_FILE, features, rows, settings.model.reads_grid)
    if config.vectors is not None:
        store_vectors(run.path, config.vectors, words.number, settings.model.embedding_size)
    noticed = Noticed(
        "" if isinstance(features, GivenFeatures) else config.encoder,
        features.signature,
        features.vector_size,
        features.positions,
        features.grid_size,
        tuple(notes),
    )
    for name, content in ((PICTURES_FILE, stored), (NOTICED_FILE, to_json(noticed))):
        (run.path / name).write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def save_moments(path: Path, features: Features, rows: np.ndarray, grids: bool) -> None:
    """Write the mean and the deviation of each value of the features of these rows.

    Grids are read from at most `_SAMPLED` rows, which are spread evenly: each has many positions.
    """
    vectors = features.vectors(rows).astype(np.float64)
    moments = {"mean": vectors.mean(0), "deviation": vectors.std(0)}
    if grids:
        some = rows[:: -(-len(rows) // _SAMPLED)]
        values = features.grids(some).astype(np.float32)
        moments |= {"grid_mean": values.mean((0, 1)), "grid_deviation": values.std((0, 1))}
    for name in moments:
        if name.endswith("deviation"):
            moments[name] = np.maximum(moments[name], _LEAST)
    save_file({name: array.astype(np.float32) for name, array in moments.items()}, path)


def read_moments(path: Path) -> dict[str, Tensor]:
    """Read what `save_moments` wrote; RunError if it is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: missing or damaged ({type(error).__name__}: {error})") from error


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _parts(config: CaptionsConfig, seed: int) -> tuple[list[CaptionedPicture], list[CaptionedPicture], list[str]]:
    """Return the pictures to train on, those to validate on, and notes."""
    found, notes = _read(config, config.data)
    named_split = {one.split for one in found}
    if config.dev:
        dev, more = _read(config, config.dev)
        return _chosen(found, config.train_names, "train_names"), dev, notes + more
    if config.dev_names:
        dev = _chosen(found, config.dev_names, "dev_names")
        held = {one.name for one in dev}
        train = [one for one in found if one.name not in held]
    elif {"train", "val"} <= named_split:
        dev = [one for one in found if one.split == "val"]
        train = [one for one in found if one.split in ("train", "restval")]
    else:
        if config.train_names:
            found = _chosen(found, config.train_names, "train_names")
        out = split_by_group([one.name for one in found], "", config.val_fraction, seed)
        return (
            [one for one, held_out in zip(found, out, strict=True) if not held_out],
            [one for one, held_out in zip(found, out, strict=True) if held_out],
            notes,
        )
    train = _chosen(train, config.train_names, "train_names")
    if not train:
        raise DataError(f"{config.data}: all its pictures are held out, none is left to train on", setting="dev_names")
    return train, dev, notes


def _read(config: CaptionsConfig, path: str) -> tuple[list[CaptionedPicture], list[str]]:
    # With a file of features the pictures themselves need not be there.
    return read_captions(path, config.images, config.file_column, config.text_column, need_files=not config.features)


def _chosen(pictures: list[CaptionedPicture], names: str, setting: str) -> list[CaptionedPicture]:
    """Return the pictures in a list of names, or all if there is no list."""
    if not names:
        return pictures
    wanted = read_names(names)
    found = [one for one in pictures if one.name in wanted or one.file.name in wanted]
    if not found:
        first = min(wanted)
        raise DataError(f"{names}: none of its pictures has captions (it begins with {first!r})", setting=setting)
    return found
