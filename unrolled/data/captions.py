"""Captioned pictures as people have them: token files of Flickr, COCO's JSON, lists, and folders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unrolled.data.lines import json_lines, open_lines, read_json, readable
from unrolled.data.notes import many, named
from unrolled.data.pictures import IMAGE_SUFFIXES
from unrolled.data.transcripts import FILE_KEYS, column_of, plain_text, read_table
from unrolled.errors import DataError

#: The names of columns and keys that hold captions, the usual ones first.
CAPTION_KEYS = ("caption", "captions", "text", "sentence", "sentences", "description")
#: Folders in which pictures lie next to a list of captions, by their usual names.
_FOLDERS = ("images", "Images", "pictures", "Flicker8k_Dataset", "flickr30k_images", "train2014", "val2014")
_TOKEN_LINE = re.compile(r"([^\t]+)#(?:enc\w*#)?\d+\t(.*)")
#: A line of Flickr30k's table, one of which lacks its second bar, and the header of the table.
_BAR_LINE = re.compile(r"([^|]+)\|\s*\d+\s*\|?\s*(.*)")
_BAR_HEADER = re.compile(r"image\w*\s*\|\s*comment_number\s*\|\s*comment\s*")


@dataclass(frozen=True)
class CaptionedPicture:
    """A picture with its captions. name: how the list calls it. split: the part that the list puts it in, if any."""

    name: str
    file: Path
    captions: tuple[str, ...]
    split: str = ""


def read_captions(
    path: str | Path,
    images: str | Path = "",
    file_column: str = "",
    text_column: str = "",
    *,
    need_files: bool = True,
) -> tuple[list[CaptionedPicture], list[str]]:
    """Return the captioned pictures of a list or a folder, in its order, and notes for the user.

    A list is a token file of Flickr (`name.jpg#0`, a tab, the caption), Flickr30k's table (`name.jpg| 0| caption`),
    COCO's JSON (`images`, `annotations`), the JSON of Karpathy's splits, a JSON list or JSON lines of objects, or CSV
    or TSV with a column for files and one for captions. A picture may have several rows, and in JSON a list of
    captions. A folder holds pictures and next to each a text with a caption per line.

    images: the folder of the pictures. Without it they are looked for next to the list, and in its folder `images`.
    file_column, text_column: the names of the columns or keys, if they are not among the usual ones.
    need_files: leave out pictures whose files are missing.
    The notes count and name pictures without a caption, captions without a picture, and empty captions.

    Raises DataError, with the line, if the list cannot be read, or if no picture has a caption and a file.
    """
    path = Path(path)
    found: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    alone: list[str] = []
    for name, caption, split in _entries(path, alone, file_column, text_column):
        captions = found.setdefault(name, [])
        if caption is not None:
            captions.append(plain_text(caption))
        if split:
            splits[name] = split
    if not found:
        raise DataError(f"{path}: there are no captions in it")
    folders = [Path(images)] if images else [path] if path.is_dir() else [path.parent, *_usual_folders(path.parent)]
    if images and not folders[0].is_dir():
        raise DataError(f"{images}: there is no such folder of pictures", setting="images")
    pictures, lacking, empty, silent = [], [], [], list(alone)
    for name, captions in found.items():
        file = _file_of(name, folders)
        kept = tuple(caption for caption in captions if caption)
        if len(kept) < len(captions):
            empty.append(name)
        if not kept:
            silent.append(name)
        elif file is None and need_files:
            lacking.append(name)
        else:
            pictures.append(CaptionedPicture(name, file or folders[0] / name, kept, splits.get(name, "")))
    if not pictures:
        where = " or ".join(str(folder) for folder in folders[:2])
        if lacking:
            said = f"{path}: none of its pictures is in {where} (the first is {lacking[0]}); name their folder"
            raise DataError(said, setting="images")
        raise DataError(f"{path}: no picture has a caption")
    notes = [
        f"{many(len(names), 'picture')} {what}: {named(names)}"
        for names, what in (
            (lacking, f"with captions {'is' if len(lacking) == 1 else 'are'} missing"),
            (silent, f"without a caption {'is' if len(silent) == 1 else 'are'} left out"),
            ([name for name in empty if name not in silent], "with an empty caption, which is left out"),
        )
        if names
    ]
    return pictures, notes


def read_names(path: str | Path) -> set[str]:
    """Return the names in a list of pictures, one per line; DataError if there are none."""
    names = {line.strip().partition("\t")[0] for line in open_lines(path)} - {""}
    if not names:
        raise DataError(f"{path}: there are no names of pictures in it")
    return names


def _file_of(name: str, folders: Sequence[Path]) -> Path | None:
    """Return the file of a picture. A list may name a folder, such as val2014/a.jpg, that the user's path ends in."""
    for file in (*(folder / name for folder in folders), *(folder / Path(name).name for folder in folders)):
        try:
            if file.is_file():
                return file
        except OSError:  # the name is too long
            continue
    return None


