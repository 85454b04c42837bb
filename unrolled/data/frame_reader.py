"""Frames of recordings, pictures and features, and an account of what was wrong with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unrolled.data.audio import AudioFeatures, Recording, at_speed, audio_rate, read_audio
from unrolled.data.frames import FrameStore, Normalisation, as_stored
from unrolled.data.line_images import LONGEST, Renderer, installed_fonts, read_line_image
from unrolled.data.lines import open_lines
from unrolled.data.notes import many, named
from unrolled.data.tokens import Progress
from unrolled.data.transcripts import Item, Kind, as_features, plain_text
from unrolled.errors import ConfigurationError, DataError

#: What an item of each kind is called.
CALLED: dict[Kind, str] = {"audio": "recording", "pictures": "picture", "features": "sequence"}
#: What is said of items that cannot be read.
_UNREAD = "left out, because they cannot be read"


@dataclass
class Account:
    """What was noticed of items, by what is said about it: the names of the items."""

    names: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, what: str, name: str) -> None:
        self.names[what].append(name)

    def notes(self, kind: Kind) -> list[str]:
        """Return a line for each thing that was noticed, with the number of items and the first names."""
        return [self._note(kind, what) for what in self.names]

    def unread(self, kind: Kind) -> str:
        """Return the line about items that cannot be read; empty if all can."""
        return self._note(kind, _UNREAD) if _UNREAD in self.names else ""

    def _note(self, kind: Kind, what: str) -> str:
        found = self.names[what]
        return f"{many(len(found), CALLED[kind])} {what}: {named(found)}"


@dataclass(frozen=True)
class FrameReader:
    """Reads items of one kind as frames: sound by `audio`, pictures scaled to `height`."""

    kind: Kind
    audio: AudioFeatures
    height: int

    @property
    def dtype(self) -> str:
        """The type in which frames are stored."""
        return "uint8" if self.kind == "pictures" else "float16"

    def read(self, item: Item, account: Account | None = None, speeds: Sequence[float] = ()) -> list[np.ndarray]:
        """Return the frames `[T, D]` of an item, and of a recording also those at each of the speeds.

        Raises DataError if the item cannot be read. account: notes what else was noticed.
        """
        account = Account() if account is None else account
        if item.kind != self.kind:
            one = CALLED[self.kind]
            raise DataError(f"{item.name}: not a {one}, as the {one}s in training were")
        if self.kind == "pictures":
            found = item.source if isinstance(item.source, np.ndarray) else read_line_image(item.source, self.height)
            return [found]
        if self.kind == "features":
            return [as_features(item)]
        assert isinstance(item.source, Path)
        recording = read_audio(item.source)
        if recording.channels > 1:
            account.add("with several channels, whose mean is used", item.name)
        if recording.rate != self.audio.rate:
            account.add(f"resampled to {self.audio.rate:,} Hz", item.name)
        samples = [recording.samples, *(at_speed(recording.samples, speed) for speed in speeds if speed != 1)]
        frames = [self.audio.of(Recording(one, recording.rate)) for one in samples]
        if not len(frames[0]):
            raise DataError(f"{item.name}: shorter than a window of 25 ms")
        return frames


def store_frames(
    path: Path,
    reader: FrameReader,
    train: Sequence[Item],
    dev: Sequence[Item],
    speeds: Sequence[float],
    account: Account,
    progress: Progress,
) -> tuple[list[Item], list[Item]]:
    """Write the frames of items into a store, and return those items of both parts that can be read, in its order.

    An item to train on is in it once more for each of the speeds. account: notes what was noticed.
    """
    stored: tuple[list[Item], list[Item]] = ([], [])
    with FrameStore.write(path, reader.dtype) as writer:
        parts = [*((stored[0], speeds, item) for item in train), *((stored[1], (), item) for item in dev)]
        for done, (part, at, item) in enumerate(parts, 1):
            try:
                for frames in reader.read(item, account, at):
                    writer.add(frames, item.name)
                    part.append(item)
            except DataError as error:
                reason = str(error).removeprefix(f"{item.source}: ").removeprefix(f"{item.name}: ")
                account.add(_UNREAD, f"{item.name} ({reason})")
            progress(f"reading the {CALLED[reader.kind]}s", done / len(parts))
    return stored


@dataclass(frozen=True)
class InputReader:
    """Reads items as the inputs of a model that was trained on frames of `width` values."""

    reader: FrameReader
    width: int
    normalise: Normalisation

    def of(self, item: Item) -> np.ndarray:
        """Return the inputs for an item, `[T, width]`; DataError if it cannot be read."""
        found = self.reader.read(item)[0]
        if found.shape[1] != self.width:
            raise DataError(f"{item.name}: frames of {found.shape[1]} values, those of training have {self.width}")
        return self.normalise(as_stored(found, self.reader.dtype, item.name))  # rounded as the frames of training are

    def of_source(self, source: str | Path | np.ndarray) -> np.ndarray:
        """Return the inputs for a file, or for features `[T, D]`; DataError if it cannot be read."""
        if isinstance(source, np.ndarray):
            return self.of(Item("features", "", source))
        return self.of(Item(str(source), "", Path(source)))

    def of_all(self, items: Sequence[Item], where: str) -> tuple[list[np.ndarray], list[str], list[str]]:
        """Return the inputs and the texts of the items that can be read, and notes on the others.

        Raises DataError if none can be read.
        """
        inputs, texts, notes = [], [], []
        for item in items:
            try:
                inputs.append(self.of(item))
                texts.append(item.text)
            except DataError as error:
                notes.append(f"left out: {error}")
        if not inputs:
            raise DataError(f"{where}: none of it can be read; the first: {notes[0]}", setting="data")
        return inputs, texts, notes


def kind_of_items(items: Sequence[Item]) -> Kind:
    """Return the one kind of all items; DataError if there are several."""
    first = items[0].kind
    for item in items:
        if item.kind != first:
            one, other = CALLED[first], CALLED[item.kind]
            raise DataError(f"{items[0].name} and {item.name}: {one}s and {other}s cannot be mixed")
    return first


def usual_rate(items: Sequence[Item]) -> int:
    """Return the rate of most of the recordings that can be read, at most 16,000."""
    rates: list[int] = []
    for item in items:
        try:
            rates.append(audio_rate(item.source))  # type: ignore[arg-type]
        except DataError:
            continue  # it is counted and named when it is read
    return min(16_000, max(set(rates), key=rates.count)) if rates else 16_000


def draw_lines(path: str, copies: int, fonts: Sequence[str], height: int, account: Account) -> Iterator[Item]:
    """Iterate over pictures of the lines of a text, each line in `copies` fonts, chosen in turn."""
    for font in fonts:
        if not Path(font).is_file():
            raise ConfigurationError(f"{font}: no such font file", setting="fonts")
    renderer = Renderer(fonts or installed_fonts(), height)
    for font in fonts:
        if font not in renderer.fonts:
            raise ConfigurationError(f"{font}: not a font that can be scaled", setting="fonts")
    drawn = turn = 0
    for number, line in enumerate(open_lines(path), 1):
        text = plain_text(line)
        if not text:
            continue
        usable = renderer.fonts_for(text)
        if not usable:
            account.add("left out, because no font has all of their characters", f"line {number:,}")
            continue
        for copy in range(copies):
            font, name = usable[turn % len(usable)], f"line {number} drawn {copy + 1}"
            turn += 1
            if renderer.fits(text, font):
                yield _Drawn(name, text, renderer.draw(text, font))
                drawn += 1
            else:
                account.add(f"not drawn, because they would be more than {LONGEST} times as wide as high", name)
    if not drawn:
        said = ": ".join([f"{path}: there are no lines in it that can be drawn", *account.notes("pictures")[:1]])
        raise DataError(said, setting="render")


class _Drawn(Item):
    """A picture that was drawn, as the columns that `read_line_image` returns."""

    @property
    def kind(self) -> Kind:
        return "pictures"
