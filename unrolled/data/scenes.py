"""Drawn scenes with captions by a grammar: coloured shapes at places, to try captioning without photographs."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (214, 40, 40),
    "green": (44, 150, 70),
    "blue": (40, 80, 200),
    "yellow": (240, 205, 40),
    "purple": (130, 60, 160),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "star")
GROUNDS = {"white": (248, 248, 248), "gray": (176, 176, 176), "pink": (250, 205, 215)}
SIZES = {"small": 0.16, "large": 0.30}
#: Where the centre of a shape is, by column and row.
_COLUMNS = {"left": 0.26, "middle": 0.5, "right": 0.74}
_ROWS = {"top": 0.26, "middle": 0.5, "bottom": 0.74}
#: Pictures are drawn this many times larger, so that edges are smooth.
_FINER = 3


@dataclass(frozen=True)
class Thing:
    """A shape with its colour, its size, and the column and row of its centre."""

    colour: str
    shape: str
    size: str
    column: str
    row: str

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def place(self) -> str:
        """Where it is, in words."""
        if self.column == self.row == "middle":
            return "in the middle"
        if self.row == "middle":
            return f"on the {self.column}"
        return f"at the {self.row}" if self.column == "middle" else f"at the {self.row} {self.column}"


@dataclass(frozen=True)
class Scene:
    """One or two things on a ground of one colour."""

    ground: str
    things: tuple[Thing, ...]


def draw_scene(draw: random.Random) -> Scene:
    """Return a random scene. Two things differ in colour and shape, and in their column or row."""
    ground, alone = draw.choice(list(GROUNDS)), draw.random() < 0.4
    while True:
        first, other = _thing(draw), _thing(draw)
        if alone:
            return Scene(ground, (first,))
        apart = {first.column, other.column} == {"left", "right"} or {first.row, other.row} == {"top", "bottom"}
        if apart and other.colour != first.colour and other.shape != first.shape:
            return Scene(ground, (first, other))


def _thing(draw: random.Random) -> Thing:
    size = draw.choice(list(SIZES))
    column, row = draw.choice(list(_COLUMNS)), draw.choice(list(_ROWS))
    return Thing(draw.choice(list(COLOURS)), draw.choice(SHAPES), size, column, row)


def captions_of(scene: Scene) -> list[str]:
    """Return what the grammar says of a scene: five captions."""
    first, *rest = scene.things
    if not rest:
        return [
            f"A {first.size} {first.name} {first.place}.",
            f"There is a {first.name} on a {scene.ground} ground.",
            f"A {first.name} {first.place} of the picture.",
            f"One {first.size} {first.shape}, which is {first.colour}.",
            f"A {first.size} {first.name} on {scene.ground}.",
        ]
    other = rest[0]
    relation, reverse = _relation(first, other), _relation(other, first)
    return [
        f"A {first.name} {relation} a {other.name}.",
        f"A {other.name} {reverse} a {first.name}.",
        f"There are a {first.name} and a {other.name} on a {scene.ground} ground.",
        f"A {first.size} {first.name} {relation} a {other.size} {other.name}.",
        f"A {first.name} {first.place} and a {other.name} {other.place}.",
    ]


def _relation(one: Thing, other: Thing) -> str:
    """Return where one thing is, seen from another."""
    across = _COLUMNS[one.column] - _COLUMNS[other.column]
    down = _ROWS[one.row] - _ROWS[other.row]
    if abs(across) >= abs(down):
        return "to the left of" if across < 0 else "to the right of"
    return "above" if down < 0 else "below"


def picture_of(scene: Scene, side: int = 224, draw: random.Random | None = None) -> Image.Image:
    """Return a scene as a picture; with `draw`, its things are moved, turned and tinted a little at random."""
    draw = draw or random.Random(0)
    full = side * _FINER
    picture = Image.new("RGB", (full, full), GROUNDS[scene.ground])
    pen = ImageDraw.Draw(picture)
    for thing in scene.things:
        x = _COLUMNS[thing.column] + draw.uniform(-0.03, 0.03)
        y = _ROWS[thing.row] + draw.uniform(-0.03, 0.03)
        radius = SIZES[thing.size] / 2 * draw.uniform(0.9, 1.1)
        tint = tuple(max(0, min(255, value + draw.randint(-12, 12))) for value in COLOURS[thing.colour])
        _draw_shape(pen, thing.shape, x * full, y * full, radius * full, draw.uniform(-0.2, 0.2), tint)
    return picture.resize((side, side), Image.Resampling.LANCZOS)


def _draw_shape(
    pen: ImageDraw.ImageDraw, shape: str, x: float, y: float, radius: float, turn: float, colour: tuple[int, ...]
) -> None:
    if shape == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        return
    corners = {"square": 4, "triangle": 3, "star": 10}[shape]
    start = turn - np.pi / 2 + (np.pi / 4 if shape == "square" else 0)
    angles = start + np.arange(corners) * 2 * np.pi / corners
    radii = np.where(np.arange(corners) % 2, 0.42, 1.0) if shape == "star" else np.ones(corners)
    reach = radius * (1.2 if shape != "square" else 1.25)
    points = [(x + reach * r * np.cos(a), y + reach * r * np.sin(a)) for r, a in zip(radii, angles, strict=True)]
    pen.polygon(points, fill=colour)


def write_scenes(folder: Path, count: int, seed: int, side: int = 224) -> Iterator[int]:
    """Write scenes as pictures and `captions.jsonl` into a folder; yield the number of those that are written."""
    draw = random.Random(seed)
    (folder / "images").mkdir(parents=True)
    with (folder / "captions.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            scene = draw_scene(draw)
            name = f"scene-{number:05}.png"
            picture_of(scene, side, draw).save(folder / "images" / name)
            file.write(json.dumps({"file": name, "captions": captions_of(scene)}) + "\n")
            yield number + 1
