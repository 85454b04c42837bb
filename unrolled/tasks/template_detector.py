"""Objects in pictures, found by a detector that learns from captions of whole pictures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unrolled.data.boxes import Box, LabelledBox
from unrolled.data.caption_batches import as_floats
from unrolled.data.caption_tokens import caption_tokens
from unrolled.data.colours import COLOURS, colour_shares
from unrolled.data.noun_forms import singular
from unrolled.data.object_statistics import ObjectStatistics
from unrolled.data.object_words import ObjectWords
from unrolled.data.regions import enlarged, grid_shape, map_boxes
from unrolled.data.tokens import Progress
from unrolled.errors import DataError, RunError
from unrolled.models.word_detector import WordDetector

#: The grids `[N, P, C]` of the pictures of training with these numbers.
ReadGrids = Callable[[np.ndarray], np.ndarray]
#: Learning reads this many principal components of the features, in batches of this many pictures.
_COMPONENTS, _BATCH = 512, 100
_EPOCHS, _FEWEST_STEPS, _RATE, _PENALTY = 5, 300, 0.005, 0.02
#: The most pictures to learn from: their components take 100 kB each.
_MOST = 10_000
#: The pictures whose grids are read at once, and those from which the components are computed.
_AT_ONCE, _FOR_COMPONENTS = 200, 1000
#: An object can have a colour if captions give it one at least this often.
_COLOURED = 0.04
#: An object is also learned as several if captions say so of this many pictures, and of this share of its pictures.
_SEVERAL, _SEVERAL_SHARE = 20, 0.05
#: There are several of an object if these are this likely, where the object has a likelihood of 1.
_PLURAL = 0.4
#: Pixels of a picture that are looked at for colours, along each side.
_PIXELS = 56


@dataclass(frozen=True)
class Detection:
    """An object in a picture.

    probability: that a caption mentions it. box: around it, or around the first of several. count: of how many there
    are. colour: one of `COLOURS`, or an empty string where the object can have none.
    """

    label: str
    probability: float
    box: Box
    count: int = 1
    colour: str = ""


class ObjectDetector:
    """Detects the objects that captions of training mention.

    model: over the labels of `words` and then over `plurals`, labels of which there can be several.
    words, statistics: what the captions say.
    """

    def __init__(
        self, model: WordDetector, words: ObjectWords, statistics: ObjectStatistics, plurals: Sequence[str] = ()
    ) -> None:
        self.model, self.words, self.statistics, self.plurals = model.eval(), words, statistics, tuple(plurals)

    @torch.no_grad()
    def detect(
        self, picture: np.ndarray, grid: np.ndarray | Tensor, *, least: float = 0.25, most: int = 5
    ) -> list[Detection]:
        """Return the objects in a picture, the most probable first: at least one, and at most `most`.

        Of several words for the same thing, such as `man` and `player`, the most probable one counts.

        picture: `[H, W, 3]` uint8. grid: its features, `[P, C]`, of a square. least: the probability of an object.
        """
        values = (grid if isinstance(grid, Tensor) else as_floats(grid)).float().unsqueeze(0)
        chances = self.model.probabilities(values)[0].tolist()
        several = dict(zip(self.plurals, chances[len(self.words.labels) :], strict=True))
        shape = grid_shape(values.shape[1])
        order = sorted(range(len(self.words.labels)), key=lambda k: -chances[k])
        kept: list[int] = []
        for number in order:
            if len(kept) == most or (kept and chances[number] < least):
                break
            label = self.words.labels[number]
            if not any(self.statistics.same(label, self.words.labels[other]) for other in kept):
                kept.append(number)
        maps = self.model.maps(values)[0, :, kept].numpy()
        height, width = picture.shape[:2]
        found = []
        for k, number in enumerate(kept):
            label, chance, where = self.words.labels[number], chances[number], maps[:, k].reshape(shape)
            boxes = map_boxes(where, height, width)
            # Things that are close together are one region of a coarse grid, so regions alone do not tell.
            count = max(2, len(boxes)) if several.get(label, 0.0) >= _PLURAL * chance else 1
            colour = self.colour(picture, label, boxes[0], enlarged(where, height, width))
            found.append(Detection(label, chance, boxes[0], count, colour))
        return found

    def from_boxes(self, picture: np.ndarray, boxes: Sequence[LabelledBox], *, least: float = 0.25) -> list[Detection]:
        """Return detections from given boxes, those with the highest scores first; boxes of a label are counted.

        The labels need not be among the words of training. Boxes with a score below `least` are left out.
        """
        height, width = picture.shape[:2]
        by_label: dict[str, list[LabelledBox]] = {}
        for one in sorted(boxes, key=lambda one: (-one.score, -one.box.area)):
            if one.score >= least:
                label = self.words.form_of.get(one.label) or singular(one.label, set(self.words.labels))
                by_label.setdefault(label, []).append(one)
        whole = np.ones((height, width))
        return [
            Detection(label, some[0].score, some[0].box, len(some), self.colour(picture, label, some[0].box, whole))
            for label, some in by_label.items()
        ]

    def colour(self, picture: np.ndarray, label: str, box: Box, weights: np.ndarray) -> str:
        """Return the most likely colour of an object in a box, or an empty string if captions hardly give it one.

        Its pixels count by `weights [H, W]`. A colour counts less if it is also around the box, and more the more often
        captions give it to such an object.
        """
        if self.statistics.mentions[label] and self.statistics.coloured(label) < _COLOURED:
            return ""
        height, width = picture.shape[:2]
        rows, columns = (np.unique(np.linspace(0, size - 1, _PIXELS).round().astype(int)) for size in (height, width))
        down = (rows + 0.5 >= box.top) & (rows + 0.5 <= box.bottom)
        across = (columns + 0.5 >= box.left) & (columns + 0.5 <= box.right)
        inside = (down[:, None] & across).ravel()
        pixels, chosen = picture[rows][:, columns].reshape(-1, 3), weights[rows][:, columns].ravel()
        here = colour_shares(pixels, inside * chosen)
        # The box holds some of what is around the object, so what is outside too counts less.
        around = colour_shares(pixels, ~inside * (1 - chosen / max(1e-12, chosen.max())) + 1e-6)
        scores = np.log(here + 0.05) - 0.5 * np.log(around + 0.05) + np.log(self.statistics.colour_prior(label))
        return COLOURS[int(scores.argmax())]

    # -- files ---------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the model to a file. What the captions say is learned again from them."""
        save_file(dict(self.model.state_dict()), path, {"labels": json.dumps([*self.words.labels, *self.plurals])})

    @classmethod
    def load(cls, path: Path, captions: Sequence[Sequence[str]]) -> ObjectDetector:
        """Read a file of `save`, given the captions of training; RunError if it is missing, damaged or of others."""
        words, statistics, plurals, _ = learn_words(captions)
        try:
            with safe_open(path, "pt") as file:
                labels = json.loads((file.metadata() or {}).get("labels", "null"))
                state = {name: file.get_tensor(name) for name in ("weight", "bias")}
        except (OSError, SafetensorError, ValueError) as error:
            raise RunError(f"{path}: no detector of objects here ({type(error).__name__}: {error})") from error
        if labels != [*words.labels, *plurals] or [len(one) for one in state.values()] != 2 * [len(labels)]:
            raise RunError(f"{path}: its objects are not those of the captions; learn the detector again")
        model = WordDetector(state["weight"].shape[1], len(labels))
        model.load_state_dict(state)
        return cls(model, words, statistics, plurals)