def _usual_folders(folder: Path) -> list[Path]:
    return [folder / name for name in _FOLDERS if (folder / name).is_dir()]


#: The name of a picture, a caption or None if it has none, and its split.
_Entry = tuple[str, str | None, str]


def _entries(path: Path, alone: list[str], file_column: str, text_column: str) -> Iterator[_Entry]:
    if path.is_dir():
        return _in_folder(path, alone)
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    kind = suffixes[-1] if suffixes else ""
    if kind in IMAGE_SUFFIXES:
        raise DataError(f"{path}: a single picture has no caption; name a list of captions, or a folder")
    if kind == ".json":
        return _in_json(path, file_column, text_column)
    if kind in (".jsonl", ".ndjson"):
        return _in_json_lines(path, file_column, text_column)
    first = next((line for line in open_lines(path) if line.strip()), "")
    if _TOKEN_LINE.fullmatch(first):
        return _in_token_file(path, _TOKEN_LINE, "#, a number, a tab and a caption")
    if _BAR_HEADER.fullmatch(first):
        return _in_token_file(path, _BAR_LINE, "|, a number, | and a caption")
    return ((file, text, "") for file, text in read_table(path, file_column, text_column, CAPTION_KEYS))


def _in_folder(folder: Path, alone: list[str]) -> Iterator[_Entry]:
    for picture in sorted(folder.rglob("*")):
        if picture.suffix.lower() not in IMAGE_SUFFIXES or picture.name.startswith(".") or not picture.is_file():
            continue
        name, text = str(picture.relative_to(folder)), picture.with_suffix(".txt")
        if not text.is_file():
            alone.append(name)
            continue
        for line in open_lines(text):
            yield name, line, ""


def _in_token_file(path: Path, form: re.Pattern[str], described: str) -> Iterator[_Entry]:
    for number, line in enumerate(open_lines(path), 1):
        if not line.strip() or _BAR_HEADER.fullmatch(line):
            continue
        found = form.fullmatch(line)
        if found is None:
            raise DataError(f"{path}: line {number:,} is not a picture's name, {described}")
        yield readable(found[1]), found[2], ""


def _in_json_lines(path: Path, file_column: str, text_column: str) -> Iterator[_Entry]:
    for number, _, entry in json_lines(path):
        yield from _in_object(path, f"line {number:,}", entry, file_column, text_column)


def _in_object(path: Path, where: str, entry: Any, file_column: str, text_column: str) -> Iterator[_Entry]:
    if not isinstance(entry, dict):
        raise DataError(f"{path}: {where} is no JSON object")
    name = entry[column_of(path, where, list(entry), file_column, FILE_KEYS, "file_column")]
    given = entry[column_of(path, where, list(entry), text_column, CAPTION_KEYS, "text_column")]
    captions = given if isinstance(given, list) else [given]
    if not isinstance(name, str) or not all(isinstance(one, str) for one in captions):
        raise DataError(f"{path}: {where}: the file must be a string, and captions strings or a list of them")
    yield from ((readable(name), one, str(entry.get("split", ""))) for one in captions or [None])


def _in_json(path: Path, file_column: str, text_column: str) -> Iterator[_Entry]:
    stored = read_json(path)
    if isinstance(stored, list):
        for number, entry in enumerate(stored, 1):
            yield from _in_object(path, f"object {number:,}", entry, file_column, text_column)
        return
    images = stored.get("images") if isinstance(stored, dict) else None
    if not isinstance(images, list) or not all(isinstance(one, dict) for one in images):
        raise DataError(f"{path}: it must hold a list of `images`, as COCO's captions or Karpathy's splits do")
    try:
        yield from _coco(stored, images) if "annotations" in stored else _karpathy(images)
    except (KeyError, TypeError, AttributeError) as error:
        known = "`images` with `id` and `file_name`, `annotations` with `image_id` and `caption`"
        raise DataError(f"{path}: it must hold {known}, or `images` with `filename` and `sentences`") from error


def _coco(stored: dict[str, Any], images: Sequence[dict[str, Any]]) -> Iterator[_Entry]:
    names = {one["id"]: str(one["file_name"]) for one in images}
    yield from ((name, None, "") for name in names.values())
    for one in stored["annotations"]:
        number = one["image_id"]
        yield names.get(number, f"image_id {number}"), str(one["caption"]), ""


def _karpathy(images: Sequence[dict[str, Any]]) -> Iterator[_Entry]:
    for one in images:
        name = "/".join(part for part in (one.get("filepath"), one["filename"]) if part)
        yield from ((name, str(sentence["raw"]), str(one.get("split", ""))) for sentence in one["sentences"])
