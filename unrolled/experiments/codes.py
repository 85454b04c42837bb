"""Local and distributed codes: small nets that name drawn objects, with one unit per object or one per property.

Source: the lectures' toy example, in which vertical + horizontal + ellipse reads as a circle. The net's targets fix
what each unit stands for; the net learns how a picture activates the units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from unrolled.experiments.names import OBJECTS, PROPERTIES

#: Pixels of a picture's side.
SIDE = 16
#: Mean and spread that scale the three results of `measure` to about the same range.
_MEAN, _SPREAD = torch.tensor([0.55, 0.55, 0.9]), torch.tensor([0.2, 0.2, 0.1])
#: Codes by name: the units, and which of them are on for each object, `[objects, units]`.
CODES: dict[str, tuple[tuple[str, ...], Tensor]] = {
    "local": (tuple(OBJECTS), torch.eye(len(OBJECTS))),
    "distributed": (PROPERTIES, torch.tensor(list(OBJECTS.values()), dtype=torch.float32)),
}


def draw_pictures(name: str, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` pictures of an object in random sizes: bool `[count, SIDE, SIDE]`."""
    vertical, horizontal, _, ellipse = OBJECTS[name]

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    def reach(long: int) -> Tensor:
        return draw(5.2, 6.8) if long else draw(2.2, 3.8)

    high = reach(vertical)
    wide = high if vertical == horizontal else reach(horizontal)
    place = torch.arange(SIDE) - (SIDE - 1) / 2
    down, right = (place[:, None] - draw(-0.5, 0.5)) / high, (place - draw(-0.5, 0.5)) / wide
    return (down**2 + right**2 if ellipse else torch.maximum(down.abs(), right.abs())) <= 1


def measure(pictures: Tensor) -> Tensor:
    """Return each picture's height and width, as shares of the side, and the filled share of its box: `[..., 3]`.

    pictures: `[..., SIDE, SIDE]`.
    """
    high, wide = pictures.any(-1).sum(-1), pictures.any(-2).sum(-1)
    return torch.stack([high / SIDE, wide / SIDE, pictures.sum((-2, -1)) / (high * wide)], -1)


@dataclass(frozen=True)
class CodeResult:
    """The results of nets on new pictures of every object. Row u holds those of the nets trained without object u.

    activations: `[objects, objects, units]`, from 0 to 1, means over pictures and nets. right: `[objects, objects]`,
    the share of pictures whose object was named.
    """

    activations: Tensor
    right: Tensor


def train_code(
    code: str,
    *,
    pixels: bool = False,
    nets: int = 5,
    hidden_size: int = 16,
    updates: int = 300,
    pictures: int = 40,
    seed: int = 1,
) -> CodeResult:
    """Train `nets` nets without each object, on `pictures` pictures of every other object.

    A net has one tanh layer and learns by Adam on the cross-entropy of every unit. Its input is the result of
    `measure`, or the picture itself with `pixels`. It names the object whose pattern of units is the most probable; the
    unseen object is one of the candidates.
    """
    units, patterns = CODES[code]
    count = len(OBJECTS)
    generator = torch.Generator().manual_seed(seed)

    def see() -> Tensor:
        """Return the inputs of all nets: `[objects · nets, objects · pictures, features]`."""
        drawn = [draw_pictures(name, count * nets * pictures, generator) for name in OBJECTS]
        seen = [(2.0 * part.flatten(-2) - 1) / 4 if pixels else (measure(part) - _MEAN) / _SPREAD for part in drawn]
        return torch.cat([part.unflatten(0, (count * nets, pictures)) for part in seen], 1)

    def layer(inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
        shapes = (count * nets, inputs, outputs), (count * nets, 1, outputs)
        weight, bias = ((2 * torch.rand(shape, generator=generator) - 1) / inputs**0.5 for shape in shapes)
        return weight.requires_grad_(), bias.requires_grad_()

    training, new = see(), see()
    (w, b), (v, c) = layer(training.size(-1), hidden_size), layer(hidden_size, len(units))

    def net(inputs: Tensor) -> Tensor:
        return torch.baddbmm(c, torch.tanh(torch.baddbmm(b, inputs, w)), v)

    targets = patterns.repeat_interleave(pictures, 0).expand(count * nets, -1, -1)
    shown = 1 - torch.eye(count).repeat_interleave(nets, 0).repeat_interleave(pictures, 1).unsqueeze(-1)
    optimizer = torch.optim.Adam([w, b, v, c], 0.02)
    for _ in range(updates):
        optimizer.zero_grad()
        # The sum of each net's mean loss, so that the nets learn independently.
        losses = binary_cross_entropy_with_logits(net(training), targets, shown, reduction="none")
        (losses.sum() / ((count - 1) * pictures * len(units))).backward()
        optimizer.step()
    with torch.no_grad():
        logits = net(new).unflatten(1, (count, pictures)).unflatten(0, (count, nets))
        chances = logsigmoid(logits) @ patterns.T + logsigmoid(-logits) @ (1 - patterns).T
        right = chances.argmax(-1) == torch.arange(count).unsqueeze(1)
    return CodeResult(logits.sigmoid().mean((1, 3)), right.double().mean((1, 3)))


def draw_codes(activations: dict[str, Tensor], unseen: str, seed: int = 1):
    """Draw every object as a picture, and the mean activations of each code's units, `[objects, units]`."""
    from unrolled.analysis.figures import canvas

    figure = canvas(11, 5.6)
    widths = [0.9, *(len(CODES[code][0]) for code in activations)]
    left, *maps = figure.subplots(1, len(widths), width_ratios=widths)
    generator = torch.Generator().manual_seed(seed)
    gap = 2
    strip = torch.full((len(OBJECTS) * (SIDE + gap), SIDE), 0.85)
    for row, name in enumerate(OBJECTS):
        strip[row * (SIDE + gap) + gap // 2 :][:SIDE] = 1.0 - draw_pictures(name, 1, generator)[0].float()
    left.imshow(strip.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    left.set_xticks([])
    left.set_yticks([(row + 0.5) * (SIDE + gap) - 0.5 for row in range(len(OBJECTS))], list(OBJECTS), fontsize=9)
    place = list(OBJECTS).index(unseen)
    left.get_yticklabels()[place].set(color="#d62728", fontweight="bold")
    for axes, (code, means) in zip(maps, activations.items(), strict=True):
        axes.imshow(means.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, values in enumerate(means.tolist()):
            for column, value in enumerate(values):
                color = "white" if value > 0.6 else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=color)
        units = CODES[code][0]
        axes.set_xticks(range(len(units)), units, rotation=35, ha="right", rotation_mode="anchor", fontsize=9)
        axes.set_yticks([])
        axes.axhspan(place - 0.5, place + 0.5, fill=False, edgecolor="#d62728", linewidth=2)
        what = "object" if code == "local" else "property"
        axes.set_title(f"{code}: one unit for each {what}", fontsize=10)
    figure.suptitle(f"Mean activation on new pictures; in red: the unseen object, {unseen}", fontsize=11)
    return figure