def learn_words(
    captions: Sequence[Sequence[str]],
) -> tuple[ObjectWords, ObjectStatistics, tuple[str, ...], np.ndarray]:
    """Return the objects of captions, what captions say of them, the plurals, and who mentions what.

    captions: those of each picture, as text. The plurals are the objects of which there are often several. The last
    is boolean, `[pictures, objects + plurals]`: whether a caption of a picture mentions an object, and whether half of
    the captions that mention it, or more, mention several.

    Raises DataError if the captions mention no object often enough.
    """
    tokens = [[caption_tokens(text) for text in some] for some in captions]
    words = ObjectWords.learn(tokens)
    if not words.labels:
        raise DataError(f"the captions of {len(captions):,} pictures mention no object often enough to learn it")
    number = {label: k for k, label in enumerate(words.labels)}
    times, several = np.zeros((2, len(tokens), len(words.labels)), np.int32)
    for row, some in enumerate(tokens):
        for caption in some:
            found = words.mentions(caption)
            counts = Counter(one.label for one in found)
            times[row, [number[label] for label in counts]] += 1
            many = {one.label for one in found if one.plural or counts[one.label] > 1}
            several[row, [number[label] for label in many]] += 1
    mostly = (several > 0) & (2 * several >= times)
    chosen = np.flatnonzero(mostly.sum(0) >= np.maximum(_SEVERAL, _SEVERAL_SHARE * (times > 0).sum(0)))
    targets = np.concatenate([times > 0, mostly[:, chosen]], 1)
    return words, ObjectStatistics(words, tokens), tuple(words.labels[k] for k in chosen), targets


def learn_detector(
    read: ReadGrids,
    captions: Sequence[Sequence[str]],
    *,
    seed: int = 0,
    progress: Progress = lambda what, share: None,
) -> ObjectDetector:
    """Learn to detect the objects that captions of pictures mention, from these captions alone.

    read: gives the grids of features `[N, P, C]` of pictures by number. captions: those of every picture, as text.
    Learning uses the first principal components of the features; the weights that it returns are those of the features
    themselves. Of more than 10,000 pictures, some are drawn; what captions say is learned from all.

    Raises DataError if the captions mention no object often enough, and ShapeError if the grids are not square.
    """
    words, statistics, plurals, mentioned = learn_words(captions)
    grid_shape(read(np.arange(1)).shape[1])
    mean, projection = _components(read, len(captions))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(captions))[:_MOST])
    parts = []
    for first in range(0, len(chosen), _AT_ONCE):
        progress("reading grids", first / len(chosen))
        parts.append((as_floats(read(chosen[first : first + _AT_ONCE])) - mean) @ projection)
    features, targets = torch.cat(parts), as_floats(mentioned[chosen])
    model = WordDetector(projection.shape[1], targets.shape[1], positions=features.shape[1])
    _train(model, features, targets, seed, progress)
    whole = WordDetector(len(mean), targets.shape[1])
    with torch.no_grad():
        whole.weight.copy_(model.weight @ projection.T)
        whole.bias.copy_(model.bias - whole.weight @ mean)
    return ObjectDetector(whole, words, statistics, plurals)


def _components(read: ReadGrids, pictures: int) -> tuple[Tensor, Tensor]:
    """Return the mean of the features `[C]`, and their projection `[C, K]`, after which their mean variance is 1.

    Variances stay unequal: with equal ones, objects are found where their surroundings are, and not where they are.
    """
    chosen = np.unique(np.linspace(0, pictures - 1, min(_FOR_COMPONENTS, pictures)).round().astype(int))
    size = read(chosen[:1]).shape[2]
    total, products, count = torch.zeros(size), torch.zeros(size, size), 0
    for first in range(0, len(chosen), _AT_ONCE):
        rows = as_floats(read(chosen[first : first + _AT_ONCE])).flatten(0, 1)
        total, products, count = total + rows.sum(0), products + rows.T @ rows, count + len(rows)
    mean = total / count
    values, vectors = torch.linalg.eigh((products / count - torch.outer(mean, mean)).double())
    values, vectors = values.flip(0)[:_COMPONENTS], vectors.flip(1)[:, :_COMPONENTS]
    return mean, (vectors / values.mean().clamp(min=1e-12).sqrt()).float()


def _train(model: WordDetector, features: Tensor, targets: Tensor, seed: int, progress: Progress) -> None:
    """Train with Adam; the rate falls to 0, and weights are penalised, because most objects have few pictures."""
    positions, count = features.shape[1], len(features)
    with torch.no_grad():
        prior = targets.mean(0).clamp(1e-4, 1 - 1e-4)
        model.bias.copy_(torch.logit(-torch.expm1(torch.log1p(-prior) / positions)))
    generator = torch.Generator().manual_seed(seed)
    epochs = max(_EPOCHS, -(-_FEWEST_STEPS * _BATCH // count))
    steps, done = epochs * -(-count // _BATCH), 0
    optimiser = torch.optim.Adam(model.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator)
        for first in range(0, count, _BATCH):
            rows = order[first : first + _BATCH]
            progress("learning objects", done / steps)
            loss = model.loss(features[rows], targets[rows]) + _PENALTY * model.weight.square().sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            done += 1
